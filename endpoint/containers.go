package endpoint

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// nameForm is that of containers' names (sdc-vmapi: lib/common/validation.js).
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// MaxName is the longest name.
const MaxName = 189

// MaxListedName is the longest name that container name service lists
// (triton-cns: lib/vm-to-zones.js).
const MaxListedName = 62

// Containers returns the account's, the newest first. keep may be nil.
func (c *Cloud) Containers(a *Account, keep func(*Container) bool) []*Container {
	return c.tenantOf(a.Key()).list(keep)
}

// Container finds one by ID, name or beginning of an ID, or is a 404.
func (c *Cloud) Container(a *Account, name string) (*Container, error) {
	return c.tenantOf(a.Key()).get(name)
}

// Usage is what the account has.
func (c *Cloud) Usage(a *Account) Usage {
	t := c.tenantOf(a.Key())
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used
}

// Instance finds a container by its instance's UUID; deleted says that there
// was one lately.
func (c *Cloud) Instance(a *Account, uuid string) (got *Container, deleted bool) {
	t := c.tenantOf(a.Key())
	digits := strings.ReplaceAll(strings.ToLower(uuid), "-", "")
	if len(digits) != 32 || len(uuid) != 36 {
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.shorts[digits[:shortID]] {
		if strings.HasPrefix(r.spec.ID, digits) {
			return t.view(r), false
		}
	}
	return nil, slices.ContainsFunc(t.gone, func(id string) bool { return strings.HasPrefix(id, digits) })
}

// Later does something that nobody waits for.
func (c *Cloud) Later(what string, do func(context.Context) error) {
	c.work.begin(func() {
		if err := do(context.Background()); err != nil {
			c.cfg.Log.Warn("an order failed that nobody waits for", "order", what, "error", err)
		}
	})
}

// provision makes a container: the name is reserved and the container visible
// while the backend works. When that fails nothing is left, as on Triton.
func (c *Cloud) provision(ctx context.Context, a *Account, s *backend.Spec) error {
	if a.Unapproved {
		return &Error{http.StatusForbidden, "NotAuthorized", a.Login + " does not have permission to pull or provision"}
	}
	t := c.tenantOf(a.Key())
	r := &record{spec: s, name: s.Name, reserved: true}
	if err := t.add(r, a.Limits); err != nil {
		return err
	}
	c.own(s.ID, t)
	return c.detach(ctx, func(ctx context.Context) error {
		err := c.backend.Create(ctx, s)
		t.mu.Lock()
		defer t.mu.Unlock()
		r.reserved = false
		if err != nil {
			c.disown(s.ID)
			t.drop(r)
			return failure("creating", err)
		}
		r.state.Phase = backend.Stopped
		t.touch(r)
		return nil
	})
}

// act does something with a container that is not being provisioned.
func (c *Cloud) act(ctx context.Context, a *Account, name, what string, do func(ctx context.Context, id string) error) error {
	got, err := c.Container(a, name)
	if err != nil {
		return err
	}
	if got.Phase == backend.Provisioning {
		return conflict("ValidationFailed", "problem %s container: VM %s is not allocated to a server yet", what, got.UUID())
	}
	return c.detach(ctx, func(ctx context.Context) error {
		err := do(ctx, got.ID)
		if errors.Is(err, backend.ErrNotFound) {
			return noContainer(name)
		}
		if err != nil {
			return failure(what, err)
		}
		return nil
	})
}

// Start starts a container; one that runs is no error.
func (c *Cloud) Start(ctx context.Context, a *Account, name string) error {
	return c.act(ctx, a, name, "starting", c.backend.Start)
}

// Stop stops a container, gently for grace; one that does not run is no error.
func (c *Cloud) Stop(ctx context.Context, a *Account, name string, grace time.Duration) error {
	return c.act(ctx, a, name, "stopping", func(ctx context.Context, id string) error { return c.backend.Stop(ctx, id, grace) })
}

// Kill sends a signal; one that does not run is no error.
func (c *Cloud) Kill(ctx context.Context, a *Account, name string, signal int) error {
	return c.act(ctx, a, name, "killing", func(ctx context.Context, id string) error { return c.backend.Kill(ctx, id, signal) })
}

// Restart stops and starts a container.
func (c *Cloud) Restart(ctx context.Context, a *Account, name string, grace time.Duration) error {
	return c.act(ctx, a, name, "restarting", func(ctx context.Context, id string) error {
		if err := c.backend.Stop(ctx, id, grace); err != nil {
			return err
		}
		return c.backend.Start(ctx, id)
	})
}

// Remove deletes a container. One that runs is refused without force.
func (c *Cloud) Remove(ctx context.Context, a *Account, name string, force bool) error {
	t := c.tenantOf(a.Key())
	r, err := t.reserve(name, force)
	if err != nil {
		return err
	}
	return c.detach(ctx, func(ctx context.Context) error {
		err := c.backend.Remove(ctx, r.spec.ID)
		t.mu.Lock()
		defer t.mu.Unlock()
		r.reserved = false
		if err != nil {
			return failure("deleting", err)
		}
		c.disown(r.spec.ID)
		t.drop(r)
		return nil
	})
}

// reserve marks a container that may be removed.
func (t *tenant) reserve(name string, force bool) (*record, error) {
	r, err := t.find(name)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case r.state.Gone:
		return nil, noContainer(name)
	case r.state.Phase == backend.Provisioning:
		return nil, internal(`Container state "provisioning" not allowed for this command`)
	case r.state.Phase == backend.Running && !force:
		return nil, internal("Conflict, You cannot remove a running container. Stop the container before attempting removal or use -f")
	}
	for _, d := range r.dependents {
		for _, s := range d.spec.VolumesFrom {
			if s.ID == r.spec.ID {
				return nil, internal("Unable to delete container: its volumes are in use by %s", d.name)
			}
		}
	}
	r.reserved = true
	return r, nil
}

