package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/runner"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
	"github.com/mesopool/mesopool/web"
)

// clusterView turns a snapshot into the master's page.
func clusterView(s *master.Snapshot, name, address string, started time.Time, filter string) *web.Cluster {
	v := &web.Cluster{
		Name: name, Master: address, ID: s.ID, Version: mesosVersion, Started: started, Filter: filter,
		Amounts: amounts(s.Total, s.Used, s.Offered),
	}
	hosts := map[string]string{}
	perAgent := map[string]int{}
	for i := range s.Agents {
		hosts[s.Agents[i].ID] = s.Agents[i].Hostname
	}
	states := map[task.State]int{}
	for i := range s.Frameworks {
		f := &s.Frameworks[i]
		v.Frameworks = append(v.Frameworks, frameworkView(f))
		for _, t := range f.Tasks {
			perAgent[t.Agent]++
			states[t.State]++
			if filter != "" && !strings.Contains(t.Key.ID+" "+t.Name+" "+t.State.String(), filter) {
				continue
			}
			if v.TaskTotal++; len(v.Tasks) < web.MostTasks {
				v.Tasks = append(v.Tasks, taskView(t, f.Name, hosts[t.Agent]))
			}
		}
	}
	for i := range s.Agents {
		a := &s.Agents[i]
		v.Agents = append(v.Agents, web.Agent{
			ID: a.ID, Hostname: a.Hostname, Address: a.PID, Connected: a.Connected, Since: a.Registered, Tasks: perAgent[a.ID],
			Amounts: amounts(a.Resources.Scalars(), a.Used.Scalars(), a.Offered.Scalars()),
		})
	}
	v.Counts = []web.Count{
		{Name: "agents", N: len(s.Agents)},
		{Name: "unreachable", N: s.Unreachable, Bad: true},
		{Name: "frameworks", N: len(s.Frameworks)},
		{Name: "staging", N: states[task.Staging] + states[task.Starting]},
		{Name: "running", N: states[task.Running]},
		{Name: "killing", N: states[task.Killing]},
		{Name: "finished", N: int(s.Count.Ended[task.Finished])},
		{Name: "failed", N: int(s.Count.Ended[task.Failed]), Bad: true},
		{Name: "killed", N: int(s.Count.Ended[task.Killed])},
		{Name: "lost", N: int(s.Count.Ended[task.Lost] + s.Count.Ended[task.Gone]), Bad: true},
	}
	return v
}

func frameworkView(f *master.FrameworkView) web.Framework {
	return web.Framework{
		ID: f.ID, Name: f.Name, Roles: strings.Join(f.Roles, ", "), Principal: f.Principal, URL: f.WebUI, Connected: f.Connected,
		Tasks: len(f.Tasks), Offers: len(f.Offers), Since: f.Registered,
	}
}

// amounts are the kinds that people look for, in their order.
func amounts(total, used, offered resources.Scalars) []web.Amount {
	var out []web.Amount
	for _, k := range [][2]string{{"cpus", ""}, {"mem", "MiB"}, {"disk", "MiB"}, {"gpus", ""}} {
		if total.Get(k[0]) > 0 {
			out = append(out, web.Amount{
				Name: k[0], Unit: k[1], Total: total.Get(k[0]).Float(), Used: used.Get(k[0]).Float(), Offered: offered.Get(k[0]).Float(),
			})
		}
	}
	return out
}

// addressIn finds the task's address in its last status.
func addressIn(t *master.Task) string {
	for _, s := range slices.Backward(t.Statuses) {
		var m mesosv1.TaskStatus
		if len(s.More) == 0 || (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(s.More, &m) != nil {
			continue
		}
		if c := convert.Status(&m).Container; c != nil && len(c.Addresses) > 0 {
			return c.Addresses[0]
		}
	}
	return ""
}

func taskView(t *master.Task, framework, host string) web.Task {
	v := web.Task{
		ID: t.Key.ID, Name: t.Name, Framework: framework, Agent: host, State: t.State.String(), Address: addressIn(t),
		CPUs: t.Resources.Amount("cpus").Float(), Mem: t.Resources.Amount("mem").Float(),
	}
	if n := len(t.Statuses); n > 0 {
		v.Since = t.Statuses[n-1].Time
	}
	return v
}

// servicesView turns Marathon's state into its page.
func servicesView(ctx context.Context, r *runner.Runner, name, address, master string) (*web.Services, error) {
	v := &web.Services{Name: name, Address: address, Master: master}
	err := r.View(ctx, func(c *marathon.Core) {
		v.Framework, _, v.Connected = c.Info()
		apps := c.Apps(time.Now(), nil)
		for i := range apps {
			v.Apps = append(v.Apps, appView(&apps[i]))
		}
		for _, d := range c.Deployments() {
			v.Deployments = append(v.Deployments, deploymentView(&d))
		}
	})
	return v, err
}

func deploymentView(d *marathon.Deployment) web.Deployment {
	out := web.Deployment{ID: d.ID, Apps: strings.Join(d.Apps(), ", "), Step: d.Current + 1, Steps: len(d.Steps)}
	if d.Current < len(d.Steps) {
		for _, a := range d.Steps[d.Current] {
			out.Doing = strings.TrimSuffix(a.Action, "Application")
		}
	}
	return out
}

func appView(a *marathon.AppView) web.App {
	out := web.App{
		ID: a.App.ID, CPUs: a.App.CPUs, Mem: a.App.Mem, Wanted: a.App.Instances, Staged: a.Staged, Running: a.Running, Healthy: a.Healthy,
		Unhealthy: a.Unhealthy, Waiting: a.Waiting,
	}
	row := appRow{Instances: a.App.Instances, Waiting: a.Waiting}
	for range a.Deployments {
		row.Deploying = append(row.Deploying, nil)
	}
	out.Status, _, _ = strings.Cut(appStatus(&row), ":")
	if a.App.Container != nil && a.App.Container.Docker != nil {
		out.Image = a.App.Container.Docker.Image
	}
	if f := a.LastFailure; f != nil {
		out.LastFailure = "last failure " + f.Timestamp + ": " + strings.TrimPrefix(f.State, "TASK_") + ", " + f.Message
	}
	for _, i := range a.Instances {
		out.Instances = append(out.Instances, instanceView(i))
	}
	return out
}

func instanceView(i *marathon.Instance) web.Instance {
	out := web.Instance{ID: i.TaskID, State: strings.TrimPrefix(i.State.String(), "TASK_"), Version: i.Version, Since: i.Staged, Health: "unknown"}
	if h := i.Health(); h != nil {
		out.Health = "unhealthy"
		if *h {
			out.Health = "healthy"
		}
	}
	if host, port := i.Address(0); host != "" {
		out.Address = host + ":" + strconv.Itoa(port)
	} else if len(i.Addresses) > 0 {
		out.Address = i.Addresses[0]
	}
	return out
}
