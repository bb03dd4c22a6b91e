package triton

import (
	"errors"
	"testing"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/providertest"
	"github.com/mesopool/mesopool/task"
)

// A data center that tells only a part of what is used is believed that part.
func TestStats(t *testing.T) {
	r := newRig(t, backend.MemoryConfig{})
	s := r.setup(t)
	c, err := s.Provider.Launch(t.Context(), owner, "a", s.Spec(providertest.Program{Run: true}))
	if err != nil {
		t.Fatal(err)
	}
	d := s.Provider.(*Datacenter)
	if got, err := d.Stats(t.Context(), c.ID); err != nil || got.MemUsed == 0 || got.MemLimit != 2*got.MemUsed || got.UserCPU+got.SystemCPU != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := d.Stats(t.Context(), "none-such"); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestStatsOnEngine(t *testing.T) {
	l := newLive(t)
	b, err := backend.NewEngine(t.Context(), backend.EngineConfig{Name: l.run})
	if err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, b)
	if r.acct, err = r.cloud.Accounts().Change("team", func(a *endpoint.Account) error { a.Images = []string{l.image()}; return nil }); err != nil {
		t.Fatal(err)
	}
	d := r.datacenter()
	args := helperArgs(providertest.Program{Run: true})
	c, err := d.Launch(t.Context(), task.Owner{Cluster: l.run, Agent: "dc-1"}, "stats", task.Spec{Image: l.image(), Command: task.Command{Value: args[0], Args: args[1:]}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Stats(t.Context(), c.ID); err != nil || got.Time.IsZero() || got.MemUsed == 0 || got.UserCPU+got.SystemCPU == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
