package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// The older scheduler API is what libmesos' driver speaks (sched/sched.cpp), and
// with it Marathon, Spark, Chronos, Jenkins and Aurora: the same calls, as
// messages to the actor master, and messages instead of an event stream. A
// driver is who its address says, and connected as long as a link to it holds.

// maxStreams bounds the streams that are open at once: what a driver says of
// its address is only a claim.
const maxStreams = 10_000

// driverMessage takes a call, or what older drivers send in its place.
func (s *Server) driverMessage(m libprocess.Message) error {
	switch m.Name {
	case "mesos.scheduler.Call":
		in := &messages.Call{}
		if err := proto.Unmarshal(m.Body, in); err != nil {
			return err
		}
		return s.driverCall(&m, evolve(in), in.GetSubscribe().GetForce())
	case "mesos.internal.DeactivateFrameworkMessage":
		return s.driverAborted(m)
	}
	call, force, err := olderCall(m.Name, m.Body)
	if err != nil {
		return err
	}
	return s.driverCall(&m, call, force)
}

// evolve brings a call into the form of the v1 API. The parts are the same.
func evolve(in *messages.Call) *schedulerv1.Call {
	out := &schedulerv1.Call{
		FrameworkId: in.FrameworkId, Type: in.Type, Accept: in.Accept, Decline: in.Decline, AcceptInverseOffers: in.AcceptInverseOffers,
		DeclineInverseOffers: in.DeclineInverseOffers, Revive: in.Revive, Kill: in.Kill, Shutdown: in.Shutdown, Acknowledge: in.Acknowledge,
		AcknowledgeOperationStatus: in.AcknowledgeOperationStatus, Reconcile: in.Reconcile, ReconcileOperations: in.ReconcileOperations,
		Message: in.Message, Request: in.Request, Suppress: in.Suppress, UpdateFramework: in.UpdateFramework,
	}
	if sub := in.Subscribe; sub != nil {
		out.Subscribe = &schedulerv1.Call_Subscribe{
			FrameworkInfo: sub.FrameworkInfo, SuppressedRoles: sub.SuppressedRoles, OfferConstraints: sub.OfferConstraints,
		}
	}
	return out
}

// driverCall checks and carries out a call, in the order of master.cpp, receive.
func (s *Server) driverCall(m *libprocess.Message, call *schedulerv1.Call, force bool) error {
	if m.From.IsZero() {
		return errors.New("its sender has no address to answer to")
	}
	if problem := callProblem(call); problem != "" {
		return errors.New(problem)
	}
	if call.GetType() == schedulerv1.Call_SUBSCRIBE && s.auth.hold(m) {
		return nil
	}
	s.tally.call(call.GetType())
	if call.GetType() == schedulerv1.Call_SUBSCRIBE {
		return s.subscribeDriver(m.From, call.Subscribe, force)
	}
	st, err := s.callingDriver(m.From, call.GetFrameworkId().GetValue())
	if st == nil {
		return err
	}
	if err := s.throttle(st.life, st, call.GetFrameworkId().GetValue()); err != nil { // meanwhile nothing else is read from it
		s.failDriver(m.From, err.Error())
		return nil
	}
	st.tally.call(call.GetType())
	switch call.GetType() {
	case schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS, schedulerv1.Call_RECONCILE_OPERATIONS:
		return fmt.Errorf("'%s' is not supported by the v0 API", call.GetType())
	case schedulerv1.Call_UNKNOWN:
		return errors.New("the call's type is not known")
	case schedulerv1.Call_UPDATE_FRAMEWORK:
		if err := s.updateFramework(st.life, call, st); err != nil {
			s.failDriver(m.From, err.Error())
		}
		return nil
	case schedulerv1.Call_ACCEPT:
		s.refuseFeedback(m.From, call.Accept)
	}
	s.take(st, call)
	return nil
}

// callingDriver returns the stream of a framework that calls through its
// driver. One that does not know that it is disconnected is told so, which ends
// it; there is neither a stream nor an error then.
func (s *Server) callingDriver(from libprocess.UPID, framework string) (*stream, error) {
	st, driver, known := s.registry.driver(framework)
	switch {
	case !known:
		return nil, errors.New("the framework cannot be found")
	case driver != from:
		return nil, errors.New("the call is not from the framework's driver")
	case st == nil:
		s.failDriver(from, "Framework disconnected")
	}
	return st, nil
}

// failDriver tells a driver of an error, whereupon it aborts.
func (s *Server) failDriver(to libprocess.UPID, message string) {
	s.log.Info("a scheduler driver is refused", "driver", to.String(), "because", message)
	s.toDriver(to, &messages.FrameworkErrorMessage{Message: &message})
}

