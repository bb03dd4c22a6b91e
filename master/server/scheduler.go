package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"
	streamHeader = "Mesos-Stream-Id"
	maxBody      = 256 << 20
)

// failure is an answer that is not the wished one.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

func failf(status int, format string, args ...any) error {
	return &failure{status, fmt.Sprintf(format, args...)}
}

func answerError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var f *failure
	if errors.As(err, &f) {
		status = f.status
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(err.Error())))
	w.WriteHeader(status)
	io.WriteString(w, err.Error())
}

// readCall reads the call in a request's body; what names the API in messages.
func readCall(w http.ResponseWriter, r *http.Request, call proto.Message) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return failf(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method)
	}
	kind := r.Header.Get("Content-Type")
	switch kind {
	case "":
		return failf(http.StatusBadRequest, "Expecting 'Content-Type' to be present")
	case typeJSON, typeProtobuf:
	default:
		return failf(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s or %s", typeJSON, typeProtobuf)
	}
	body, err := readAll(w, r)
	if err != nil {
		return failf(http.StatusBadRequest, "Failed to read the body: %v", err)
	}
	if kind == typeJSON {
		if err := mesosjson.Unmarshal(body, call); err != nil {
			return failf(http.StatusBadRequest, "Failed to parse body into Call protobuf: %v", err)
		}
		return nil
	}
	if err := proto.Unmarshal(body, call); err != nil {
		return failf(http.StatusBadRequest, "Failed to parse body into Call protobuf: %v", err)
	}
	return nil
}

// claimed is how much memory a body gets for what its header says it will be;
// more must come first.
const claimed = 1 << 20

var errTooLarge = fmt.Errorf("it is larger than %d MiB", maxBody>>20)

func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	if r.ContentLength < 0 || r.ContentLength > claimed {
		return io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

// acceptsJSON chooses the form of an answer: JSON wins where both will do.
func acceptsJSON(r *http.Request) (bool, error) {
	switch {
	case acceptable(r, typeJSON):
		return true, nil
	case acceptable(r, typeProtobuf):
		return false, nil
	}
	return false, failf(http.StatusNotAcceptable, "Expecting 'Accept' to allow %s or %s", typeProtobuf, typeJSON)
}

func acceptable(r *http.Request, kind string) bool {
	values := r.Header.Values("Accept")
	if len(values) == 0 {
		return true
	}
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			name, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err == nil && params["q"] != "0" && (name == kind || name == "application/*" || name == "*/*") {
				return true
			}
		}
	}
	return false
}

// scheduler serves the v1 scheduler API. The checks come in Mesos' order
// (master/http.cpp, scheduler).
func (s *Server) scheduler(w http.ResponseWriter, r *http.Request) {
	call := &schedulerv1.Call{}
	err := readCall(w, r, call)
	if err == nil {
		problem := callProblem(call)
		if problem == "" {
			problem = principalProblem(subject(r.Context()), call.GetSubscribe().GetFrameworkInfo())
		}
		if problem != "" {
			err = failf(http.StatusBadRequest, "Failed to validate scheduler::Call: %s", problem)
		}
	}
	if err != nil {
		answerError(w, err)
		return
	}
	s.tally.call(call.GetType())
	if call.GetType() == schedulerv1.Call_SUBSCRIBE {
		err = s.subscribe(w, r, call)
	} else {
		err = s.call(w, r, call)
	}
	if err != nil {
		answerError(w, err)
	}
}

// subscribe answers with the stream of events and returns when it ends. What
// is wrong with the framework is told on the stream.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request, call *schedulerv1.Call) error {
	json, err := acceptsJSON(r)
	if err != nil {
		return err
	}
	if r.Header.Get(streamHeader) != "" {
		return failf(http.StatusBadRequest, "Subscribe calls should not include the '%s' header", streamHeader)
	}
	sub := call.GetSubscribe()
	adoptPrincipal(subject(r.Context()), sub.FrameworkInfo)
	info, err := frameworkInfo(sub.FrameworkInfo)
	if err != nil {
		return failf(http.StatusBadRequest, "Failed to read the FrameworkInfo: %v", err)
	}
	st := newStream(&info, json, s.cfg.StreamQueue)
	s.registry.addStream(st)
	problem := frameworkProblem(sub.FrameworkInfo, sub.SuppressedRoles)
	if problem == "" {
		problem = s.registrationProblem(&info)
	}
	if problem != "" {
		st.push(failedEvent(problem))
		st.end()
	} else {
		s.put(master.Subscribe{Info: info, Stream: st.id, Suppressed: sub.SuppressedRoles})
	}
	w.Header().Set("Content-Type", typeProtobuf)
	if json {
		w.Header().Set("Content-Type", typeJSON)
	}
	w.Header()[streamHeader] = []string{st.id}
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	s.serveStream(r.Context(), st, &encoder{s: s, st: st, out: newStreamWriter(w, st)})
	return nil
}

