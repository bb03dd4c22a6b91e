package recordio_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/mesopool/mesopool/mesos/recordio"
)

// read returns all records and the error that ended them.
func read(r io.Reader, limit int) ([]string, error) {
	var records []string
	rr := recordio.NewReader(r, limit)
	for {
		rec, err := rr.Next()
		if err != nil {
			return records, err
		}
		records = append(records, string(rec))
	}
}

func TestReader(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		max      int
		want     []string
		err      error
		text     string
	}{
		{"nothing", "", 0, nil, io.EOF, ""},
		{"two", "5\nhello3\nyou", 0, []string{"hello", "you"}, io.EOF, ""},
		{"empty record", "0\n2\nok", 0, []string{"", "ok"}, io.EOF, ""},
		{"leading zeros", "002\nok", 0, []string{"ok"}, io.EOF, ""},
		{"newlines inside", "3\n\n\n\n", 0, []string{"\n\n\n"}, io.EOF, ""},
		{"cut in the record", "5\nhel", 0, nil, io.ErrUnexpectedEOF, "5 bytes"},
		{"cut before the record", "5\n", 0, nil, io.ErrUnexpectedEOF, ""},
		{"cut in the length", "5", 0, nil, io.ErrUnexpectedEOF, ""},
		{"at the limit", "4\nfour", 4, []string{"four"}, io.EOF, ""},
		{"above the limit", "5\nfives", 4, nil, recordio.ErrTooLarge, "5 above 4"},
		{"above 64 bits", "99999999999999999999\n", 0, nil, recordio.ErrTooLarge, ""},
		{"endless length", strings.Repeat("1", 100), 0, nil, recordio.ErrTooLarge, ""},
		{"no length", "\nx", 0, nil, nil, "newline"},
		{"JSON", `{"a":1}`, 0, nil, nil, `"{"`},
		{"negative", "-1\n", 0, nil, nil, `"-"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := read(iotest.OneByteReader(strings.NewReader(tt.in)), tt.max)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v does not say %q", err, tt.text)
			}
		})
	}
}

// writes counts calls of Write.
type writes struct {
	bytes.Buffer
	n int
}

func (w *writes) Write(p []byte) (int, error) { w.n++; return w.Buffer.Write(p) }

func TestWriter(t *testing.T) {
	var out writes
	w := recordio.NewWriter(&out)
	for _, s := range []string{"hello", "", "you"} {
		if err := w.WriteRecord([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := out.String(), "5\nhello0\n3\nyou"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
	if out.n != 3 {
		t.Errorf("%d writes for 3 records", out.n)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("5\nhello3\nyou"))
	f.Add([]byte("0\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		records, err := read(bytes.NewReader(in), 1<<16)
		if err != io.EOF {
			return
		}
		var again []byte
		for _, r := range records {
			again = recordio.Append(again, []byte(r))
		}
		second, err := read(bytes.NewReader(again), 1<<16)
		if err != io.EOF {
			t.Fatalf("own frames: %v", err)
		}
		if diff := cmp.Diff(records, second); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	stream := bytes.Repeat(recordio.Append(nil, make([]byte, 500)), 1000)
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		if _, err := read(bytes.NewReader(stream), 0); err != io.EOF {
			b.Fatal(err)
		}
	}
}
