package server

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// metrics returns all metrics by Mesos' names. Readers ask for exact names, so
// what is never counted here is there, as 0.
func (s *Server) metrics(snap *master.Snapshot) map[string]float64 {
	m := make(metricSet, len(zeroMetrics)+64)
	for _, name := range zeroMetrics {
		m[name] = 0
	}
	s.selfMetrics(m)
	clusterMetrics(m, snap)
	allocatorMetrics(m, snap)
	taskMetrics(m, snap)
	s.messageMetrics(m, snap)
	for _, list := range [][]master.FrameworkView{snap.Frameworks, snap.Completed} {
		for i := range list {
			s.frameworkMetrics(m, &list[i])
		}
	}
	s.tally.forget(len(snap.Frameworks)+len(snap.Completed)+spareTallies, func(id string) bool {
		_, known := s.registry.caller(id)
		return known || slices.ContainsFunc(snap.Completed, func(f master.FrameworkView) bool { return f.ID == id })
	})
	systemMetrics(m)
	return m
}

type metricSet map[string]float64

func (m metricSet) set(name string, v uint64) { m[name] = float64(v) }

func (s *Server) writeMetrics(j *jsonWriter, q *query) {
	all := s.metrics(q.whole)
	j.object(func() {
		for _, name := range sortedKeys(all) {
			j.key(name)
			j.buf = mesosjson.AppendFloat(j.buf, all[name])
		}
	})
}

func (s *Server) selfMetrics(m metricSet) {
	m["master/uptime_secs"] = time.Since(s.started).Seconds()
	if m["master/elected"] = 0; s.leads() {
		m["master/elected"] = 1
	}
	m["master/operator_event_stream_subscribers"] = float64(s.tally.observers.Load())
	m["master/dropped_messages"] = float64(s.tally.dropped.Load())
	m["registrar/log/recovered"] = 1
	m["registrar/log/ensemble_size"] = 1
}

func clusterMetrics(m metricSet, snap *master.Snapshot) {
	for i := range snap.Agents {
		if snap.Agents[i].Connected {
			m["master/slaves_connected"]++
		} else {
			m["master/slaves_disconnected"]++
		}
		if snap.Agents[i].Active() {
			m["master/slaves_active"]++
		} else {
			m["master/slaves_inactive"]++
		}
	}
	m["master/slaves_unreachable"] = float64(snap.Unreachable)
	for i := range snap.Frameworks {
		if snap.Frameworks[i].Connected {
			m["master/frameworks_connected"]++
		} else {
			m["master/frameworks_disconnected"]++
		}
		if snap.Frameworks[i].Active {
			m["master/frameworks_active"]++
		} else {
			m["master/frameworks_inactive"]++
		}
		m["master/outstanding_offers"] += float64(len(snap.Frameworks[i].Offers))
	}
	for _, name := range []string{"cpus", "gpus", "mem", "disk"} {
		total, used := snap.Total.Get(name).Float(), snap.Used.Get(name).Float()
		m["master/"+name+"_total"], m["master/"+name+"_used"] = total, used
		if total > 0 {
			m["master/"+name+"_percent"] = used / total
		}
	}
}

func allocatorMetrics(m metricSet, snap *master.Snapshot) {
	m.set("allocator/mesos/allocation_runs", snap.Count.AllocationRounds)
	m.set("allocator/mesos/allocation_run_ms/count", snap.Count.AllocationRounds)
	m.set("allocator/mesos/allocation_run_latency_ms/count", snap.Count.AllocationRounds)
	for _, name := range []string{"cpus", "mem", "disk"} {
		m["allocator/mesos/resources/"+name+"/total"] = snap.Total.Get(name).Float()
		m["allocator/mesos/resources/"+name+"/offered_or_allocated"] = (snap.Used.Get(name) + snap.Offered.Get(name)).Float()
	}
	for i := range snap.Roles {
		r := &snap.Roles[i]
		m["allocator/mesos/roles/"+r.Name+"/shares/dominant"] = dominant(r.Allocated, snap.Total)
		m["allocator/mesos/offer_filters/roles/"+r.Name+"/active"] = 0
		for _, x := range r.Allocated {
			m["allocator/mesos/quota/roles/"+r.Name+"/resources/"+x.Name+"/offered_or_allocated"] = x.Amount.Float()
		}
	}
}

