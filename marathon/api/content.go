package api

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"hash/maphash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mesopool/mesopool/marathon"
)

// content is an answer that is made of pieces: head, the pieces with commas
// between them, tail.
type content struct {
	head, tail string
	pieces     []*piece
}

// worthPacking is from how many bytes on an answer is compressed.
const worthPacking = 4 << 10

// write sends the content, or says that the client has it already (RFC 9110,
// 13.1.2). tag names what is shown; compressed, it is the same only in substance.
func (c *content) write(w http.ResponseWriter, r *http.Request, tag string, seed maphash.Seed) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Vary", "Accept-Encoding")
	size := c.size()
	packed := size >= worthPacking && acceptsGzip(r.Header.Values("Accept-Encoding"))
	etag := strconv.Quote(tag)
	if packed {
		etag = "W/" + etag
	}
	h.Set("ETag", etag)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if reads && matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if packed {
		return c.writePacked(w, seed)
	}
	h.Set("Content-Length", strconv.Itoa(size))
	c.each(func(text []byte) error { // until nobody listens any more
		_, err := w.Write(text)
		return err
	})
	return nil
}

// each goes through the content in order.
func (c *content) each(do func(text []byte) error) error {
	err := do([]byte(c.head))
	for n := 0; n < len(c.pieces) && err == nil; n++ {
		if n > 0 {
			err = do([]byte(","))
		}
		if err == nil {
			err = do(c.pieces[n].text)
		}
	}
	if err != nil {
		return err
	}
	return do([]byte(c.tail))
}

func (c *content) size() int {
	n := len(c.head) + len(c.tail) + max(0, len(c.pieces)-1)
	for _, p := range c.pieces {
		n += len(p.text)
	}
	return n
}

// sumOf is the same for the same pieces, in this process.
func (p *pieces) sumOf(list []*piece) string {
	d := &digest{}
	d.SetSeed(p.seed)
	for _, x := range list {
		d.text(x.app.ID, x.app.Version)
		d.number(int(x.sum))
	}
	return strconv.FormatUint(d.Sum64(), 36)
}

// matches compares weakly, as If-None-Match wants it.
func matches(headers []string, etag string) bool {
	etag = strings.TrimPrefix(etag, "W/")
	for _, line := range headers {
		for one := range strings.SplitSeq(line, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3): gzip must be named, and
// not with a quality of 0.
func acceptsGzip(headers []string) bool {
	for _, line := range headers {
		for one := range strings.SplitSeq(line, ",") {
			name, quality, _ := strings.Cut(strings.ToLower(strings.ReplaceAll(one, " ", "")), ";")
			if name != "gzip" && name != "x-gzip" {
				continue
			}
			q, err := strconv.ParseFloat(strings.TrimPrefix(quality, "q="), 64)
			return quality == "" || err == nil && q > 0
		}
	}
	return false
}

// A gzip stream (RFC 1952) of runs of pieces that are compressed once: each is some
// deflate blocks (RFC 1951) that refer to nothing before them and end on a whole
// byte, what is between them is in stored blocks, and only the checksum is made
// anew.
var (
	gzipHead = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}
	lastEnd  = []byte{3, 0} // an empty last block
)

// run is some pieces in a row, compressed together: one alone has little that
// repeats itself. It is kept with its first piece.
type run struct {
	pieces []*piece
	packed []byte
}

// oneIn is how many pieces are in a run, more or less.
const oneIn = 16

// runs cuts the pieces where their IDs say so: an app that comes, goes or changes
// concerns one run.
func runs(seed maphash.Seed, list []*piece) (out [][]*piece) {
	start := 0
	for n, p := range list {
		if n+1 == len(list) || maphash.String(seed, p.app.ID)%oneIn == 0 {
			out = append(out, list[start:n+1])
			start = n + 1
		}
	}
	return out
}

// packed returns the run of pieces, which is compressed if nobody has done so.
func packed(list []*piece) (*run, error) {
	if r := list[0].run.Load(); r != nil && slices.Equal(r.pieces, list) {
		return r, nil
	}
	var out bytes.Buffer
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&out)
	c := content{pieces: list}
	if err := c.each(func(text []byte) error { _, err := w.Write(text); return err }); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	r := &run{slices.Clone(list), bytes.Clone(out.Bytes())}
	list[0].run.Store(r)
	return r, nil
}

var packers = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // a level that does not exist
	}
	return w
}}

// stored is a block of text as it is, of at most 65 535 bytes.
func stored(text string) []byte {
	out := binary.LittleEndian.AppendUint16([]byte{0}, uint16(len(text)))
	out = binary.LittleEndian.AppendUint16(out, ^uint16(len(text)))
	return append(out, text...)
}

// blocks is the whole gzip stream.
func (c *content) blocks(seed maphash.Seed) ([][]byte, error) {
	all := runs(seed, c.pieces)
	done := make([]*run, len(all))
	err := each(len(all), func(i int) (err error) { done[i], err = packed(all[i]); return err })
	if err != nil {
		return nil, err
	}
	out := [][]byte{gzipHead, stored(c.head)}
	for n, r := range done {
		if n > 0 {
			out = append(out, stored(","))
		}
		out = append(out, r.packed)
	}
	crc, length := uint32(0), 0
	err = c.each(func(text []byte) error {
		crc, length = crc32.Update(crc, crc32.IEEETable, text), length+len(text)
		return nil
	})
	end := binary.LittleEndian.AppendUint32(bytes.Clone(lastEnd), crc)
	return append(out, stored(c.tail), binary.LittleEndian.AppendUint32(end, uint32(length))), err
}

func (c *content) writePacked(w http.ResponseWriter, seed maphash.Seed) error {
	blocks, err := c.blocks(seed)
	if err != nil {
		return err
	}
	size := 0
	for _, b := range blocks {
		size += len(b)
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	for _, b := range blocks {
		if _, err := w.Write(b); err != nil {
			break // nobody listens any more
		}
	}
	return nil
}

// whole answers with something that is encoded anew each time.
func (a *API) whole(w http.ResponseWriter, r *http.Request, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	c := content{pieces: []*piece{{text: text}}}
	return c.write(w, r, strconv.FormatUint(maphash.Bytes(a.pieces.seed, text), 36), a.pieces.seed)
}

// single is an answer about one app.
func (a *API) single(head string, app *marathon.App, text []byte) (*content, string) {
	sum := strconv.FormatUint(maphash.Bytes(a.pieces.seed, text), 36)
	return &content{head: head, tail: "}", pieces: []*piece{{app: app, text: text}}}, app.Version + "~" + sum
}