// renameForm is stricter than nameForm (sdc-docker: lib/backends/sdc/utils.js).
var renameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Rename gives a container another name.
func (c *Cloud) Rename(ctx context.Context, a *Account, name, to string) error {
	if !renameForm.MatchString(to) || len(to) > MaxName {
		return conflict("ValidationFailed", `problem renaming container: Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`, to)
	}
	t := c.tenantOf(a.Key())
	r, err := t.find(name)
	if err != nil {
		return err
	}
	if err := t.claim(r, to); err != nil {
		return err
	}
	return c.detach(ctx, func(ctx context.Context) error {
		err := c.backend.Rename(ctx, r.spec.ID, to)
		t.mu.Lock()
		defer t.mu.Unlock()
		r.renaming = false
		if err != nil || r.state.Gone {
			delete(t.names, to)
			return failure("renaming", cmp.Or(err, error(noContainer(name))))
		}
		delete(t.names, r.name)
		r.name = to
		t.touch(r)
		return nil
	})
}

// claim reserves a name: both names are taken while the backend works.
func (t *tenant) claim(r *record, to string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.names[to] != nil:
		return conflict("ValidationFailed", `problem renaming container: Invalid VM parameters: "alias" (Duplicate) Already exists for this owner_uuid`)
	case r.reserved || r.renaming || r.state.Gone:
		return conflict("ValidationFailed", "problem renaming container: it is being made, renamed or removed")
	}
	r.renaming = true
	t.names[to] = r
	return nil
}

// Wait waits until a container does not run and tells how it ended; ErrCut
// says that limit passed (0: none).
func (c *Cloud) Wait(ctx context.Context, a *Account, name string, limit time.Duration) (*Container, error) {
	t := c.tenantOf(a.Key())
	r, err := t.find(name)
	if err != nil {
		return nil, err
	}
	var cut <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		cut = timer.C
	}
	for {
		got, changed := t.watch(r.spec.ID)
		if got == nil {
			return nil, noContainer(name)
		}
		if got.Phase == backend.Stopped {
			return got, nil
		}
		select {
		case <-changed:
		case <-cut:
			return nil, ErrCut
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
