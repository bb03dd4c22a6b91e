package timers

import (
	"testing"
	"time"
)

func TestOrder(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var h Heap[string]
	h.Add(t0.Add(2*time.Second), "late")
	h.Add(t0.Add(time.Second), "first")
	h.Add(t0.Add(time.Second), "second")
	if at, v := h.Next(); !at.Equal(t0.Add(time.Second)) || v != "first" {
		t.Errorf("Next = %v %q", at, v)
	}
	var got []string
	for _, v, ok := h.Pop(t0.Add(time.Second)); ok; _, v, ok = h.Pop(t0.Add(time.Second)) {
		got = append(got, v)
	}
	if len(got) != 2 || got[0] != "first" || got[1] != "second" || h.Len() != 1 {
		t.Errorf("popped %v, %d left", got, h.Len())
	}
}
