package loop

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOrderAndBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New[int]()
		for i := range 5 {
			b.Put(i)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got []int
		batches := 0
		go func() {
			synctest.Wait()
			b.Put(5)
			synctest.Wait()
			cancel()
		}()
		err := b.Run(ctx, func() time.Time { return time.Time{} }, func(all []int) error {
			got = append(got, all...)
			batches++
			return nil
		})
		if d := cmp.Diff([]int{0, 1, 2, 3, 4, 5}, got); d != "" || err != nil || batches != 2 {
			t.Errorf("%d batches, %v\n%s", batches, err, d)
		}
	})
}

func TestWakesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		stop := errors.New("stop")
		err := New[int]().Run(t.Context(), func() time.Time { return start.Add(time.Hour) }, func(all []int) error {
			if len(all) > 0 || time.Since(start) != time.Hour {
				t.Errorf("%v after %v", all, time.Since(start))
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Errorf("Run: %v", err)
		}
	})
}
