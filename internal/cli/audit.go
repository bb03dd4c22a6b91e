package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	dockerclient "github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"github.com/mesopool/mesopool/internal/audit"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Args: noArgs, RunE: runAudit,
		Short: "Compare what Marathon, the master, the agents and the engine think",
		Long: `Asks Marathon, the master, every agent and the Docker engine what there is, and
says where they differ: tasks that run twice or not at all, books that do not
balance, updates that nobody acknowledged, containers that nobody removed.

While a cluster is changing, differences are normal: --wait gives it time. What
must never be, whatever fails, is told at once. Exit code 1: something is wrong.`,
	}
	clientFlags(cmd)
	cmd.Flags().String("cluster", "mesos", "the cluster's name, which its containers carry as a label")
	cmd.Flags().Duration("wait", 0, "how long the cluster may take to settle")
	return cmd
}

// auditReport is what an audit has found.
type auditReport struct {
	Broken    []string `json:"broken"`    // must never be
	Unsettled string   `json:"unsettled"` // must not stay; "" when all is well
	Tasks     int      `json:"tasks"`
	Took      string   `json:"took"`
}

func runAudit(cmd *cobra.Command, _ []string) error {
	c, v, err := newClient(cmd)
	if err != nil {
		return err
	}
	a := auditor{client: c, cluster: v.GetString("cluster")}
	begin := time.Now()
	r := a.settle(cmd.Context(), begin.Add(v.GetDuration("wait")))
	r.Took = time.Since(begin).Round(100 * time.Millisecond).String()
	if err := c.print(r, func(w io.Writer) { r.write(w) }); err != nil {
		return err
	}
	if len(r.Broken) > 0 || r.Unsettled != "" {
		return exit(exitFailure, "the parts of the cluster do not agree")
	}
	return nil
}

func (r *auditReport) write(w io.Writer) {
	for _, text := range r.Broken {
		fmt.Fprintln(w, "BROKEN:", text)
	}
	if r.Unsettled != "" {
		fmt.Fprintln(w, "NOT SETTLED:", r.Unsettled)
	}
	if len(r.Broken) == 0 && r.Unsettled == "" {
		fmt.Fprintf(w, "All parts agree on %d tasks (after %s).\n", r.Tasks, r.Took)
	}
}

// auditor reads a cluster's APIs.
type auditor struct {
	client  *client
	cluster string
}

