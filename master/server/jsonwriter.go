package server

import (
	"compress/gzip"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/resources"
)

// jsonWriter writes JSON by appending and sends it off in pieces, so that a
// large cluster's state is never in memory as a whole. It puts the commas.
type jsonWriter struct {
	http   http.ResponseWriter
	out    io.Writer // nil until the first piece leaves
	zip    *gzip.Writer
	gzip   bool // the other side takes it
	buf    []byte
	last   byte // of what has left
	part   bool // of a list that another writer has: nothing leaves
	failed error

	saidOf *byte  // whose text is in said
	said   []byte // the last part that may be written again
	rows   rowWriter
}

const (
	jsonPiece = 64 << 10
	gzipFrom  = 1024 // smaller bodies are not worth it (libprocess, encoder.hpp)
)

func newJSONWriter(w http.ResponseWriter, r *http.Request) *jsonWriter {
	return &jsonWriter{http: w, gzip: acceptsGzip(r), buf: make([]byte, 0, 4096)}
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// comma puts one unless something has just begun.
func (j *jsonWriter) comma() {
	last := j.last
	if n := len(j.buf); n > 0 {
		last = j.buf[n-1]
	}
	switch last {
	case '{', '[', ':', '(', 0:
	default:
		j.buf = append(j.buf, ',')
	}
}

// again writes the members that a serialized message became before, if it is the
// same one as the last time; false if it must be written.
func (j *jsonWriter) again(message []byte) bool {
	if len(message) == 0 || &message[0] != j.saidOf {
		return false
	}
	j.buf = append(j.buf, j.said...)
	return true
}

// remember notes what a message became, from where in the buffer. Only what is
// part of a list stays there long enough.
func (j *jsonWriter) remember(message []byte, from int) {
	if j.part && len(message) > 0 {
		j.saidOf, j.said = &message[0], append(j.said[:0], j.buf[from:]...)
	}
}

func (j *jsonWriter) key(name string) {
	j.comma()
	j.buf = append(mesosjson.AppendString(j.buf, name), ':')
}

// object writes an object whose members f writes.
func (j *jsonWriter) object(f func()) {
	j.comma()
	j.buf = append(j.buf, '{')
	f()
	j.buf = append(j.buf, '}')
	j.room()
}

// array writes an array whose elements f writes.
func (j *jsonWriter) array(f func()) {
	j.comma()
	j.buf = append(j.buf, '[')
	f()
	j.buf = append(j.buf, ']')
}

func (j *jsonWriter) text(s string) {
	j.comma()
	j.buf = mesosjson.AppendString(j.buf, s)
}

func (j *jsonWriter) member(name, s string) {
	j.key(name)
	j.buf = mesosjson.AppendString(j.buf, s)
}

func (j *jsonWriter) float(name string, x float64) {
	j.key(name)
	j.buf = mesosjson.AppendFloat(j.buf, x)
}

// milli prints thousandths as float prints what they are.
func (j *jsonWriter) milli(name string, m resources.Milli) {
	j.key(name)
	if m < 0 || m >= 1e15 { // where doubles are no more exact
		j.buf = mesosjson.AppendFloat(j.buf, m.Float())
		return
	}
	j.buf = append(strconv.AppendInt(j.buf, int64(m/1000), 10), '.')
	rest := int(m % 1000)
	j.buf = append(j.buf, '0'+byte(rest/100))
	if rest%100 > 0 {
		j.buf = append(j.buf, '0'+byte(rest/10%10))
	}
	if rest%10 > 0 {
		j.buf = append(j.buf, '0'+byte(rest%10))
	}
}

func (j *jsonWriter) time(name string, t time.Time) { j.float(name, convert.Seconds(t)) }

func (j *jsonWriter) int(name string, n int64) {
	j.key(name)
	j.buf = strconv.AppendInt(j.buf, n, 10)
}

func (j *jsonWriter) bool(name string, v bool) {
	j.key(name)
	j.buf = strconv.AppendBool(j.buf, v)
}

func (j *jsonWriter) message(name string, m proto.Message) {
	j.key(name)
	j.buf = mesosjson.Append(j.buf, m)
}

// wire prints a serialized message.
func (j *jsonWriter) wire(name string, desc protoreflect.MessageDescriptor, b []byte) {
	j.key(name)
	j.buf = appendJSON(j.buf, desc, b)
}

// serialized prints a large message: serializing it first is quicker.
func (j *jsonWriter) serialized(name string, m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		b = nil
	}
	j.wire(name, m.ProtoReflect().Descriptor(), b)
}

