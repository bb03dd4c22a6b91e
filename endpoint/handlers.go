package endpoint

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

func (c *call) containerCreate() error {
	body, err := c.body()
	if err != nil {
		return err
	}
	id, err := c.s.cloud.Create(c.r.Context(), c.acct, c.r.URL.Query().Get("name"), body)
	if err != nil {
		return err
	}
	return c.give(map[string]any{"Id": id, "Warnings": []string{}}) // 200, not 201
}

// order runs an order and answers 204.
func (c *call) order(do func(ctx context.Context) error) error {
	if err := c.soon(do); err != nil {
		return err
	}
	return c.done()
}

func (c *call) containerStart() error {
	return c.order(func(ctx context.Context) error { return c.s.cloud.Start(ctx, c.acct, c.args[0]) })
}

// defaultGrace is that of stop, also for t=0 (sdc-docker: lib/endpoints/containers.js).
const defaultGrace = 10 * time.Second

func (c *call) containerStop() error {
	grace := defaultGrace
	if t := c.r.URL.Query().Get("t"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return validation("%q must be a number", "t")
		}
		if n > 0 {
			grace = time.Duration(min(n, 3600)) * time.Second
		}
	}
	return c.order(func(ctx context.Context) error { return c.s.cloud.Stop(ctx, c.acct, c.args[0], grace) })
}

// containerRestart ignores t: the route never reads its query.
func (c *call) containerRestart() error {
	if err := c.strictQuery("t"); err != nil {
		return err
	}
	return c.order(func(ctx context.Context) error { return c.s.cloud.Restart(ctx, c.acct, c.args[0], defaultGrace) })
}

// strictQuery refuses, in strict mode, what a route never reads.
func (c *call) strictQuery(name string) error {
	if v := c.r.URL.Query().Get(name); c.s.cloud.cfg.Strict && v != "" {
		return &Error{422, "Strict", "Triton ignores " + name + "=" + v + " here; leave it out"}
	}
	return nil
}

const sigkill = 9

// containerKill always kills: the route never reads its query (sdc-docker:
// lib/endpoints/containers.js), so that no signal arrives.
func (c *call) containerKill() error {
	signal := sigkill
	if asked := c.r.URL.Query().Get("signal"); c.s.opt.HonourKillSignal && asked != "" {
		n, ok := signalNumber(asked)
		if !ok {
			return validation("Invalid signal: %s", asked)
		}
		signal = n
	} else if n, _ := signalNumber(asked); n != sigkill {
		if err := c.strictQuery("signal"); err != nil {
			return err
		}
	}
	return c.order(func(ctx context.Context) error { return c.s.cloud.Kill(ctx, c.acct, c.args[0], signal) })
}

var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
	"PIPE": 13, "ALRM": 14, "TERM": 15, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "WINCH": 28,
}

func signalNumber(text string) (int, bool) {
	if n, err := strconv.Atoi(text); err == nil {
		return n, n > 0 && n < 65
	}
	n, ok := signals[strings.TrimPrefix(strings.ToUpper(text), "SIG")]
	return n, ok
}

// containerWait closes the connection without an answer when its time is over
// (sdc-docker issue 113). No known exit code is {}.
func (c *call) containerWait() error {
	got, err := c.s.cloud.Wait(c.r.Context(), c.acct, c.args[0], max(c.s.opt.IdleCut, 0))
	if err != nil {
		return err
	}
	if !got.HasExit {
		return c.give(struct{}{})
	}
	return c.give(map[string]int{"StatusCode": got.ExitCode})
}

func (c *call) containerRename() error {
	to := c.r.URL.Query().Get("name")
	return c.order(func(ctx context.Context) error {
		return c.s.cloud.Rename(ctx, c.acct, c.args[0], strings.TrimPrefix(to, "/"))
	})
}

func (c *call) containerDelete() error {
	q := c.r.URL.Query()
	if truth(q.Get("link")) {
		return internal("removing links is not supported")
	}
	return c.order(func(ctx context.Context) error {
		return c.s.cloud.Remove(ctx, c.acct, c.args[0], truth(q.Get("force")))
	})
}

// running finds a container that runs.
func (c *call) running(name string, refuse func(*Container) error) (*Container, error) {
	got, err := c.s.cloud.Container(c.acct, name)
	if err == nil && got.Phase != backend.Running {
		err = refuse(got)
	}
	return got, err
}

func (c *call) containerTop() error {
	got, err := c.running(c.args[0], func(got *Container) error {
		state := "stopped"
		if got.Phase == backend.Provisioning {
			state = "provisioning"
		}
		return internal("Container state %q not allowed for this command", state)
	})
	if err != nil {
		return err
	}
	titles, rows, err := c.s.cloud.backend.Top(c.r.Context(), got.ID)
	if err != nil {
		return failure("listing the processes of", err)
	}
	return c.give(map[string]any{"Titles": titles, "Processes": rows})
}

// settled finds a container that is not being made.
func (c *call) settled(name string) (*Container, error) {
	got, err := c.s.cloud.Container(c.acct, name)
	if err == nil && got.Phase == backend.Provisioning {
		err = internal(`Container state "provisioning" not allowed for this command`)
	}
	return got, err
}

// atPath finds the container and the path of an archive call.
func (c *call) atPath() (*Container, string, error) {
	path := c.r.URL.Query().Get("path")
	if path == "" {
		return nil, "", validation(`"path" must be a string`)
	}
	got, err := c.settled(c.args[0])
	return got, path, err
}

func pathFailure(path string, err error) error {
	if errors.Is(err, backend.ErrNotFound) {
		return notFound("Could not find the file %s in container", path)
	}
	return failure("copying files of", err)
}