// settle looks until the cluster has settled, or time is up. The parts are asked
// one after the other, so what looks broken is looked at once more.
func (a *auditor) settle(ctx context.Context, until time.Time) auditReport {
	var r auditReport
	suspicious := 0
	for {
		r = a.once(ctx)
		if len(r.Broken) > 0 {
			suspicious++
		} else {
			suspicious = 0
		}
		if suspicious >= 3 || len(r.Broken) == 0 && (r.Unsettled == "" || time.Now().After(until)) {
			return r
		}
		select {
		case <-ctx.Done():
			return r
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (a *auditor) once(ctx context.Context) auditReport {
	c, err := a.read(ctx)
	if err != nil {
		return auditReport{Unsettled: err.Error()}
	}
	return auditReport{Broken: c.Broken(), Unsettled: c.Unsettled(), Tasks: len(c.Master.Tasks)}
}

func (a *auditor) read(ctx context.Context) (*audit.Cluster, error) {
	c := &audit.Cluster{}
	for _, part := range []func(context.Context, *audit.Cluster) error{a.marathon, a.master, a.containers} {
		if err := part(ctx, c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (a *auditor) marathon(ctx context.Context, c *audit.Cluster) error {
	var info struct {
		Framework string `json:"frameworkId"`
	}
	var apps struct {
		Apps []struct {
			ID        string           `json:"id"`
			Instances int              `json:"instances"`
			Healthy   int              `json:"tasksHealthy"`
			Checks    []map[string]any `json:"healthChecks"`
			Waiting   string           `json:"waiting"`
			Tasks     []struct {
				ID    string `json:"id"`
				State string `json:"state"`
			} `json:"tasks"`
		} `json:"apps"`
	}
	var deployments []struct {
		ID string `json:"id"`
	}
	err := errors.Join(
		a.client.call(ctx, "GET", a.client.marathon, "/v2/info", nil, &info),
		a.client.call(ctx, "GET", a.client.marathon, "/v2/apps?embed=apps.tasks&embed=apps.counts", nil, &apps),
		a.client.call(ctx, "GET", a.client.marathon, "/v2/deployments", nil, &deployments))
	c.Framework = info.Framework
	for _, d := range deployments {
		c.Deploying = append(c.Deploying, d.ID)
	}
	for _, x := range apps.Apps {
		app := audit.App{ID: x.ID, Want: x.Instances, Checked: len(x.Checks) > 0, Healthy: x.Healthy, Waiting: x.Waiting}
		for _, t := range x.Tasks {
			app.Instances = append(app.Instances, audit.Instance{Task: t.ID, State: stateOf(t.State)})
		}
		c.Apps = append(c.Apps, app)
	}
	return errors.Join(err, a.pods(ctx, c))
}

// pods are apps whose instances are several tasks.
func (a *auditor) pods(ctx context.Context, c *audit.Cluster) error {
	var pods []struct {
		ID      string `json:"id"`
		Message string `json:"message"`
		Spec    struct {
			Scaling struct {
				Instances int `json:"instances"`
			} `json:"scaling"`
			Containers []struct{} `json:"containers"`
		} `json:"spec"`
		Instances []struct {
			Containers []struct {
				ID     string `json:"containerId"`
				Status string `json:"status"`
			} `json:"containers"`
		} `json:"instances"`
	}
	err := a.client.call(ctx, "GET", a.client.marathon, "/v2/pods/::status", nil, &pods)
	for _, p := range pods {
		app := audit.App{ID: p.ID, Want: p.Spec.Scaling.Instances * len(p.Spec.Containers), Waiting: p.Message}
		for _, i := range p.Instances {
			for _, t := range i.Containers {
				app.Instances = append(app.Instances, audit.Instance{Task: t.ID, State: stateOf(t.Status)})
			}
		}
		c.Apps = append(c.Apps, app)
	}
	return err
}

// stateOf reads the name of a task state; an unknown one is staging, which never
// passes for settled.
func stateOf(name string) task.State {
	s, err := task.ParseState(name)
	if err != nil {
		return task.Staging
	}
	return s
}

// masterState is the part of a master's /state that tells its books.
type masterState struct {
	Unreachable float64 `json:"unreachable_slaves"`
	Recovered   []any   `json:"recovered_slaves"`
	Agents      []struct {
		ID       string         `json:"id"`
		PID      string         `json:"pid"`
		Hostname string         `json:"hostname"`
		Active   bool           `json:"active"`
		Total    map[string]any `json:"resources"`
		Used     map[string]any `json:"used_resources"`
		Offered  map[string]any `json:"offered_resources"`
	} `json:"slaves"`
	Frameworks []struct {
		ID        string `json:"id"`
		Connected bool   `json:"connected"`
		Offers    []struct {
			Agent     string         `json:"slave_id"`
			Resources map[string]any `json:"resources"`
		} `json:"offers"`
		Executors []struct {
			Agent     string         `json:"slave_id"`
			Resources map[string]any `json:"resources"`
		} `json:"executors"`
		Tasks []struct {
			ID        string         `json:"id"`
			Agent     string         `json:"slave_id"`
			State     string         `json:"state"`
			Resources map[string]any `json:"resources"`
		} `json:"tasks"`
	} `json:"frameworks"`
}

func (a *auditor) master(ctx context.Context, c *audit.Cluster) error {
	var s masterState
	if err := a.client.call(ctx, "GET", a.client.master, "/state", nil, &s); err != nil {
		return err
	}
	c.Master.Waiting = len(s.Recovered) + int(s.Unreachable)
	for _, x := range s.Agents {
		c.Master.Agents = append(c.Master.Agents, audit.Books{
			ID: x.ID, Connected: x.Active, Total: scalarsOf(x.Total), Used: scalarsOf(x.Used), Offered: scalarsOf(x.Offered),
		})
		agent, err := a.agent(ctx, x.PID)
		if err != nil {
			return fmt.Errorf("agent %s (%s): %w", x.ID, x.Hostname, err)
		}
		c.Agents = append(c.Agents, agent)
	}
	for _, f := range s.Frameworks {
		out := audit.Framework{ID: f.ID, Connected: f.Connected}
		for _, o := range f.Offers {
			out.Offers = append(out.Offers, audit.Offer{Agent: o.Agent, Resources: scalarsOf(o.Resources)})
		}
		for _, e := range f.Executors {
			out.Executors = append(out.Executors, audit.Offer{Agent: e.Agent, Resources: scalarsOf(e.Resources)})
		}
		c.Master.Frameworks = append(c.Master.Frameworks, out)
		for _, t := range f.Tasks {
			c.Master.Tasks = append(c.Master.Tasks, audit.Task{
				Key: task.Key{Framework: f.ID, ID: t.ID}, Agent: t.Agent, State: stateOf(t.State), Resources: scalarsOf(t.Resources),
			})
		}
	}
	return nil
}

// scalarsOf reads the scalars of Mesos' JSON of resources; ranges are text there.
func scalarsOf(m map[string]any) resources.Scalars {
	var out []resources.Scalar
	for name, v := range m {
		if f, ok := v.(float64); ok {
			if amount, err := resources.FromFloat(f); err == nil {
				out = append(out, resources.Scalar{Name: name, Amount: amount})
			}
		}
	}
	return resources.NewScalars(out...)
}

// agent asks the agent that the master knows by its address.
func (a *auditor) agent(ctx context.Context, pid string) (audit.Agent, error) {
	actor, address, _ := strings.Cut(pid, "@")
	var s struct {
		ID         string `json:"id"`
		Registered bool   `json:"registered"`
		Kept       int    `json:"kept_containers"`
		Orphans    int    `json:"orphans"`
		Pending    int    `json:"unacknowledged_updates"`
		Frameworks []struct {
			ID        string `json:"id"`
			Executors []struct {
				Tasks []struct {
					ID    string `json:"id"`
					State string `json:"state"`
				} `json:"tasks"`
			} `json:"executors"`
		} `json:"frameworks"`
	}
	if err := a.client.call(ctx, "GET", address, "/"+actor+"/state", nil, &s); err != nil {
		return audit.Agent{}, err
	}
	out := audit.Agent{Name: s.ID, Registered: s.Registered, Kept: s.Kept, Orphans: s.Orphans}
	for _, f := range s.Frameworks {
		for _, e := range f.Executors {
			for _, t := range e.Tasks {
				out.Tasks = append(out.Tasks, audit.Task{Key: task.Key{Framework: f.ID, ID: t.ID}, State: stateOf(t.State)})
			}
		}
	}
	if s.Pending > 0 && len(out.Tasks) > 0 {
		out.Tasks[0].Pending = fmt.Sprintf("(one of %d)", s.Pending)
	}
	return out, nil
}

// containers asks the engine for everything that carries the cluster's label.
func (a *auditor) containers(ctx context.Context, c *audit.Cluster) error {
	cli, err := dockerclient.NewClientWithOpts(dockerclient.FromEnv, dockerclient.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer cli.Close()
	list, err := cli.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", provider.LabelCluster+"="+a.cluster))})
	if err != nil {
		return exit(exitUnreachable, "the Docker engine does not answer: %w", err)
	}
	for _, k := range list {
		_, key, _, _ := provider.ParseLabels(k.Labels)
		if strings.HasPrefix(key.ID, task.PodID("")) {
			continue // it holds what tasks share, and is no task
		}
		c.Containers = append(c.Containers, audit.Container{Name: strings.TrimPrefix(strings.Join(k.Names, " "), "/"), Key: key, State: seen(k.State, k.Status)})
	}
	return nil
}

// seen reads the state; Triton's listings have only a status in words.
func seen(state, status string) provider.State {
	if state == "" && strings.HasPrefix(status, "Up") {
		return provider.StateUp
	}
	switch state {
	case "running", "paused", "restarting":
		return provider.StateUp
	case "created":
		return provider.StateCreated
	default:
		return provider.StateExited
	}
}
