package libprocess

import (
	"bytes"
	"strconv"
)

// appendMessage appends a message as libprocess sends it, from the actor from at
// the address own to the actor to at the address host. A body is one chunk;
// without a body there is no length of any kind.
func appendMessage(dst []byte, host, from, own, to, name string, body []byte) []byte {
	dst = append(dst, "POST /"...)
	if to != "" {
		dst = append(append(dst, to...), '/')
	}
	dst = append(append(dst, name...), " HTTP/1.1\r\nUser-Agent: libprocess/"...)
	dst = append(append(append(dst, from...), '@'), own...)
	dst = append(append(dst, "\r\nLibprocess-From: "...), from...)
	dst = append(append(append(dst, '@'), own...), "\r\nConnection: Keep-Alive\r\nHost: "...)
	dst = append(append(dst, host...), "\r\n"...)
	if len(body) == 0 {
		return append(dst, "\r\n"...)
	}
	dst = append(dst, "Transfer-Encoding: chunked\r\n\r\n"...)
	dst = strconv.AppendInt(dst, int64(len(body)), 16)
	dst = append(append(dst, "\r\n"...), body...)
	return append(dst, lastChunk...)
}

const lastChunk = "\r\n0\r\n\r\n"

// request is a message as it lies in a buffer.
type request struct {
	to   []byte // still percent-encoded
	name []byte
	from []byte // UPID, unparsed
	body []byte
	size int // of the whole request
}

// verdict is what a buffer begins with.
type verdict int

const (
	partial  verdict = iota // perhaps a message, not all of it there
	complete                // a message
	unusual                 // anything else: a job for net/http
)

const (
	maxHead    = 8 << 10 // longer headers are unusual
	maxMessage = 1 << 30 // larger bodies are refused
)

var (
	post    = []byte("POST /")
	version = []byte(" HTTP/1.1")
	newline = []byte("\r\n")
	blank   = []byte("\r\n\r\n")
)

// parse looks for a message in the form that libprocess sends, or close to it,
// at the start of buf. The request refers to buf.
func parse(buf []byte) (request, verdict) {
	if n := min(len(buf), len(post)); !bytes.Equal(buf[:n], post[:n]) {
		return request{}, unusual
	}
	end := bytes.Index(buf, blank)
	switch {
	case end < 0 && len(buf) <= maxHead:
		return request{}, partial
	case end < 0 || end > maxHead:
		return request{}, unusual
	}
	line, headers, _ := bytes.Cut(buf[:end], newline)
	var r request
	if !r.parseTarget(line) {
		return r, unusual
	}
	f, ok := r.parseHeaders(headers)
	if !ok {
		return r, unusual
	}
	rest := end + len(blank)
	return r, r.parseBody(buf, rest, f)
}

// parseTarget reads the request line: the first segment is the actor, all
// after it the message's name.
func (r *request) parseTarget(line []byte) bool {
	path, ok := bytes.CutSuffix(line[len(post):], version)
	if !ok || bytes.ContainsAny(path, " ?#\t") {
		return false
	}
	r.to, r.name, _ = bytes.Cut(path, []byte("/"))
	return true
}

// framing is how long the body is.
type framing struct {
	chunked bool
	length  int
	seen    uint // one bit for each header that may come once
}

// once notes a header; false if it came before.
func (f *framing) once(bit uint) bool {
	old := f.seen
	f.seen |= 1 << bit
	return f.seen != old
}

// parseHeaders reads the headers that messages have; any other one, or another
// spelling, is unusual. Without a sender there is no message.
func (r *request) parseHeaders(headers []byte) (f framing, ok bool) {
	for len(headers) > 0 {
		var line []byte
		line, headers, _ = bytes.Cut(headers, newline)
		name, value, found := bytes.Cut(line, []byte(": "))
		if !found || !r.parseHeader(name, value, &f) {
			return f, false
		}
	}
	return f, r.from != nil && (!f.chunked || f.length == 0)
}

func (r *request) parseHeader(name, value []byte, f *framing) bool {
	switch string(name) {
	case "User-Agent":
		sender, ok := bytes.CutPrefix(value, []byte("libprocess/"))
		if ok && r.from == nil {
			r.from = sender
		}
		return f.once(0)
	case "Libprocess-From":
		r.from = value
		return f.once(1)
	case "Connection":
		return bytes.EqualFold(value, []byte("keep-alive")) && f.once(2)
	case "Host":
		return f.once(3)
	case "Transfer-Encoding":
		f.chunked = true
		return string(value) == "chunked" && f.once(4)
	case "Content-Length":
		n, err := strconv.ParseUint(string(value), 10, 31)
		f.length = int(n)
		return err == nil && n <= maxMessage && f.once(5)
	default:
		return false
	}
}

func (r *request) parseBody(buf []byte, start int, f framing) verdict {
	if f.chunked {
		return r.parseChunk(buf, start)
	}
	if len(buf) < start+f.length {
		return partial
	}
	r.size = start + f.length
	r.body = buf[start:r.size]
	return complete
}

// parseChunk reads a body of one chunk, or none, and the end mark.
func (r *request) parseChunk(buf []byte, start int) verdict {
	const maxDigits = 8
	digits, _, ok := bytes.Cut(buf[start:min(len(buf), start+maxDigits+len(newline))], newline)
	if !ok {
		if len(digits) > maxDigits {
			return unusual
		}
		return partial
	}
	n, err := strconv.ParseUint(string(digits), 16, 31)
	if err != nil || n > maxMessage {
		return unusual
	}
	tail := lastChunk
	start += len(digits) + len(newline)
	if n == 0 {
		tail = tail[len("\r\n0\r\n"):]
	}
	end := start + int(n)
	r.size = end + len(tail)
	switch {
	case len(buf) < r.size:
		return partial
	case string(buf[end:r.size]) != tail:
		return unusual
	}
	r.body = buf[start:end]
	return complete
}