func dominant(has, total resources.Scalars) (share float64) {
	for _, x := range has {
		if all := total.Get(x.Name); all > 0 {
			share = max(share, float64(x.Amount)/float64(all))
		}
	}
	return share
}

// The states of tasks that are there, and of those that have ended.
var (
	liveStates  = []task.State{task.Staging, task.Starting, task.Running, task.Killing, task.Unreachable}
	endedStates = []task.State{
		task.Finished, task.Failed, task.Killed, task.Lost, task.Error, task.Dropped, task.Gone, task.GoneByOperator,
	}
)

// metricState turns TASK_RUNNING into running.
func metricState(s task.State) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_"))
}

func taskMetrics(m metricSet, snap *master.Snapshot) {
	for i := range snap.Frameworks {
		for _, t := range snap.Frameworks[i].Tasks {
			if !t.State.Terminal() {
				m["master/tasks_"+metricState(t.State)]++
			}
		}
		m["master/tasks_unreachable"] += float64(len(snap.Frameworks[i].Unreachable))
	}
	for _, s := range endedStates {
		m.set("master/tasks_"+metricState(s), snap.Count.Ended[s])
	}
}

func (s *Server) messageMetrics(m metricSet, snap *master.Snapshot) {
	c := &snap.Count
	for name, v := range map[string]uint64{
		"slave_registrations": c.AgentRegistrations, "slave_reregistrations": c.AgentReregistrations, "slave_removals": c.AgentRemovals,
		"slave_unreachable_completed": c.AgentsUnreachable, "slave_unreachable_scheduled": c.AgentsUnreachable,
		"messages_status_update": c.StatusUpdates, "invalid_status_updates": c.InvalidStatusUpdates,
		"valid_status_updates":                   c.StatusUpdates - c.InvalidStatusUpdates,
		"valid_status_update_acknowledgements":   c.Acknowledgements,
		"messages_register_slave":                s.tally.messages[messageRegister].Load(),
		"messages_reregister_slave":              s.tally.messages[messageReregister].Load(),
		"messages_unregister_slave":              s.tally.messages[messageUnregister].Load(),
		"messages_update_slave":                  s.tally.messages[messageUpdateAgent].Load(),
		"messages_exited_executor":               s.tally.messages[messageExitedExecutor].Load(),
		"messages_executor_to_framework":         s.tally.messages[messageExecutor].Load(),
		"messages_authenticate":                  s.tally.messages[messageAuthenticate].Load(),
		"messages_register_framework":            s.called(schedulerv1.Call_SUBSCRIBE),
		"messages_unregister_framework":          s.called(schedulerv1.Call_TEARDOWN),
		"messages_launch_tasks":                  s.called(schedulerv1.Call_ACCEPT),
		"messages_decline_offers":                s.called(schedulerv1.Call_DECLINE),
		"messages_revive_offers":                 s.called(schedulerv1.Call_REVIVE),
		"messages_suppress_offers":               s.called(schedulerv1.Call_SUPPRESS),
		"messages_kill_task":                     s.called(schedulerv1.Call_KILL),
		"messages_reconcile_tasks":               s.called(schedulerv1.Call_RECONCILE),
		"messages_reconcile_operations":          s.called(schedulerv1.Call_RECONCILE_OPERATIONS),
		"messages_resource_request":              s.called(schedulerv1.Call_REQUEST),
		"messages_framework_to_executor":         s.called(schedulerv1.Call_MESSAGE),
		"messages_status_update_acknowledgement": s.called(schedulerv1.Call_ACKNOWLEDGE),
	} {
		m.set("master/"+name, v)
	}
}

