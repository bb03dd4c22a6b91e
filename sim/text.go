package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/task"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func compareKeys(a, b task.Key) int {
	return cmp.Or(strings.Compare(a.Framework, b.Framework), strings.Compare(a.ID, b.ID))
}

// text is textOf while there is a trace.
func (w *World) text(x any) string {
	if !w.opt.Trace {
		return ""
	}
	return textOf(x)
}

// textOf says in a line what an input, command, effect or message is. It names
// no pointers and no addresses in memory.
func textOf(x any) string {
	switch x := x.(type) {
	case agent.Input:
		return agentText(x)
	case master.Command:
		return masterText(x)
	case marathon.Input:
		return marathonText(x)
	case marathon.Effect:
		return effectText(x)
	case master.AgentMessage:
		return messageText(x)
	case master.Update:
		return fmt.Sprintf("Update %s %s %s", x.Task, x.Status.State, short(x.Status.UUID))
	case master.Offers:
		return fmt.Sprintf("Offers %s", offerIDs(x.Offers))
	}
	return fmt.Sprintf("%T", x)
}

func short(u task.UUID) string {
	if u.IsZero() {
		return "-"
	}
	return fmt.Sprintf("u%x", u[12:])
}

func offerIDs(in []*master.Offer) (out []string) {
	for _, o := range in {
		out = append(out, o.ID)
	}
	return out
}

func name(x any) string {
	text := fmt.Sprintf("%T", x)
	return text[strings.LastIndexByte(text, '.')+1:]
}

func agentText(in agent.Input) string {
	switch in := in.(type) {
	case agent.Launch:
		return "Launch " + in.Spec.Key.String()
	case agent.Kill:
		return "Kill " + in.Key.String()
	case agent.Ack:
		return "Ack " + in.Key.String() + " " + short(in.UUID)
	case agent.Joined:
		return fmt.Sprintf("Joined, missing %d", len(in.Missing))
	case agent.Seen:
		k := in.Event.Container
		return fmt.Sprintf("Seen %s %s synced=%v", k.Key, k.State, in.Event.Synced)
	case agent.Done:
		return fmt.Sprintf("Done %s %s %s%s: %s %v", in.Call.Op, in.Call.Key, in.Call.Name, in.Call.ID, in.Container.State, in.Err)
	}
	return name(in)
}

func masterText(cmd master.Command) string {
	switch cmd := cmd.(type) {
	case master.StatusUpdate:
		return fmt.Sprintf("StatusUpdate %s %s %s latest %s", cmd.Key, cmd.Status.State, short(cmd.Status.UUID), cmd.Latest)
	case master.Acknowledge:
		return fmt.Sprintf("Acknowledge %s %s", cmd.Key, short(cmd.UUID))
	case master.Accept:
		ids := make([]string, len(cmd.Launches))
		for i := range cmd.Launches {
			ids[i] = cmd.Launches[i].ID
		}
		return fmt.Sprintf("Accept %v: %v", cmd.Offers, ids)
	case master.ReregisterAgent:
		text := "ReregisterAgent " + cmd.Agent.ID
		for _, t := range cmd.Tasks {
			text += fmt.Sprintf(" %s=%s", t.Key.ID, t.State)
		}
		return text
	case master.Kill:
		return "Kill " + cmd.Key.String()
	case master.Disconnect:
		return "Disconnect " + cmd.Stream
	case master.Subscribe:
		return "Subscribe " + cmd.Info.ID + " over " + cmd.Stream
	case master.Decline:
		return fmt.Sprintf("Decline %v for %s", cmd.Offers, cmd.Refuse)
	case master.AgentExited:
		return "AgentExited " + cmd.PID
	case master.Reconcile:
		return fmt.Sprintf("Reconcile %v", cmd.Tasks)
	}
	return name(cmd)
}

func marathonText(in marathon.Input) string {
	switch in := in.(type) {
	case marathon.Updated:
		return fmt.Sprintf("Updated %s %s %s (%s)", in.TaskID, in.Status.State, short(in.Status.UUID), in.Status.Message)
	case marathon.Offered:
		return fmt.Sprintf("Offered %d", len(in.Offers))
	case marathon.Checked:
		return fmt.Sprintf("Checked %s alive=%v", in.TaskID, in.Alive)
	case marathon.Change:
		var ids []string
		for _, a := range in.Put {
			ids = append(ids, fmt.Sprintf("%s×%d", a.ID, a.Instances))
		}
		return fmt.Sprintf("Change put %v delete %v restart %v force=%v", ids, in.Delete, in.Restart, in.Force)
	case marathon.ChangeGroup:
		return fmt.Sprintf("ChangeGroup %s put %v force=%v", in.ID, in.Put != nil, in.Force)
	case marathon.CheckedReady:
		return fmt.Sprintf("CheckedReady %s %d", in.TaskID, in.Status)
	case marathon.Promote:
		return "Promote " + in.App
	case marathon.CancelDeployment:
		return fmt.Sprintf("CancelDeployment %s revert=%v", in.ID, in.Revert)
	case marathon.KillTasks:
		return fmt.Sprintf("KillTasks %v scale=%v", in.IDs, in.Scale)
	}
	return name(in)
}

func effectText(e marathon.Effect) string {
	switch e := e.(type) {
	case marathon.Accept:
		return fmt.Sprintf("Accept %v", e.Offers)
	case marathon.Acknowledge:
		return "Acknowledge " + e.TaskID + " " + short(e.UUID)
	case marathon.Kill:
		return "Kill " + e.TaskID
	}
	return name(e)
}

func messageText(m master.AgentMessage) string {
	switch m := m.(type) {
	case master.AckUpdate:
		return "AckUpdate " + m.Key.String() + " " + short(m.UUID)
	case master.KillTask:
		return "KillTask " + m.Key.String()
	case master.RunTask:
		return "RunTask " + string(m.Task)
	}
	return name(m)
}
