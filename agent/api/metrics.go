package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	agentv1 "github.com/mesopool/mesopool/mesos/v1/agent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// zeroMetrics are names that consumers look up without asking whether they are
// there (mesos_exporter, slave.go).
var zeroMetrics = []string{
	"slave/recovery_errors", "slave/recovery_time_secs", "slave/tasks_staging", "slave/tasks_starting", "slave/tasks_running", "slave/tasks_killing",
	"slave/tasks_finished", "slave/tasks_failed", "slave/tasks_killed", "slave/tasks_lost", "slave/tasks_gone", "slave/tasks_error", "slave/executors_registering",
	"slave/executors_running", "slave/executors_terminating", "slave/executors_terminated", "slave/executors_preempted",
	"slave/valid_status_updates", "slave/invalid_status_updates", "slave/valid_framework_messages", "slave/invalid_framework_messages",
	"slave/executor_directory_max_allowed_age_secs", "slave/container_launch_errors", "slave/registered",
	"containerizer/fetcher/task_fetches_failed", "containerizer/fetcher/task_fetches_succeeded", "containerizer/mesos/container_destroy_errors",
	"containerizer/fetcher/cache_size_total_bytes", "containerizer/fetcher/cache_size_used_bytes", "containerizer/mesos/disk/project_ids_free",
	"containerizer/mesos/disk/project_ids_total", "containerizer/mesos/filesystem/containers_new_rootfs",
	"containerizer/mesos/provisioner/bind/remove_rootfs_errors", "containerizer/mesos/provisioner/remove_container_errors",
	"gc/path_removals_failed", "gc/path_removals_pending", "gc/path_removals_succeeded",
	"mesopool/containers_kept", "mesopool/orphans",
}

func stateMetric(s task.State) string {
	return "slave/tasks_" + strings.ToLower(strings.TrimPrefix(s.String(), "TASK_"))
}

// snapshot is all that is measured.
func (a *api) snapshot(roster agent.Roster) map[string]float64 {
	out := map[string]float64{}
	for _, name := range zeroMetrics {
		out[name] = 0
	}
	out["slave/uptime_secs"], out["slave/frameworks_active"] = time.Since(a.cfg.Started).Seconds(), float64(len(roster.Frameworks))
	out["mesopool/containers_kept"], out["gc/path_removals_pending"] = float64(roster.Kept), float64(roster.Kept)
	out["mesopool/orphans"], out["mesopool/tasks_ending"] = float64(roster.Orphans), float64(roster.Ending)
	if _, registered := a.cfg.Master(); registered {
		out["slave/registered"] = 1
	}
	for s, n := range roster.Ended {
		if n > 0 {
			out[stateMetric(task.State(s))] += float64(n)
		}
	}
	for i := range roster.Tasks {
		if s := roster.Tasks[i].State; !s.Terminal() {
			out[stateMetric(s)]++
		}
	}
	out["slave/executors_running"] = out["slave/tasks_running"] + out["slave/tasks_killing"]
	total, busy := a.cfg.Total(), used(roster)
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		t, u := total.Amount(name).Float(), busy.Amount(name).Float()
		out["slave/"+name+"_total"], out["slave/"+name+"_used"], out["slave/"+name+"_percent"] = t, u, 0
		for _, suffix := range []string{"_revocable_total", "_revocable_used", "_revocable_percent"} {
			out["slave/"+name+suffix] = 0
		}
		if t > 0 {
			out["slave/"+name+"_percent"] = u / t
		}
	}
	for why, n := range roster.Refused {
		out["mesopool/tasks_refused/"+strings.ToLower(strings.TrimPrefix(string(why), "REASON_"))] = float64(n)
		if why == task.ReasonContainerLaunchFailed {
			out["slave/container_launch_errors"] = float64(n)
		}
	}
	if a.cfg.Refused != nil {
		for kind, n := range a.cfg.Refused() {
			out["mesopool/refused/"+strings.ReplaceAll(kind, " ", "_")] = float64(n)
		}
	}
	return out
}

func (a *api) metrics(w http.ResponseWriter, r *http.Request) {
	if roster, ok := a.roster(w, r); ok {
		a.answer(w, r, a.snapshot(roster))
	}
}

// prometheus serves the same numbers to Prometheus.
func (a *api) prometheus() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{a})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// collector measures whenever it is asked.
type collector struct{ a *api }

var metricDesc = prometheus.NewDesc("mesopool_agent", "A number of /metrics/snapshot, by its name there.", []string{"name"}, nil)

// Describe is part of prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) { to <- metricDesc }

// Collect is part of prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	roster, err := c.a.cfg.Runner.Roster(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(metricDesc, err)
		return
	}
	for name, v := range c.a.snapshot(roster) {
		to <- prometheus.MustNewConstMetric(metricDesc, prometheus.GaugeValue, v, name)
	}
}

