package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// failuresInARow is how many services Consul may answer with an error of its
// own before a round ends: one bad service must not hold up the others, and a
// Consul that is not well is not asked ten thousand times.
const failuresInARow = 3

// errAiling marks the error of a round in which Consul answered, but could not
// carry everything out.
var errAiling = errors.New("not everything was taken")

// round makes Consul agree with what is wanted now. Its error means: try again
// later.
func (r *Registrar) round(ctx context.Context) error {
	err := r.compareIfDue(ctx)
	if err == nil {
		err = r.push(ctx)
	}
	if ctx.Err() == nil {
		r.settle(err)
	}
	return err
}

// settle notes whether Consul works, and says so when that changes.
func (r *Registrar) settle(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.ailing
	r.ailing = err != nil
	r.down = r.ailing && !errors.Is(err, errAiling)
	if r.down {
		r.due = true // who knows what Consul holds when it is back
		r.answerAll(fmt.Errorf("%w: %w", ErrUnreachable, err))
	}
	switch {
	case r.ailing && !was:
		r.log.Warn("Consul does not take registrations; the cluster works on and catches up when it does", "error", err)
	case was && !r.ailing:
		r.log.Info("Consul takes registrations again and is up to date", "services", len(r.want))
	}
}

// compareIfDue finds out what differs: at the start, when Consul is back, when
// the owner has told everything, and from time to time.
func (r *Registrar) compareIfDue(ctx context.Context) error {
	if !r.takeDue(time.Now()) {
		return nil
	}
	held, err := r.list(ctx)
	if err != nil {
		return fmt.Errorf("list the services: %w", err)
	}
	r.compare(held)
	return nil
}

func (r *Registrar) takeDue(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.due && now.Sub(r.compared) < r.cfg.Reconcile {
		return false
	}
	r.due, r.compared = false, now
	return true
}

// compare notes what to do so that what Consul holds becomes what is wanted.
func (r *Registrar) compare(held map[string]*api.AgentService) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.known)
	for sid, s := range held {
		w, ok := r.want[sid]
		switch {
		case ok && same(s, w.reg):
			r.known[sid] = w.digest
		case !ok:
			r.known[sid] = ""
			if r.synced {
				r.drop[sid] = struct{}{}
			}
		}
	}
	for sid, w := range r.want {
		if r.known[sid] != w.digest {
			r.put[sid] = struct{}{}
		}
	}
}

// same compares what Consul shows of a service, and the digest for the rest.
func same(s *api.AgentService, reg *api.AgentServiceRegistration) bool {
	return s.Meta[metaDigest] == reg.Meta[metaDigest] && s.Service == reg.Name &&
		s.Address == reg.Address && s.Port == reg.Port && slices.Equal(s.Tags, reg.Tags)
}

// list returns the services in Consul that carry our mark, by ID.
func (r *Registrar) list(ctx context.Context) (map[string]*api.AgentService, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*r.cfg.Timeout)
	defer cancel()
	filter := "Meta." + metaOwner + " == " + strconv.Quote(r.mark)
	held, err := r.client.Agent().ServicesWithFilterOpts(filter, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, err
	}
	for sid, s := range held {
		if s.Meta[metaOwner] != r.mark { // a server that ignores filters
			delete(held, sid)
		}
	}
	return held, nil
}

// push carries out what is noted, deregistrations first, one call at a time.
func (r *Registrar) push(ctx context.Context) error {
	var failed []string
	var problem error
	defer func() { r.again(failed) }()
	inARow := 0
	for ctx.Err() == nil {
		sid, w := r.next()
		if sid == "" {
			return problem
		}
		err := r.call(ctx, sid, w)
		if err == nil || final(err) {
			r.done(sid, w, err)
			inARow = 0
			continue
		}
		failed = append(failed, sid)
		inARow++
		if !answered(err) || inARow >= failuresInARow {
			return err
		}
		problem = fmt.Errorf("%w: %w", errAiling, err)
		r.tell(sid, problem)
	}
	return ctx.Err()
}

// tell answers those who wait for a service that could not be seen to.
func (r *Registrar) tell(sid string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer(sid, err)
}

// next takes the next service to see to; w has no registration if it is to be
// deregistered. The ID is empty when there is none.
func (r *Registrar) next() (sid string, w wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for sid := range r.drop {
		delete(r.drop, sid)
		return sid, wanted{}
	}
	for sid := range r.put {
		delete(r.put, sid)
		w := r.want[sid]
		if r.known[sid] == w.digest || r.refused[sid] == w.digest {
			r.answer(sid, nil)
			continue
		}
		return sid, w
	}
	return "", wanted{}
}

// call registers a service, or deregisters it if w has no registration.
func (r *Registrar) call(ctx context.Context, sid string, w wanted) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	agent := r.client.Agent()
	if w.reg != nil {
		err := agent.ServiceRegisterOpts(w.reg, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
		if err != nil {
			return fmt.Errorf("register %s: %w", w.reg.Name, err)
		}
		return nil
	}
	err := agent.ServiceDeregisterOpts(sid, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil && !absent(err) {
		return fmt.Errorf("deregister %s: %w", sid, err)
	}
	return nil
}

// done notes what a call came to. refusal is Consul's final no, or nil.
func (r *Registrar) done(sid string, w wanted, refusal error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case refusal != nil:
		if w.reg != nil {
			r.refused[sid] = w.digest
		}
		r.log.Warn("Consul refuses a service; it is left alone until it changes", "service", sid, "error", refusal)
	case w.reg != nil:
		r.known[sid] = w.digest
	default:
		delete(r.known, sid)
	}
	if _, dropped := r.drop[sid]; !dropped { // else somebody waits for what is still to do
		r.answer(sid, refusal)
	}
}

// again notes services whose calls failed, as they are wanted now.
func (r *Registrar) again(failed []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sid := range failed {
		if _, ok := r.want[sid]; ok {
			r.put[sid] = struct{}{}
		} else {
			r.drop[sid] = struct{}{}
		}
	}
}