// call takes every other call. It is answered as soon as it is in the queue.
func (s *Server) call(w http.ResponseWriter, r *http.Request, call *schedulerv1.Call) error {
	id := call.GetFrameworkId().GetValue()
	st, known := s.registry.caller(id)
	switch {
	case !known:
		return failf(http.StatusBadRequest, "Framework cannot be found")
	case st == nil || !st.driver.IsZero():
		return failf(http.StatusForbidden, "Framework is not subscribed")
	}
	info := st.info.Load()
	if who := subject(r.Context()).Name; who != "" && who != info.Principal {
		return failf(http.StatusBadRequest, "Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", who, info.Principal)
	}
	switch stream := r.Header.Get(streamHeader); stream {
	case st.id:
	case "":
		return failf(http.StatusBadRequest, "All non-subscribe calls should include the '%s' header", streamHeader)
	default:
		return failf(http.StatusBadRequest, "The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID '%s'", stream, id)
	}
	if err := s.throttle(r.Context(), st, id); err != nil {
		return err
	}
	st.tally.call(call.GetType())
	if call.GetType() == schedulerv1.Call_UPDATE_FRAMEWORK {
		if err := s.updateFramework(r.Context(), call, st); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if call.GetType() == schedulerv1.Call_UNKNOWN {
		return failf(http.StatusNotImplemented, "The call's type is not known")
	}
	s.take(st, call)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// throttle lets a call wait for its turn; meanwhile another instance may have
// taken the framework over.
func (s *Server) throttle(ctx context.Context, st *stream, framework string) error {
	st.tally.received.Add(1)
	if err := s.cfg.Limits.admit(ctx, st.info.Load().Principal); err != nil {
		return err
	}
	st.tally.processed.Add(1)
	if s.cfg.Limits == nil {
		return nil
	}
	if now, _ := s.registry.caller(framework); now != st {
		return failf(http.StatusForbidden, "Framework is not subscribed")
	}
	return nil
}

// updateFramework returns when the call has taken effect.
func (s *Server) updateFramework(ctx context.Context, call *schedulerv1.Call, st *stream) error {
	up := call.GetUpdateFramework()
	adoptPrincipal(subject(ctx), up.FrameworkInfo)
	if problem := frameworkProblem(up.FrameworkInfo, up.SuppressedRoles); problem != "" {
		return failf(http.StatusBadRequest, "Supplied FrameworkInfo is not valid: %s", problem)
	}
	info, err := frameworkInfo(up.FrameworkInfo)
	if err != nil {
		return failf(http.StatusBadRequest, "Failed to read the FrameworkInfo: %v", err)
	}
	info.ID = call.GetFrameworkId().GetValue()
	if problem := s.registrationProblem(&info); problem != "" {
		return failf(http.StatusForbidden, "%s", problem)
	}
	err = s.do(ctx, master.UpdateFramework{Info: info, Suppressed: up.SuppressedRoles})
	switch {
	case errors.Is(err, master.ErrNotSubscribed):
		return failf(http.StatusForbidden, "Framework is not subscribed")
	case errors.Is(err, master.ErrInvalid) || errors.Is(err, master.ErrUnknownFramework):
		return failf(http.StatusBadRequest, "%v", err)
	case err != nil:
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	st.info.Store(&info)
	return nil
}

// callProblem says which part of a call is missing (master/validation.cpp,
// scheduler::call::validate).
func callProblem(c *schedulerv1.Call) string {
	if c.Type == nil {
		return "Expecting 'type' to be present"
	}
	if c.GetType() == schedulerv1.Call_SUBSCRIBE {
		return subscribeProblem(c)
	}
	if c.FrameworkId == nil {
		return "Expecting 'framework_id' to be present"
	}
	if name, present := callPart(c); !present {
		return fmt.Sprintf("Expecting '%s' to be present", name)
	}
	if up := c.GetUpdateFramework(); up != nil && up.FrameworkInfo.Id != nil && up.FrameworkInfo.Id.GetValue() != c.FrameworkId.GetValue() {
		return "'framework_id' differs from 'update_framework.framework_info.id'"
	}
	if a := c.GetAcknowledge(); a != nil && len(a.Uuid) != 16 {
		return fmt.Sprintf("Not a valid UUID: %d bytes where 16 are expected", len(a.Uuid))
	}
	return ""
}

func subscribeProblem(c *schedulerv1.Call) string {
	if c.Subscribe == nil {
		return "Expecting 'subscribe' to be present"
	}
	if c.Subscribe.FrameworkInfo.GetId().GetValue() != c.FrameworkId.GetValue() {
		return "'framework_id' differs from 'subscribe.framework_info.id'"
	}
	return ""
}

// callPart names the part that a call of its type needs.
func callPart(c *schedulerv1.Call) (name string, present bool) {
	switch c.GetType() {
	case schedulerv1.Call_ACCEPT:
		return "accept", c.Accept != nil
	case schedulerv1.Call_DECLINE:
		return "decline", c.Decline != nil
	case schedulerv1.Call_ACCEPT_INVERSE_OFFERS:
		return "accept_inverse_offers", c.AcceptInverseOffers != nil
	case schedulerv1.Call_DECLINE_INVERSE_OFFERS:
		return "decline_inverse_offers", c.DeclineInverseOffers != nil
	case schedulerv1.Call_KILL:
		return "kill", c.Kill != nil
	case schedulerv1.Call_SHUTDOWN:
		return "shutdown", c.Shutdown != nil
	case schedulerv1.Call_ACKNOWLEDGE:
		return "acknowledge", c.Acknowledge != nil
	case schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS:
		return "acknowledge_operation_status", c.AcknowledgeOperationStatus != nil
	case schedulerv1.Call_RECONCILE:
		return "reconcile", c.Reconcile != nil
	case schedulerv1.Call_RECONCILE_OPERATIONS:
		return "reconcile_operations", c.ReconcileOperations != nil
	case schedulerv1.Call_MESSAGE:
		return "message", c.Message != nil
	case schedulerv1.Call_REQUEST:
		return "request", c.Request != nil
	case schedulerv1.Call_UPDATE_FRAMEWORK:
		return "update_framework", c.UpdateFramework != nil
	}
	return "", true
}
