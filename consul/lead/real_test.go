package lead

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/consul/consultest"
	"github.com/mesopool/mesopool/store"
)

func TestRealConsul(t *testing.T) {
	address := consultest.Start(t)
	on := func(key string) func(t *testing.T) *Term {
		return func(t *testing.T) *Term {
			return term(t, Config{Address: address, Key: key + "/" + strings.ReplaceAll(t.Name(), "/", "-"), Self: "a", TTL: 5 * time.Second})
		}
	}
	t.Run("Store", func(t *testing.T) { contract(t, on("contract")) })
	t.Run("Large", func(t *testing.T) {
		a := on("large")(t)
		s := open(t, a)
		odd := []store.Op{{Key: "a b/c?d%2Fe#f/ü", Value: []byte("odd")}, {Key: "most", Value: big(mostValue, 9)}}
		if err := s.Commit(t.Context(), odd); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), many()); err != nil {
			t.Fatal(err)
		}
		want := wantMany(t)
		for _, op := range odd {
			want[op.Key] = string(op.Value)
		}
		if d := cmp.Diff(want, contents(t, open(t, a))); d != "" {
			t.Errorf("-want +got:\n%.2000s", d)
		}
		if e, err := s.Get(t.Context(), odd[0].Key); err != nil || string(e.Value) != "odd" {
			t.Errorf("Get: %+v %v", e, err)
		}
	})
	t.Run("Fence", func(t *testing.T) {
		a := on("fence")(t)
		s := open(t, a)
		if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.election.client.Session().Destroy(a.session.id, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("w")}}); err == nil {
			t.Error("a deposed leader has written")
		}
		if a.Check() == nil {
			t.Error("and does not know it")
		}
	})
}
