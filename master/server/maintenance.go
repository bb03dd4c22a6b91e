package server

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	allocatorv1 "github.com/mesopool/mesopool/mesos/v1/allocator"
	maintenancev1 "github.com/mesopool/mesopool/mesos/v1/maintenance"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// operateAgents carries out the calls that change what agents may do; taken is
// false for others.
func (s *Server) operateAgents(ctx context.Context, c *masterv1.Call) (taken bool, err error) {
	var cmd master.Command
	switch c.GetType() {
	case masterv1.Call_DRAIN_AGENT:
		cmd, err = drainCommand(c.DrainAgent)
	case masterv1.Call_DEACTIVATE_AGENT:
		cmd = master.ActivateAgent{Agent: c.DeactivateAgent.GetAgentId().GetValue()}
	case masterv1.Call_REACTIVATE_AGENT:
		cmd = master.ActivateAgent{Agent: c.ReactivateAgent.GetAgentId().GetValue(), Active: true}
	case masterv1.Call_MARK_AGENT_GONE:
		cmd = master.MarkAgentGone{Agent: c.MarkAgentGone.GetAgentId().GetValue()}
	case masterv1.Call_UPDATE_MAINTENANCE_SCHEDULE:
		cmd, err = scheduleCommand(c.UpdateMaintenanceSchedule.GetSchedule())
	case masterv1.Call_START_MAINTENANCE:
		cmd, err = startCommand(c.StartMaintenance.GetMachines())
	case masterv1.Call_STOP_MAINTENANCE:
		cmd, err = stopCommand(c.StopMaintenance.GetMachines())
	default:
		return false, nil
	}
	if err != nil {
		return true, err
	}
	return true, s.setAgents(ctx, cmd)
}

