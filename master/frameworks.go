package master

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/master/drf"
	"github.com/mesopool/mesopool/task"
)

func newFramework(info FrameworkInfo, now time.Time) *framework {
	return &framework{
		FrameworkInfo: info, since: now, suppressed: map[string]bool{}, tasks: map[string]*Task{}, unreachable: map[string]*Task{},
		offers: map[string]*Offer{}, filters: map[filterKey]*filter{}, operations: map[string]*Operation{},
	}
}

func (c *Core) sortedFrameworks() []*framework {
	out := make([]*framework, 0, len(c.frameworks))
	for _, f := range c.frameworks {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *framework) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// subscribe connects a framework. A new stream displaces the old one; an ID
// that this master does not know is taken as one from before its start.
func (c *Core) subscribe(now time.Time, cmd Subscribe, fx []Effect) ([]Effect, error) {
	info := cmd.Info
	if f := c.ofDriver(cmd.PID); f != nil && info.ID != f.ID {
		if info.ID == "" { // it has not heard of its subscription yet
			fx = c.tell(f, Subscribed{Framework: f.ID}, fx)
		} // else an error would reach the other framework
		return append(fx, CloseStream{Stream: cmd.Stream}), nil
	}
	if info.ID == "" {
		info.ID = fmt.Sprintf("%s-%04d", c.cfg.ID, c.nextFramework)
		c.nextFramework++
	}
	if c.finished[info.ID] {
		return refuseStream(cmd.Stream, "Framework has been removed", fx), nil
	}
	f := c.frameworks[info.ID]
	isNew := f == nil
	if isNew {
		f = newFramework(info, now)
		c.frameworks[info.ID] = f
	}
	if f.subscribed && f.Principal != info.Principal {
		return refuseStream(cmd.Stream, "Changing framework's principal is not allowed.", fx), nil
	}
	if f.subscribed && cmd.PID != "" && f.pid != cmd.PID && !cmd.Force {
		return refuseStream(cmd.Stream, "Framework failed over", fx), nil
	}
	again := f.subscribed && cmd.PID != "" && cmd.Info.ID != "" && !cmd.Force
	fx = c.displace(f, &cmd, fx)
	if f.subscribed {
		f.reconnected = now
		info.User, info.Checkpoint = f.User, f.Checkpoint // immutable (master.cpp, preserveImmutableFields)
	}
	c.enroll(f, info, cmd.Suppressed)
	f.stream, f.pid, f.inactive, f.subscribed, f.left = cmd.Stream, cmd.PID, false, true, time.Time{}
	fx = c.tell(f, Subscribed{Framework: f.ID, Again: again}, fx)
	c.dirty = true
	fx = c.noteFramework(f, isNew, fx)
	return c.refreshAgents(f, fx), nil
}

func refuseStream(stream, message string, fx []Effect) []Effect {
	return append(fx, ToFramework{Stream: stream, Event: Failed{Message: message}}, CloseStream{Stream: stream})
}

// ofDriver finds the framework that a driver is connected for, nil if there is
// none.
func (c *Core) ofDriver(pid string) *framework {
	if pid == "" {
		return nil
	}
	for _, f := range c.sortedFrameworks() {
		if f.pid == pid && f.stream != "" {
			return f
		}
	}
	return nil
}

// displace ends the old stream. A driver that comes again over another
// connection is not told that it has failed over, but that its offers are void:
// it may have answered them without being heard (master.cpp, _subscribe).
func (c *Core) displace(f *framework, cmd *Subscribe, fx []Effect) []Effect {
	if f.stream == "" || f.stream == cmd.Stream {
		return fx
	}
	same := cmd.PID != "" && f.pid == cmd.PID
	if !same {
		fx = c.tell(f, Failed{Message: "Framework failed over"}, fx)
	}
	fx = append(fx, CloseStream{Stream: f.stream})
	f.stream = ""
	if !same || cmd.Force {
		return c.discardOffers(f, fx)
	}
	f.stream = cmd.Stream
	return c.rescindAll(f, fx)
}

// rescindAll takes all offers of a framework back.
func (c *Core) rescindAll(f *framework, fx []Effect) []Effect {
	for _, o := range slices.SortedFunc(maps.Values(f.offers), byOfferID) {
		fx = c.rescind(o, fx)
	}
	return fx
}

func (c *Core) deactivate(cmd Deactivate, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil || f.inactive {
		return fx, err
	}
	f.inactive, c.dirty = true, true
	return c.rescindAll(f, fx), nil
}

// enroll sets the roles of a framework in the sorters.
func (c *Core) enroll(f *framework, info FrameworkInfo, suppressed []string) {
	for _, role := range f.Roles {
		if !slices.Contains(info.Roles, role) {
			c.leaveRole(f, role)
		}
	}
	f.FrameworkInfo = info
	f.suppressed = map[string]bool{}
	for _, role := range suppressed {
		f.suppressed[role] = true
	}
	for _, role := range f.Roles {
		c.joinRole(f, role)
	}
	clear(f.filters)
}

func (c *Core) joinRole(f *framework, role string) {
	s := c.inRole[role]
	if s == nil {
		s = &drf.Sorter{}
		s.SetTotal(c.total)
		c.inRole[role] = s
		c.roles.Add(role)
	}
	s.Add(f.ID, 1)
}

// leaveRole forgets the framework in the role, unless it still uses something.
func (c *Core) leaveRole(f *framework, role string) {
	s := c.inRole[role]
	if s == nil || len(s.Allocated(f.ID)) > 0 {
		return
	}
	s.Remove(f.ID)
	if len(s.Sort()) == 0 {
		delete(c.inRole, role)
		c.roles.Remove(role)
	}
}

func (c *Core) refreshAgents(f *framework, fx []Effect) []Effect {
	for _, a := range c.sortedAgents() {
		fx = toAgent(a, FrameworkUpdated{Framework: &f.FrameworkInfo}, fx)
	}
	return fx
}

func (c *Core) sortedAgents() []*agent {
	out := make([]*agent, 0, len(c.agents))
	for _, a := range c.agents {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *agent) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// disconnect: the stream ended. The framework has its failover timeout to come
// back; without one it is removed at once.
func (c *Core) disconnect(now time.Time, cmd Disconnect, fx []Effect) ([]Effect, error) {
	f := c.frameworks[cmd.Framework]
	if f == nil || f.stream != cmd.Stream {
		return fx, nil
	}
	f.stream, f.left = "", now
	fx = c.discardOffers(f, fx)
	fx = c.noteFramework(f, false, fx)
	c.timers.Add(now.Add(f.FailoverTimeout), timer{timerFailover, f.ID})
	return fx, nil
}

func (c *Core) failoverTimeout(now, at time.Time, id string, fx []Effect) []Effect {
	f := c.frameworks[id]
	if f == nil || f.stream != "" || f.left.IsZero() || f.left.Add(f.FailoverTimeout).After(at) {
		return fx
	}
	return c.removeFramework(now, f, fx)
}

func (c *Core) updateFramework(cmd UpdateFramework, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Info.ID)
	if err != nil {
		return fx, err
	}
	switch {
	case cmd.Info.User != f.User:
		return fx, fmt.Errorf("%w: Updating 'FrameworkInfo.user' is unsupported; attempted to change it from %q to %q", ErrInvalid, f.User, cmd.Info.User)
	case cmd.Info.Checkpoint != f.Checkpoint:
		return fx, fmt.Errorf("%w: Updating 'FrameworkInfo.checkpoint' is unsupported", ErrInvalid)
	case cmd.Info.Principal != f.Principal:
		return fx, fmt.Errorf("%w: Changing framework's principal is not allowed", ErrInvalid)
	}
	c.enroll(f, cmd.Info, cmd.Suppressed)
	c.dirty = true
	fx = c.noteFramework(f, false, fx)
	return c.refreshAgents(f, fx), nil
}

// subscribedFramework returns a framework that may call.
func (c *Core) subscribedFramework(id string) (*framework, error) {
	f := c.frameworks[id]
	if f == nil {
		return nil, ErrUnknownFramework
	}
	if f.stream == "" {
		return nil, ErrNotSubscribed
	}
	return f, nil
}

// Stream returns the stream of a subscribed framework, "" when there is none,
// and whether the framework is known at all.
func (c *Core) Stream(id string) (stream string, known bool) {
	f := c.frameworks[id]
	if f == nil {
		return "", false
	}
	return f.stream, true
}

func (c *Core) teardown(now time.Time, cmd Teardown, fx []Effect) ([]Effect, error) {
	f := c.frameworks[cmd.Framework]
	if f == nil {
		return fx, ErrUnknownFramework
	}
	return c.removeFramework(now, f, fx), nil
}

// removeFramework ends a framework: its tasks are killed everywhere, and it
// becomes history.
func (c *Core) removeFramework(now time.Time, f *framework, fx []Effect) []Effect {
	fx = c.discardOffers(f, fx)
	if f.stream != "" {
		fx = append(fx, CloseStream{Stream: f.stream})
		f.stream = ""
	}
	for _, a := range c.sortedAgents() {
		fx = toAgent(a, ShutdownFramework{Framework: f.ID}, fx)
	}
	for _, t := range sortedTasks(f.tasks) {
		a := c.agents[t.Agent]
		if !t.State.Terminal() {
			fx = c.noteLost(t, killedStatus(now), fx)
			t = c.setState(a, t, task.Killed)
		}
		c.completeTask(a, f, t)
	}
	for _, a := range c.sortedAgents() {
		c.dropExecutors(a, f.ID)
	}
	fx = c.orphanOperations(f, fx)
	c.leaveInverse(f.ID)
	for _, role := range f.Roles {
		c.leaveRole(f, role)
	}
	f.removed = now
	delete(c.frameworks, f.ID)
	c.finished[f.ID] = true
	c.completed = append(c.completed, f)
	fx = c.noteEnd(f, fx)
	if n := len(c.completed) - c.cfg.CompletedKept; n > 0 {
		c.completed = slices.Clone(c.completed[n:])
	}
	c.dirty = true
	for _, a := range c.sortedAgents() { // some may have waited for this
		fx = c.checkDrained(now, a, fx)
	}
	return fx
}

func (c *Core) dropExecutors(a *agent, frameworkID string) {
	for k := range a.executors {
		if k.framework == frameworkID {
			c.dropExecutor(a, k)
		}
	}
}

func (c *Core) revive(cmd Revive, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	for key := range f.filters {
		if len(cmd.Roles) == 0 || slices.Contains(cmd.Roles, key.role) {
			delete(f.filters, key)
		}
	}
	for role := range f.suppressed {
		if len(cmd.Roles) == 0 || slices.Contains(cmd.Roles, role) {
			delete(f.suppressed, role)
		}
	}
	c.dirty = true
	return fx, nil
}

func (c *Core) suppress(cmd Suppress, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	roles := cmd.Roles
	if len(roles) == 0 {
		roles = f.Roles
	}
	for _, role := range roles {
		f.suppressed[role] = true
	}
	return fx, nil
}

// Principal is whose a framework is that is not over yet.
func (c *Core) Principal(framework string) (principal string, known bool) {
	f := c.frameworks[framework]
	if f == nil {
		return "", false
	}
	return f.FrameworkInfo.Principal, true
}
