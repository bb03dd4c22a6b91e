package link

import (
	"context"
	"fmt"
	"time"

	"github.com/mesopool/mesopool/agent"
)

// ShutdownPolicy is what an agent does that its master orders to end, as one
// does with an agent that was marked gone, or has another address than before.
// A genuine agent kills all its tasks; here these are a whole data center's.
type ShutdownPolicy string

// The policies.
const (
	ShutdownExit   ShutdownPolicy = ""       // the process ends, the containers stay
	ShutdownIgnore ShutdownPolicy = "ignore" // the order is logged and counted
	ShutdownKill   ShutdownPolicy = "kill"   // all tasks are killed, then the process ends
)

// ParseShutdown reads a policy by its name for people.
func ParseShutdown(text string) (ShutdownPolicy, error) {
	switch p := ShutdownPolicy(text); {
	case text == "exit":
		return ShutdownExit, nil
	case p == ShutdownIgnore || p == ShutdownKill:
		return p, nil
	}
	return "", fmt.Errorf("%q is no shutdown policy; it must be exit, ignore or kill", text)
}

// shutdown obeys, by policy. Nil means that the agent goes on.
func (l *Link) shutdown(ctx context.Context, message string) error {
	switch l.cfg.Shutdown {
	case ShutdownIgnore:
		l.drop("shutdown", "the master ordered this agent to end, which its policy ignores", "message", message)
		return nil
	case ShutdownKill:
		l.log.Warn("killing all tasks by the master's order", "message", message)
		if err := l.killAll(ctx); err != nil {
			return err
		}
		return fmt.Errorf("link: the master ordered this agent to shut down: %q; all its tasks were killed", message)
	}
	return fmt.Errorf("link: the master ordered this agent to shut down: %q; its containers were left running", message)
}

// killAll ends all frameworks here and waits until their containers have ended.
func (l *Link) killAll(ctx context.Context) error {
	for {
		roster, err := l.agent.Roster(ctx)
		if err != nil {
			return err
		}
		if len(roster.Tasks) == 0 && roster.Ending == 0 {
			return nil
		}
		for i := range roster.Executors {
			l.agent.Put(agent.ShutdownFramework{ID: roster.Executors[i].Spec.Key.Framework})
		}
		for i := range roster.Tasks {
			l.agent.Put(agent.ShutdownFramework{ID: roster.Tasks[i].Spec.Key.Framework})
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