// appendJSON prints a serialized message, a broken one as an empty one.
func appendJSON(dst []byte, desc protoreflect.MessageDescriptor, b []byte) []byte {
	dst, ok := mesosjson.AppendWire(dst, desc, b)
	if !ok {
		return append(dst, "{}"...)
	}
	return dst
}

// labels prints serialized Labels as the list that they are.
func (j *jsonWriter) labels(b []byte) {
	j.key("labels")
	start := len(j.buf)
	var ok bool
	if j.buf, ok = mesosjson.AppendWire(j.buf, labelsDesc, b); !ok || string(j.buf[start:]) == "{}" {
		j.buf = append(j.buf[:start], "[]"...)
		return
	}
	const prefix = len(`{"labels":`)
	n := copy(j.buf[start:], j.buf[start+prefix:len(j.buf)-1])
	j.buf = j.buf[:start+n]
}

// each prints the elements of a long list on all processors, in order.
func (j *jsonWriter) each(n int, element func(j *jsonWriter, i int)) {
	if n < 2*together || runtime.GOMAXPROCS(0) < 2 {
		for i := range n {
			element(j, i)
		}
		return
	}
	inOrder(n, func(part *jsonWriter, from, to int) {
		part.part, part.buf, part.last = true, part.buf[:0], '['
		for i := from; i < to; i++ {
			element(part, i)
		}
	}, func(part *jsonWriter) {
		if len(part.buf) > 0 {
			j.comma()
			j.pass(part.buf)
		}
	})
}

// pass writes what is ready: much of it goes off without a copy.
func (j *jsonWriter) pass(ready []byte) {
	if j.part || len(ready) < jsonPiece {
		j.buf = append(j.buf, ready...)
		j.room()
		return
	}
	j.flush()
	j.write(ready)
}

// element appends a message to an array.
func (j *jsonWriter) element(m proto.Message) {
	j.comma()
	j.buf = mesosjson.Append(j.buf, m)
}

func (j *jsonWriter) texts(name string, list []string) {
	j.key(name)
	j.array(func() {
		for _, s := range list {
			j.text(s)
		}
	})
}

// room sends off what has come together.
func (j *jsonWriter) room() {
	if len(j.buf) >= jsonPiece && !j.part {
		j.flush()
	}
}

// flush sends off what there is.
func (j *jsonWriter) flush() {
	if j.out == nil {
		j.open()
	}
	j.write(j.buf)
	j.buf = j.buf[:0]
}

func (j *jsonWriter) open() {
	j.out = j.http
	if !j.gzip {
		return
	}
	h := j.http.Header()
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	j.zip, _ = gzip.NewWriterLevel(j.http, gzip.BestSpeed) // the level exists
	j.out = j.zip
}

func (j *jsonWriter) write(b []byte) {
	if j.failed == nil {
		_, j.failed = j.out.Write(b)
	}
	if n := len(b); n > 0 {
		j.last = b[n-1]
	}
}

// close sends the rest.
func (j *jsonWriter) close() {
	if j.out == nil && (len(j.buf) < gzipFrom || !j.gzip) {
		j.http.Header().Set("Content-Length", strconv.Itoa(len(j.buf)))
		j.gzip = false
	}
	j.flush()
	if j.zip != nil && j.failed == nil {
		j.failed = j.zip.Close()
	}
}