// measured is every task that has a container, with what it uses.
func (a *api) measured(ctx context.Context, roster agent.Roster) []*agentv1.Response_GetContainers_Container {
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	var out []*agentv1.Response_GetContainers_Container
	var wait sync.WaitGroup
	for i := range roster.Tasks {
		t := &roster.Tasks[i]
		if t.Container.ID == "" || t.State.Terminal() {
			continue
		}
		x := &agentv1.Response_GetContainers_Container{
			FrameworkId: &mesosv1.FrameworkID{Value: &t.Spec.Key.Framework}, ExecutorId: &mesosv1.ExecutorID{Value: &t.Spec.Key.ID},
			ExecutorName: &t.Spec.Name, ContainerId: &mesosv1.ContainerID{Value: &t.Container.ID}, ContainerStatus: containerStatus(t),
			ResourceStatistics: limitsOf(t),
		}
		out = append(out, x)
		if a.meter.statser == nil {
			continue
		}
		wait.Go(func() {
			if s, err := a.meter.stats(ctx, t.Container.ID); err == nil {
				measure(x.ResourceStatistics, &s)
			}
		})
	}
	wait.Wait()
	return out
}

func containerStatus(t *agent.Task) *mesosv1.ContainerStatus {
	s := task.Status{Container: &task.ContainerStatus{
		ID: t.Container.ID, Addresses: t.Container.Addresses, Network: t.Container.Network, Ports: t.Container.Ports, PublishIP: t.Container.PublishIP,
	}}
	return convert.TaskStatus(t.Spec.Key.ID, "", &s).ContainerStatus
}

func limitsOf(t *agent.Task) *mesosv1.ResourceStatistics {
	cpus := cmp.Or(t.Spec.Limits.Get("cpus"), t.Spec.Resources.Amount("cpus"))
	mem := cmp.Or(t.Spec.Limits.Get("mem"), t.Spec.Resources.Amount("mem"))
	return &mesosv1.ResourceStatistics{
		Timestamp: new(convert.Seconds(time.Now())), CpusLimit: new(cpus.Float()), MemLimitBytes: new(uint64(mem) << 20 / 1000),
	}
}

func measure(out *mesosv1.ResourceStatistics, s *provider.Stats) {
	if !s.Time.IsZero() {
		out.Timestamp = new(convert.Seconds(s.Time))
	}
	if s.UserCPU+s.SystemCPU > 0 { // else nobody knows: what runs has used some
		out.CpusUserTimeSecs, out.CpusSystemTimeSecs = new(s.UserCPU.Seconds()), new(s.SystemCPU.Seconds())
	}
	if s.MemUsed > 0 {
		out.MemRssBytes, out.MemCacheBytes, out.MemTotalBytes = &s.MemUsed, &s.MemCached, new(s.MemUsed+s.MemCached)
	}
	out.CpusNrPeriods, out.CpusNrThrottled, out.CpusThrottledTimeSecs, out.Processes = &s.Periods, &s.Waited, new(s.Throttled.Seconds()), &s.Processes
	if s.MemLimit > 0 {
		out.MemLimitBytes = &s.MemLimit
	}
	out.NetRxBytes, out.NetRxPackets, out.NetRxErrors, out.NetRxDropped = &s.NetReceive.Bytes, &s.NetReceive.Packets, &s.NetReceive.Errors, &s.NetReceive.Dropped
	out.NetTxBytes, out.NetTxPackets, out.NetTxErrors, out.NetTxDropped = &s.NetSend.Bytes, &s.NetSend.Packets, &s.NetSend.Errors, &s.NetSend.Dropped
}

// containers is /containers (slave/http.cpp, __containers); ?container_id=
// selects one.
func (a *api) containers(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	if id := r.FormValue("container_id"); id != "" {
		roster.Tasks = slices.DeleteFunc(slices.Clone(roster.Tasks), func(t agent.Task) bool { return t.Container.ID != id })
	}
	out := []any{}
	for _, x := range a.measured(r.Context(), roster) {
		out = append(out, map[string]any{
			"framework_id": x.FrameworkId.GetValue(), "executor_id": x.ExecutorId.GetValue(), "executor_name": x.GetExecutorName(),
			"source": x.ExecutorId.GetValue(), "container_id": x.ContainerId.GetValue(), "status": message(x.ContainerStatus), "statistics": message(x.ResourceStatistics),
		})
	}
	a.answer(w, r, out)
}

// statistics is /monitor/statistics (slave/http.cpp, Http::statistics).
func (a *api) statistics(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	roster.Tasks = asked(r, roster.Tasks)
	out := []any{}
	for _, x := range a.measured(r.Context(), roster) {
		out = append(out, map[string]any{
			"framework_id": x.FrameworkId.GetValue(), "executor_id": x.ExecutorId.GetValue(), "executor_name": x.GetExecutorName(),
			"source": x.ExecutorId.GetValue(), "statistics": message(x.ResourceStatistics),
		})
	}
	a.answer(w, r, out)
}
