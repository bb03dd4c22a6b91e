package recent

import (
	"bytes"
	"strconv"
	"testing"
)

func TestSame(t *testing.T) {
	v := New(bytes.Equal)
	first := []byte("0")
	if got := v.Same(first); &got[0] != &first[0] {
		t.Error("a new value was replaced")
	}
	if got := v.Same([]byte("0")); &got[0] != &first[0] {
		t.Error("an equal value was kept twice")
	}
	for i := range size { // the first is forgotten
		v.Same([]byte(strconv.Itoa(1 + i)))
	}
	if got := v.Same([]byte("0")); &got[0] == &first[0] {
		t.Error("more was remembered than is allowed")
	}
	if got := v.Same([]byte(strconv.Itoa(size))); string(got) != strconv.Itoa(size) {
		t.Errorf("got %s", got)
	}
}
