package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/consul/lead"
	marathonapi "github.com/mesopool/mesopool/marathon/api"
	"github.com/mesopool/mesopool/store"
)

func electFlags(f *pflag.FlagSet) {
	f.String("elect", "", "consul:KEY, to run several schedulers of which one leads: a lock below KEY in the key-value store of --consul, where the state is kept too; default: there is one")
	f.Duration("elect-ttl", 0, "how long Consul waits for a leader that says nothing, and again before another may lead; default: 10s")
}

// electFrom reads where a leader is elected; nil: nowhere.
func electFrom(v *viper.Viper, log *slog.Logger) (*lead.Config, error) {
	text := v.GetString("elect")
	if text == "" {
		return nil, nil
	}
	kind, key, _ := strings.Cut(text, ":")
	if kind != "consul" {
		return nil, exit(exitUsage, "--elect is %q; it must be consul:KEY, as in consul:mesopool/marathon", text)
	}
	if v.GetString("consul") == "" {
		return nil, exit(exitUsage, "--elect %s needs the address of a Consul agent; give it with --consul", text)
	}
	cfg := &lead.Config{Address: v.GetString("consul"), Key: key, TTL: v.GetDuration("elect-ttl"), Name: "mesopool marathon on " + hostname(v), Log: log}
	if _, err := lead.New(*cfg); err != nil {
		return nil, exit(exitUsage, "--elect: %w", err)
	}
	return cfg, nil
}

// contend answers for a scheduler that follows, and leads whenever it is elected,
// until ctx ends.
func (r *marathonRole) contend(ctx context.Context) error {
	r.elect.Self = r.at.advertise.String()
	e, err := lead.New(*r.elect)
	if err != nil {
		return err
	}
	site := marathonapi.NewStandby(r.api(), e.Leader, r.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, r.at.listener, site) })
	g.Go(func() error {
		return e.Run(ctx, func(ctx context.Context, t *lead.Term) error {
			state, err := t.Store(ctx)
			if err != nil {
				return err
			}
			if err := adopt(ctx, state, r.workDir, r.log); err != nil {
				return err
			}
			return r.lead(ctx, marathonTerm{store: state, check: t.Check, abdicate: t.Resign, serve: func(ctx context.Context, api http.Handler) error {
				site.Lead(ctx, api)
				return nil
			}})
		})
	})
	return g.Wait()
}

// guard keeps one that leads no longer from subscribing: it would put the new
// leader out.
func (t *marathonTerm) guard(find func(context.Context) (string, error)) func(context.Context) (string, error) {
	if t.check == nil {
		return find
	}
	return func(ctx context.Context) (string, error) {
		if err := t.check(); err != nil {
			return "", err
		}
		return find(ctx)
	}
}

// adopt moves the state of a scheduler that was alone into an empty one. The file
// is put aside, so that it is never taken for the state again.
func adopt(ctx context.Context, to store.Store, dir string, log *slog.Logger) error {
	path := filepath.Join(dir, "marathon.db")
	if _, err := os.Stat(path); dir == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if there, err := to.List(ctx, ""); err != nil || len(there) > 0 {
		return err
	}
	from, err := store.OpenBolt(path)
	if err != nil {
		return err
	}
	entries, err := from.List(ctx, "")
	if err := errors.Join(err, from.Close()); err != nil {
		return fmt.Errorf("read the state in %s: %w", path, err)
	}
	ops := make([]store.Op, len(entries))
	for i, e := range entries {
		ops[i] = store.Op{Key: e.Key, Value: e.Value}
	}
	if err := to.Commit(ctx, ops); err != nil {
		return fmt.Errorf("move the state of %s: %w", path, err)
	}
	log.Info("the state is in Consul from now on", "before", path, "records", len(ops))
	return os.Rename(path, path+".moved")
}