func (s *Server) called(k schedulerv1.Call_Type) uint64 { return s.tally.calls[k].Load() }

// frameworkMetrics are below master/frameworks/<escaped name>/<id>.
func (s *Server) frameworkMetrics(m metricSet, f *master.FrameworkView) {
	prefix := "master/frameworks/" + url.PathEscape(f.Name) + "/" + f.ID + "/"
	m[prefix+"subscribed"] = 0
	if f.Connected {
		m[prefix+"subscribed"] = 1
	}
	tally := s.tally.framework(f.ID)
	tally.add(m, prefix)
	if f.Principal != "" && f.Removed.IsZero() {
		m["frameworks/"+f.Principal+"/messages_received"] += float64(tally.received.Load())
		m["frameworks/"+f.Principal+"/messages_processed"] += float64(tally.processed.Load())
	}
	for _, role := range f.Roles {
		m[prefix+"roles/"+role+"/suppressed"] = 0
	}
	for _, role := range f.Suppressed {
		m[prefix+"roles/"+role+"/suppressed"] = 1
	}
	for _, st := range append(liveStates, task.Unknown) {
		m[prefix+"tasks/active/task_"+metricState(st)] = 0
	}
	for _, st := range endedStates {
		m[prefix+"tasks/terminal/task_"+metricState(st)] = 0
	}
	for _, t := range f.Tasks {
		if !t.State.Terminal() {
			m[prefix+"tasks/active/task_"+metricState(t.State)]++
		}
	}
	for _, t := range f.Done {
		m[prefix+"tasks/terminal/task_"+metricState(t.State)]++
	}
	m[prefix+"tasks/active/task_unreachable"] = float64(len(f.Unreachable))
}

// add writes the counters of one framework.
func (t *frameworkTally) add(m metricSet, prefix string) {
	for k, name := range schedulerv1.Call_Type_name {
		if k == 0 {
			continue
		}
		n := float64(t.calls[k].Load())
		m[prefix+"calls/"+strings.ToLower(name)] = n
		m[prefix+"calls"] += n
	}
	for k, name := range schedulerv1.Event_Type_name {
		if k == 0 {
			continue
		}
		n := float64(t.events[k].Load())
		m[prefix+"events/"+strings.ToLower(name)] = n
		m[prefix+"events"] += n
	}
	m[prefix+"offers/sent"] = float64(t.offersSent.Load())
	m[prefix+"offers/accepted"] = float64(t.offersAccepted.Load())
	m[prefix+"offers/declined"] = float64(t.offersDeclined.Load())
	m[prefix+"offers/rescinded"] = float64(t.events[schedulerv1.Event_RESCIND].Load())
	for _, op := range operations {
		m[prefix+"operations/"+op] = 0
	}
	m[prefix+"operations/launch"] = float64(t.launches.Load())
	m[prefix+"operations"] = float64(t.launches.Load())
}

var operations = []string{
	"create", "create_disk", "destroy", "destroy_disk", "grow_volume", "launch", "launch_group", "reserve", "shrink_volume", "unreserve",
}

// systemMetrics reads what the kernel says; elsewhere they stay 0.
func systemMetrics(m metricSet) {
	m["system/cpus_total"] = float64(runtime.NumCPU())
	load, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		for i, text := range strings.Fields(string(load))[:3] {
			m["system/load_"+[]string{"1min", "5min", "15min"}[i]], _ = strconv.ParseFloat(text, 64)
		}
	}
	memory, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(memory)) {
		f := strings.Fields(line)
		if name, ok := map[string]string{"MemTotal:": "system/mem_total_bytes", "MemFree:": "system/mem_free_bytes"}[f[0]]; ok {
			kib, _ := strconv.ParseFloat(f[1], 64)
			m[name] = kib * 1024
		}
	}
}

