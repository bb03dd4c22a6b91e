package recordio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// DefaultMax is the largest record, in bytes, that a Reader accepts unless
// told otherwise.
const DefaultMax = 64 << 20

// ErrTooLarge is the reason why a Reader refuses a record above its maximum.
var ErrTooLarge = errors.New("record too large")

// maxDigits is the length of the largest 64-bit length.
const maxDigits = 20

// Append appends a framed record to dst.
func Append(dst, record []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(record)), 10)
	dst = append(dst, '\n')
	return append(dst, record...)
}

// Writer writes records, each with its frame in one Write: over HTTP this
// makes a record a chunk, which some clients rely on. It is for one goroutine
// at a time.
type Writer struct {
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer on w, which it never flushes.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteRecord writes one record. The error is w's.
func (w *Writer) WriteRecord(record []byte) error {
	w.buf = Append(w.buf[:0], record)
	_, err := w.w.Write(w.buf)
	return err
}

// Reader reads records. It is for one goroutine at a time.
type Reader struct {
	r   *bufio.Reader
	max int
	buf bytes.Buffer
}

// NewReader returns a Reader on r that refuses records above limit bytes;
// 0 stands for DefaultMax.
func NewReader(r io.Reader, limit int) *Reader {
	if limit == 0 {
		limit = DefaultMax
	}
	return &Reader{r: bufio.NewReader(r), max: limit}
}

// Next returns the next record, valid until the call after. At the end of the
// stream the error is io.EOF, inside a record io.ErrUnexpectedEOF; a length
// above the maximum gives ErrTooLarge. After an error the Reader is of no more
// use. Memory grows with what arrives, not with what the length claims.
func (r *Reader) Next() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	r.buf.Reset()
	if _, err := io.CopyN(&r.buf, r.r, int64(n)); err != nil {
		return nil, fmt.Errorf("recordio: record of %d bytes: %w", n, unexpected(err))
	}
	return r.buf.Bytes(), nil
}

// length reads a decimal number and the newline after it.
func (r *Reader) length() (int, error) {
	var digits [maxDigits + 1]byte
	for i := range digits {
		c, err := r.r.ReadByte()
		switch {
		case err == io.EOF && i == 0:
			return 0, io.EOF
		case err != nil:
			return 0, fmt.Errorf("recordio: length: %w", unexpected(err))
		case c == '\n':
			return r.parse(digits[:i])
		case c < '0' || c > '9':
			return 0, fmt.Errorf("recordio: %q is not a length", append(digits[:i], c))
		}
		digits[i] = c
	}
	return 0, fmt.Errorf("recordio: length %s…: %w", digits[:], ErrTooLarge)
}

func (r *Reader) parse(digits []byte) (int, error) {
	if len(digits) == 0 {
		return 0, errors.New("recordio: a newline where a length should be")
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || n > uint64(r.max) {
		return 0, fmt.Errorf("recordio: length %s above %d: %w", digits, r.max, ErrTooLarge)
	}
	return int(n), nil
}

// unexpected turns an end of the stream into one in the wrong place.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