func (s *Server) setAgents(ctx context.Context, cmd master.Command) error {
	for _, action := range agentActions(cmd) {
		if err := s.allowed(ctx, action); err != nil {
			return err
		}
	}
	err := s.do(ctx, cmd)
	s.snapshot.expire()
	switch {
	case errors.Is(err, master.ErrUnknownAgent):
		return failf(http.StatusNotFound, "%v", err)
	case errors.Is(err, master.ErrConflict):
		return failf(http.StatusConflict, "%v", err)
	case errors.Is(err, master.ErrInvalid):
		return failf(http.StatusBadRequest, "%v", err)
	case err != nil:
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	return nil
}

// agentActions is what somebody must be allowed to do for a command.
func agentActions(cmd master.Command) []authz.Action {
	switch cmd := cmd.(type) {
	case master.DrainAgent:
		if cmd.MarkGone {
			return []authz.Action{authz.DrainAgent, authz.MarkAgentGone}
		}
		return []authz.Action{authz.DrainAgent}
	case master.ActivateAgent:
		if cmd.Active {
			return []authz.Action{authz.ReactivateAgent}
		}
		return []authz.Action{authz.DeactivateAgent}
	case master.MarkAgentGone:
		return []authz.Action{authz.MarkAgentGone}
	case master.StartMaintenance:
		return []authz.Action{authz.StartMaintenance}
	case master.StopMaintenance:
		return []authz.Action{authz.StopMaintenance}
	}
	return []authz.Action{authz.UpdateMaintenanceSchedule}
}

func drainCommand(in *masterv1.Call_DrainAgent) (master.Command, error) {
	cmd := master.DrainAgent{Agent: in.GetAgentId().GetValue(), MarkGone: in.GetMarkGone()}
	if in.GetMaxGracePeriod() != nil {
		grace := in.MaxGracePeriod.AsDuration()
		if grace < 0 {
			return nil, failf(http.StatusBadRequest, "'DRAIN_AGENT' with a negative 'max_grace_period'")
		}
		cmd.Grace = &grace
	}
	return cmd, nil
}

// scheduleCommand reads a plan (master/maintenance.cpp, unavailability and
// machine).
func scheduleCommand(in *maintenancev1.Schedule) (master.Command, error) {
	cmd := master.UpdateSchedule{}
	for _, w := range in.GetWindows() {
		list, err := machines(w.MachineIds)
		if err != nil {
			return nil, err
		}
		start := w.Unavailability.GetStart().GetNanoseconds()
		cmd.Windows = append(cmd.Windows, master.Window{
			Machines: list, Start: time.Unix(0, start), Length: time.Duration(w.Unavailability.GetDuration().GetNanoseconds()),
		})
	}
	return cmd, nil
}

func startCommand(in []*mesosv1.MachineID) (master.Command, error) {
	list, err := machines(in)
	return master.StartMaintenance{Machines: list}, err
}

func stopCommand(in []*mesosv1.MachineID) (master.Command, error) {
	list, err := machines(in)
	return master.StopMaintenance{Machines: list}, err
}

func machines(in []*mesosv1.MachineID) (out []master.Machine, err error) {
	for _, m := range in {
		if ip := m.GetIp(); ip != "" {
			if _, err := netip.ParseAddr(ip); err != nil {
				return nil, failf(http.StatusBadRequest, "Invalid machine: %v", err)
			}
		}
		out = append(out, master.Machine{Hostname: m.GetHostname(), IP: m.GetIp()})
	}
	return out, nil
}

func machineID(m master.Machine) *mesosv1.MachineID {
	out := &mesosv1.MachineID{}
	if m.Hostname != "" {
		out.Hostname = &m.Hostname
	}
	if m.IP != "" {
		out.Ip = &m.IP
	}
	return out
}

func unavailabilityMessage(start time.Time, length time.Duration) *mesosv1.Unavailability {
	out := &mesosv1.Unavailability{Start: timeInfo(start)}
	if length > 0 {
		out.Duration = &mesosv1.DurationInfo{Nanoseconds: new(int64(length))}
	}
	return out
}

func scheduleMessage(snap *master.Snapshot) *maintenancev1.Schedule {
	out := &maintenancev1.Schedule{}
	for _, w := range snap.Maintenance.Windows {
		x := &maintenancev1.Window{Unavailability: unavailabilityMessage(w.Start, w.Length)}
		for _, m := range w.Machines {
			x.MachineIds = append(x.MachineIds, machineID(m))
		}
		out.Windows = append(out.Windows, x)
	}
	return out
}

func statusMessageOf(snap *master.Snapshot) *maintenancev1.ClusterStatus {
	out := &maintenancev1.ClusterStatus{}
	for _, m := range snap.Maintenance.Down {
		out.DownMachines = append(out.DownMachines, machineID(m))
	}
	for _, w := range snap.Maintenance.Windows {
		for _, m := range w.Machines {
			if !slices.Contains(snap.Maintenance.Down, m) {
				out.DrainingMachines = append(out.DrainingMachines, &maintenancev1.ClusterStatus_DrainingMachine{Id: machineID(m), Statuses: answersOn(snap, m)})
			}
		}
	}
	return out
}

// answersOn are what frameworks said to leaving a machine.
func answersOn(snap *master.Snapshot, m master.Machine) (out []*allocatorv1.InverseOfferStatus) {
	for _, o := range snap.Inverse {
		i := slices.IndexFunc(snap.Agents, func(a master.AgentView) bool { return a.ID == o.Agent })
		if i < 0 || !m.Covers(&snap.Agents[i].AgentInfo) || o.Answer == master.InverseUnknown {
			continue
		}
		out = append(out, &allocatorv1.InverseOfferStatus{
			Status: allocatorv1.InverseOfferStatus_Status(o.Answer).Enum(), FrameworkId: &mesosv1.FrameworkID{Value: &o.Framework}, Timestamp: timeInfo(o.Answered),
		})
	}
	return out
}

func getSchedule(v *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	return &masterv1.Response{
		Type: masterv1.Response_GET_MAINTENANCE_SCHEDULE.Enum(), GetMaintenanceSchedule: &masterv1.Response_GetMaintenanceSchedule{Schedule: v.schedule(snap)},
	}, nil
}

func getMaintenance(v *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	return &masterv1.Response{
		Type: masterv1.Response_GET_MAINTENANCE_STATUS.Enum(), GetMaintenanceStatus: &masterv1.Response_GetMaintenanceStatus{Status: v.maintenance(snap)},
	}, nil
}

// schedule serves the older endpoint: GET, and POST of a plan.
func (s *Server) schedule(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		s.read(func(j *jsonWriter, q *query) { j.element(q.sees.schedule(q.snap)) })(w, r)
		return
	}
	in := &maintenancev1.Schedule{}
	err := readJSON(w, r, in)
	var cmd master.Command
	if err == nil {
		cmd, err = scheduleCommand(in)
	}
	if err == nil {
		err = s.setAgents(r.Context(), cmd)
	}
	if err != nil {
		answerError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// machine serves the older endpoints that take a JSON array of machines.
func (s *Server) machine(command func([]*mesosv1.MachineID) (master.Command, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			answerError(w, failf(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method))
			return
		}
		in := &masterv1.Call_StartMaintenance{}
		text, err := readAll(w, r)
		if err == nil {
			err = mesosjson.Unmarshal(slices.Concat([]byte(`{"machines":`), text, []byte("}")), in)
		}
		var cmd master.Command
		if err != nil {
			err = failf(http.StatusBadRequest, "Failed to parse the list of machines: %v", err)
		} else if cmd, err = command(in.Machines); err == nil {
			err = s.setAgents(r.Context(), cmd)
		}
		if err != nil {
			answerError(w, err)
			return
		}
		w.WriteHeader(http.StatusOK)
	}
}

// drainInfo is how an agent that is emptied is shown; nil for others.
func drainInfo(d *master.Drain) *mesosv1.DrainInfo {
	if d == nil {
		return nil
	}
	out := &mesosv1.DrainInfo{State: mesosv1.DrainState_DRAINING.Enum(), Config: drainConfig(d.Grace, d.MarkGone)}
	if d.Drained {
		out.State = mesosv1.DrainState_DRAINED.Enum()
	}
	return out
}

func drainConfig(grace *time.Duration, gone bool) *mesosv1.DrainConfig {
	out := &mesosv1.DrainConfig{MarkGone: &gone}
	if grace != nil {
		out.MaxGracePeriod = &mesosv1.DurationInfo{Nanoseconds: new(int64(*grace))}
	}
	return out
}

func drainMessage(m master.DrainMessage) proto.Message {
	return &messages.DrainSlaveMessage{Config: drainConfig(m.Grace, m.MarkGone)}
}

// inverseOffers is the event that asks a framework to leave agents.
func (s *Server) inverseOffers(list []*master.InverseOffer) *schedulerv1.Event {
	out := &schedulerv1.Event_InverseOffers{}
	for _, o := range list {
		out.InverseOffers = append(out.InverseOffers, &mesosv1.InverseOffer{
			Id: &mesosv1.OfferID{Value: &o.ID}, Url: s.registry.agent(o.Agent).url, FrameworkId: &mesosv1.FrameworkID{Value: &o.Framework},
			AgentId: &mesosv1.AgentID{Value: &o.Agent}, Unavailability: unavailabilityMessage(o.When.Start, o.When.Length),
		})
	}
	return &schedulerv1.Event{Type: schedulerv1.Event_INVERSE_OFFERS.Enum(), InverseOffers: out}
}

// answerInverse takes a framework's answer to inverse offers.
func (s *Server) answerInverse(framework string, ids []*mesosv1.OfferID, f *mesosv1.Filters, answer master.InverseAnswer) {
	s.put(master.AnswerInverse{Framework: framework, Offers: offerIDs(ids), Answer: answer, Refuse: refuseTime(f)})
}