func (s *Server) toDriver(to libprocess.UPID, m proto.Message) {
	if err := s.node.SendProto(masterActor, to, m); err != nil {
		s.log.Error("a message to a scheduler driver could not be encoded", "driver", to.String(), "error", err)
	}
}

const noFeedback = "The 'id' field was set in an offer operation, but operation feedback is not supported for the SchedulerDriver API; " +
	"please use the HTTP scheduler API for this feature"

// refuseFeedback takes operations away whose end the driver could not be told
// (master.cpp, accept). Launches are refused by themselves.
func (s *Server) refuseFeedback(from libprocess.UPID, a *schedulerv1.Call_Accept) {
	all := len(a.Operations)
	a.Operations = slices.DeleteFunc(a.Operations, func(op *mesosv1.Offer_Operation) bool {
		launch := op.GetType() == mesosv1.Offer_Operation_LAUNCH || op.GetType() == mesosv1.Offer_Operation_LAUNCH_GROUP
		return op.Id != nil && !launch
	})
	if len(a.Operations) < all {
		s.failDriver(from, noFeedback)
	}
}

// subscribeDriver is master.cpp, subscribe(UPID). What the core says to it
// comes on the stream.
func (s *Server) subscribeDriver(from libprocess.UPID, sub *schedulerv1.Call_Subscribe, force bool) error {
	if principal, known := s.auth.principal(from); known && sub.FrameworkInfo.Principal == nil {
		sub.FrameworkInfo.Principal = &principal
	}
	info, problem := s.driverProblem(from, sub)
	if problem != "" {
		s.failDriver(from, problem)
		return nil
	}
	st := newStream(&info, false, s.cfg.StreamQueue)
	st.driver = from
	st.life, st.hangUp = context.WithCancel(s.life)
	again, err := s.registry.addDriver(st)
	if err != nil {
		st.hangUp()
		return err
	}
	if again {
		s.node.Relink(from)
	} else {
		s.node.Link(from)
	}
	s.drivers.Go(func() {
		defer st.hangUp()
		s.serveStream(st.life, st, &driverEncoder{s, st})
	})
	s.put(master.Subscribe{Info: info, Stream: st.id, Suppressed: sub.SuppressedRoles, PID: from.String(), Force: force})
	return nil
}

// driverProblem reads what a driver says of its framework, and says what is
// wrong with it.
func (s *Server) driverProblem(from libprocess.UPID, sub *schedulerv1.Call_Subscribe) (info master.FrameworkInfo, problem string) {
	problem = cmp.Or(frameworkProblem(sub.FrameworkInfo, sub.SuppressedRoles), s.identityProblem(from, sub.FrameworkInfo))
	if problem != "" {
		return info, problem
	}
	info, err := frameworkInfo(sub.FrameworkInfo)
	if err != nil {
		return info, err.Error()
	}
	return info, s.registrationProblem(&info)
}

// driverAborted: the driver hears nothing any more, but its framework may come
// back with another one.
func (s *Server) driverAborted(m libprocess.Message) error {
	in := &messages.DeactivateFrameworkMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	st, driver, _ := s.registry.driver(in.FrameworkId.GetValue())
	if st == nil || driver != m.From {
		return errors.New("its sender is not the driver of a subscribed framework")
	}
	s.put(master.Deactivate{Framework: in.FrameworkId.GetValue()})
	return nil
}

// driverExited: the link to a driver broke, so its framework is disconnected. A
// driver that lives cannot find out by itself, and is told (master.cpp, exited).
func (s *Server) driverExited(peer libprocess.UPID) bool {
	streams := s.registry.ofDriver(peer)
	for _, st := range streams {
		st.hangUp()
	}
	if len(streams) > 0 {
		s.failDriver(peer, "Framework disconnected")
	}
	return len(streams) > 0
}

// driver returns the stream of a framework, nil while it is disconnected, and
// its driver, zero for one that speaks HTTP.
func (r *registry) driver(framework string) (st *stream, driver libprocess.UPID, known bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.frameworks[framework]
	if f == nil {
		return nil, driver, false
	}
	return f.stream, f.driver, true
}

// addDriver is addStream, with a bound; again says that the driver has a stream.
func (r *registry) addDriver(st *stream) (again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.streams) >= maxStreams {
		return false, fmt.Errorf("there are %d streams, and no more may be opened", len(r.streams))
	}
	for _, other := range r.streams {
		again = again || other.driver == st.driver
	}
	r.streams[st.id] = st
	return again, nil
}

// ofDriver lists the streams to a driver.
func (r *registry) ofDriver(driver libprocess.UPID) (out []*stream) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, st := range r.streams {
		if st.driver == driver {
			out = append(out, st)
		}
	}
	return out
}