// prometheus serves the figures that one watches, in Prometheus' form.
func (s *Server) prometheus() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{s: s})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// collector makes metrics of a snapshot whenever it is asked.
type collector struct{ s *Server }

var (
	descAgents     = prometheus.NewDesc("mesopool_master_agents", "Agents by state.", []string{"state"}, nil)
	descFrameworks = prometheus.NewDesc("mesopool_master_frameworks", "Frameworks by state.", []string{"state"}, nil)
	descTasks      = prometheus.NewDesc("mesopool_master_tasks", "Tasks that have not ended, by state.", []string{"state"}, nil)
	descEnded      = prometheus.NewDesc("mesopool_master_tasks_ended_total", "Tasks that have ended, by their last state.", []string{"state"}, nil)
	descResources  = prometheus.NewDesc("mesopool_master_resources", "Amounts by resource and use.", []string{"resource", "use"}, nil)
	descOffers     = prometheus.NewDesc("mesopool_master_offers_total", "Offers by what became of them.", []string{"outcome"}, nil)
	descOpen       = prometheus.NewDesc("mesopool_master_offers_outstanding", "Offers that wait for an answer.", nil, nil)
	descUpdates    = prometheus.NewDesc("mesopool_master_status_updates_total", "Status updates of agents.", nil, nil)
	descAcks       = prometheus.NewDesc("mesopool_master_acknowledgements_total", "Acknowledgements of frameworks.", nil, nil)
	descRounds     = prometheus.NewDesc("mesopool_master_allocation_rounds_total", "Rounds of offers.", nil, nil)
	descDropped    = prometheus.NewDesc("mesopool_master_dropped_messages_total", "Messages of agents that were not valid.", nil, nil)
)

// Describe is part of prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descAgents, descFrameworks, descTasks, descEnded, descResources, descOffers, descOpen, descUpdates, descAcks, descRounds, descDropped,
	} {
		to <- d
	}
}

// scrapeTime bounds how long a scrape waits for the loop.
const scrapeTime = 5 * time.Second

// Collect is part of prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	snap, err := c.s.Snapshot(ctx)
	if err != nil {
		return
	}
	m := metricSet{}
	clusterMetrics(m, snap)
	taskMetrics(m, snap)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descAgents, m["master/slaves_connected"], "connected")
	gauge(descAgents, m["master/slaves_disconnected"], "disconnected")
	gauge(descAgents, m["master/slaves_unreachable"], "unreachable")
	gauge(descFrameworks, m["master/frameworks_connected"], "connected")
	gauge(descFrameworks, m["master/frameworks_disconnected"], "disconnected")
	for _, st := range liveStates {
		gauge(descTasks, m["master/tasks_"+metricState(st)], metricState(st))
	}
	for _, st := range endedStates {
		counter(descEnded, snap.Count.Ended[st], metricState(st))
	}
	for _, x := range snap.Total {
		gauge(descResources, x.Amount.Float(), x.Name, "total")
		gauge(descResources, snap.Used.Get(x.Name).Float(), x.Name, "used")
		gauge(descResources, snap.Offered.Get(x.Name).Float(), x.Name, "offered")
	}
	gauge(descOpen, m["master/outstanding_offers"])
	c.counters(counter, &snap.Count)
}

func (c *collector) counters(counter func(*prometheus.Desc, uint64, ...string), n *master.Counters) {
	counter(descOffers, n.OffersSent, "sent")
	counter(descOffers, n.OffersAccepted, "accepted")
	counter(descOffers, n.OffersDeclined, "declined")
	counter(descOffers, n.OffersRescinded, "rescinded")
	counter(descUpdates, n.StatusUpdates)
	counter(descAcks, n.Acknowledgements)
	counter(descRounds, n.AllocationRounds)
	counter(descDropped, c.s.tally.dropped.Load())
}
