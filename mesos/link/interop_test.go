package link

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// The tests called Test10A_… are the list of what a genuine master insists on
// (facts/mesos-protocol.md §10A), one for each number.

// raw writes a request to the agent's port and returns the answer's status line.
func raw(t *testing.T, conn net.Conn, r *bufio.Reader, request string) *http.Response {
	t.Helper()
	if _, err := conn.Write([]byte(strings.ReplaceAll(request, "\n", "\r\n"))); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func Test10A_01_TakesMessagesAtItsAddressAndNeverHangsUp(t *testing.T) {
	e := registered(t)
	conn, err := net.Dial("tcp", e.link.cfg.Self.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	from := "master@" + e.master.upid().Addr.String()
	for i := range 3 {
		bodiless := raw(t, conn, r, "POST /slave(1)/mesos.internal.PongSlaveMessage HTTP/1.1\nUser-Agent: libprocess/"+from+"\nLibprocess-From: "+from+"\nConnection: Keep-Alive\nHost: x\n\n")
		ping, err := proto.Marshal(&messages.PingSlaveMessage{Connected: new(true)})
		if err != nil {
			t.Fatal(err)
		}
		chunk := fmt.Sprintf("%x\n%s\n0\n\n", len(ping), ping)
		chunked := raw(t, conn, r, "POST /slave%281%29/mesos.internal.PingSlaveMessage HTTP/1.1\nLibprocess-From: "+from+"\nTransfer-Encoding: chunked\nHost: x\n\n"+chunk)
		for what, a := range map[string]*http.Response{"without a body": bodiless, "with a chunk": chunked} {
			if a.StatusCode != http.StatusAccepted || a.Close {
				t.Errorf("round %d, %s: %s, close %v", i, what, a.Status, a.Close)
			}
		}
		e.pong()
	}
}

func Test10A_02_StaysWhoItIs(t *testing.T) {
	e := registered(t)
	before := e.link.cfg.Self
	e.stop()
	e.start() // at another port
	m, from := expect(e.master, &messages.ReregisterSlaveMessage{})
	if e.link.cfg.Self.Addr.Port() == before.Addr.Port() {
		t.Skip("the kernel gave the same port again")
	}
	if from.From != e.link.cfg.Self || from.From.ID != before.ID || from.From.Addr.Addr() != before.Addr.Addr() {
		t.Errorf("sent by %v, before by %v", from.From, before)
	}
	if m.Slave.GetHostname() != "dc-1.example" || m.Slave.GetId().GetValue() != agentID || m.Slave.GetPort() != int32(e.link.cfg.Self.Addr.Port()) {
		t.Errorf("registers again as %v", m.Slave)
	}
}

var semver = regexp.MustCompile(`^[1-9]\d*\.\d+\.\d+$`)

func Test10A_03_RegistersWithAllThatIsAskedFor(t *testing.T) {
	e := newEnv(t)
	e.start()
	m, _ := expect(e.master, &messages.RegisterSlaveMessage{})
	s := m.Slave
	if s.Id != nil || s.GetHostname() == "" || s.GetPort() == 0 || !s.GetCheckpoint() || !semver.MatchString(m.GetVersion()) ||
		len(m.GetResourceVersionUuid().GetValue()) != 16 || len(m.AgentCapabilities) == 0 {
		t.Errorf("registration: %v", m)
	}
	if total, err := convert.Resources(s.Resources); err != nil || total.Amount("cpus") != 4000 {
		t.Errorf("resources %v: %v", total, err)
	}
	expect(e.master, &messages.RegisterSlaveMessage{}) // again, as nobody has answered
	for range 3 {
		e.admit(75)
	}
	if e.link.AgentID() != agentID {
		t.Errorf("the ID is %q", e.link.AgentID())
	}
}

func Test10A_04_HasNoDomainUnlessToldSo(t *testing.T) {
	e := newEnv(t)
	e.start()
	if m, _ := expect(e.master, &messages.RegisterSlaveMessage{}); m.Slave.Domain != nil {
		t.Errorf("domain %v", m.Slave.Domain)
	}
}

func Test10A_05_AnswersPingsAndComesBack(t *testing.T) {
	e := registered(t)
	for i := range 500 { // busy
		e.send(runTask(fmt.Sprintf("t%d", i)))
	}
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(true)})
	if _, to := expect(e.master, &messages.PongSlaveMessage{}); to.To != "slave-observer(1)" {
		t.Errorf("the answer went to %s", to.To)
	}
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	input[agent.Parted](e)
	e.readmit()
	address := e.master.upid().Addr.String()
	e.master.stop() // the connection breaks
	input[agent.Parted](e)
	e.lead(newMaster(t, address))
	e.readmit()
	e.master.stop()
	input[agent.Parted](e)
	e.lead(newMaster(t, "127.0.0.1:0")) // another leader
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id, Connection: &messages.MasterSlaveConnection{TotalPingTimeoutSeconds: new(0.1)}})
	input[agent.Joined](e)
	input[agent.Parted](e) // silence
	e.readmit()
}

func Test10A_07_ListsWhatItRunsAsMastersWantIt(t *testing.T) {
	e := registered(t)
	e.setRoster(roster(t))
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	validate(t, m)
	if len(m.Tasks) != 4 {
		t.Errorf("%d tasks", len(m.Tasks))
	}
}

func Test10A_10_AnswersForWhatItDoesNotHave(t *testing.T) {
	for _, aware := range []bool{true, false} {
		l := newLive(t)
		l.join()
		f := frameworkInfo()
		want := mesosv1.TaskState_TASK_DROPPED
		if !aware {
			f.Capabilities, want = nil, mesosv1.TaskState_TASK_LOST
		}
		l.master.node.SendProto("slave-observer(1)", l.link.cfg.Self, &messages.PingSlaveMessage{Connected: new(false)})
		m, _ := expect(l.master, &messages.ReregisterSlaveMessage{})
		l.tell(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id, Reconciliations: []*messages.ReconcileTasksMessage{{
			FrameworkId: frameworkID, Framework: f, Statuses: []*mesosv1.TaskStatus{{TaskId: taskID("x"), State: mesosv1.TaskState_TASK_RUNNING.Enum()}},
		}}})
		s := l.update(want).Status
		if s.GetReason() != mesosv1.TaskStatus_REASON_RECONCILIATION || s.GetSource() != mesosv1.TaskStatus_SOURCE_AGENT {
			t.Errorf("reconciliation: %v", s)
		}
		l.tell(&messages.KillTaskMessage{FrameworkId: frameworkID, TaskId: taskID("unknown")})
		if s := l.update(want).Status; s.GetReason() != mesosv1.TaskStatus_REASON_EXECUTOR_TERMINATED {
			t.Errorf("kill of an unknown task: %v", s)
		}
		l.stop()
	}
}

func Test10A_11_TakesItsOrders(t *testing.T) {
	l := newLive(t)
	l.join()
	l.tell(runTask("t", withImage))
	first := l.update(mesosv1.TaskState_TASK_STARTING)
	l.tell(&messages.UpdateFrameworkMessage{FrameworkId: frameworkID, Pid: new("@0.0.0.0:0"), FrameworkInfo: frameworkInfo()})
	again, _ := expect(l.master, &messages.StatusUpdateMessage{}) // at once, not after 10 s
	diff(t, "the update sent again", first.Uuid, again.Update.Uuid)
	l.acknowledge(first)
	l.acknowledge(l.update(mesosv1.TaskState_TASK_RUNNING))
	l.tell(&messages.DrainSlaveMessage{Config: &mesosv1.DrainConfig{MaxGracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(0))}}})
	l.tell(runTask("late", withImage))
	for range 2 {
		m, _ := expect(l.master, &messages.StatusUpdateMessage{})
		if s := m.Update.Status; s.GetTaskId().GetValue() == "late" && (s.GetState() != mesosv1.TaskState_TASK_DROPPED || s.GetReason() != mesosv1.TaskStatus_REASON_AGENT_DRAINING) {
			t.Errorf("a launch while draining: %v", s)
		}
		l.acknowledge(m.Update)
	}
	l.acknowledge(l.update(mesosv1.TaskState_TASK_KILLED))
	l.settled(0)
	l.tell(runTask("u", withImage))
	l.acknowledge(l.update(mesosv1.TaskState_TASK_STARTING))
	l.acknowledge(l.update(mesosv1.TaskState_TASK_RUNNING))
	l.tell(&messages.ShutdownFrameworkMessage{FrameworkId: frameworkID})
	l.settled(0)
	l.tell(&messages.PingSlaveMessage{Connected: new(true)})
	for silent := true; silent; { // nothing was said of the framework's end
		select {
		case m := <-l.master.inbox:
			if m.Name == "mesos.internal.StatusUpdateMessage" {
				t.Errorf("an update for a framework that is gone")
			}
			silent = m.Name != "mesos.internal.PongSlaveMessage"
		case <-time.After(limit):
			t.Fatal("no answer to a ping")
		}
	}
}

func Test10A_12_AuthenticatesFromAnActorOfItsOwn(t *testing.T) {
	e := withCredential(t, "secret")
	e.start()
	in, from := expect(e.master, &messages.AuthenticateMessage{})
	if from.From.ID == e.link.cfg.Self.ID || from.From.Addr != e.link.cfg.Self.Addr || in.GetPid() != e.link.cfg.Self.String() {
		t.Errorf("sent by %v for %s", from.From, in.GetPid())
	}
	if err := e.master.node.SendProto("master", from.From, &messages.AuthenticationErrorMessage{Error: new("busy")}); err != nil {
		t.Fatal(err)
	}
	e.authenticate()
	expect(e.master, &messages.RegisterSlaveMessage{}) // only then
	e.admit(75)
}

func Test10A_13_TotalsStayWithinWhatMastersCanCount(t *testing.T) {
	huge := resources.NewScalar("mem", resources.Whole(mostAmount))
	for what, x := range map[string]struct {
		total resources.Resources
		want  string
	}{
		"the most":      {huge, ""},
		"one more":      {resources.NewScalar("mem", resources.Whole(mostAmount)+1), "mem"},
		"in two halves": {huge.Add(resources.Resource{Name: "mem", Scalar: 1, Reservations: []resources.Reservation{{Role: "db"}}}), "mem"},
	} {
		if err := CheckTotal(x.total); x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	odd, err := resources.Parse("cpus:4.00049;mem:0.0625")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range convert.ResourcesTo(odd, convert.Role) {
		if v := x.GetScalar().GetValue() * 1000; v != math.Round(v) {
			t.Errorf("%v has more than three decimals", x)
		}
	}
}

// live is a link with a whole agent behind it, over a simulated data center.
type live struct {
	t      *testing.T
	master *fakeMaster
	link   *Link
	runner *agent.Runner
	store  store.Store
	done   chan error
	stop   func()
	seen   map[string]bool // updates by UUID
}

func withImage(m *messages.RunTaskMessage) {
	m.Task.Command.Value = new("sleep infinity")
	m.Task.Container = &mesosv1.ContainerInfo{
		Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("web:1"), Network: mesosv1.ContainerInfo_DockerInfo_BRIDGE.Enum()},
	}
}

func newLive(t *testing.T, tune ...func(*Config)) *live {
	t.Helper()
	l := &live{t: t, master: newMaster(t, "127.0.0.1:0"), store: store.NewMemory(), seen: map[string]bool{}}
	l.start(tune...)
	return l
}

func (l *live) start(tune ...func(*Config)) {
	l.t.Helper()
	core := agent.DefaultConfig()
	core.Owner, core.NewUUID = task.Owner{Cluster: "mesos", Agent: "dc-1"}, uuid.New
	l.runner = agent.NewRunner(agent.Options{Core: core, Provider: memory.New(memory.Config{}), Store: l.store, Log: quiet, Workers: 4, Probes: 1})
	node := libprocess.NewNode(libprocess.Config{Listener: listen(l.t, "127.0.0.1:0"), Exited: func(u libprocess.UPID) { l.link.Exited(u) }})
	total, err := resources.Parse("cpus:4;mem:1024;disk:1000")
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := Config{
		Node: node, Self: node.UPID("slave(1)"), Hostname: "dc-1.example", Resources: total, Version: "1.11.0", Store: l.store, Backoff: 20 * time.Millisecond, Log: quiet,
		Master: func(context.Context) (libprocess.UPID, error) { return l.master.upid(), nil },
	}
	for _, f := range tune {
		f(&cfg)
	}
	l.link = New(cfg)
	stopNode := background(l.t, node.Run)
	stopRunner := background(l.t, func(ctx context.Context) error { return l.runner.Run(ctx, l.link) })
	ctx, cancel := context.WithCancel(context.Background())
	l.done = make(chan error, 1)
	ended := make(chan struct{})
	go func() { defer close(ended); l.done <- l.link.Run(ctx, l.runner) }()
	stopped := false
	l.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-ended
		stopRunner()
		stopNode()
	}
	l.t.Cleanup(l.stop)
}

func (l *live) tell(m proto.Message) {
	l.t.Helper()
	if err := l.master.node.SendProto("master", l.link.cfg.Self, m); err != nil {
		l.t.Fatal(err)
	}
}

func (l *live) join() {
	l.t.Helper()
	expect(l.master, &messages.RegisterSlaveMessage{})
	l.tell(&messages.SlaveRegisteredMessage{SlaveId: &mesosv1.AgentID{Value: new(agentID)}})
}

// update returns the next update that was not seen before; its state must be
// the wanted one.
func (l *live) update(want mesosv1.TaskState) *messages.StatusUpdate {
	l.t.Helper()
	for {
		m, _ := expect(l.master, &messages.StatusUpdateMessage{})
		if l.seen[string(m.Update.Uuid)] {
			continue
		}
		l.seen[string(m.Update.Uuid)] = true
		if got := m.Update.Status.GetState(); got != want {
			l.t.Fatalf("update %v, want %v: %v", got, want, m.Update.Status)
		}
		return m.Update
	}
}

func (l *live) acknowledge(u *messages.StatusUpdate) {
	l.t.Helper()
	l.seen[string(u.Uuid)] = true
	l.tell(&messages.StatusUpdateAcknowledgementMessage{SlaveId: u.SlaveId, FrameworkId: u.FrameworkId, TaskId: u.Status.TaskId, Uuid: u.Uuid})
}

// settled waits until the agent has so many tasks.
func (l *live) settled(tasks int) {
	l.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		r, err := l.runner.Roster(l.t.Context())
		if err != nil || time.Now().After(end) {
			l.t.Fatalf("%d tasks, error %v", len(r.Tasks), err)
		}
		if len(r.Tasks) == tasks {
			return
		}
	}
}

func Test10A_08_UpdatesUntilAcknowledged(t *testing.T) {
	l := newLive(t)
	l.join()
	l.tell(runTask("t", withImage, func(m *messages.RunTaskMessage) { m.Task.Command.Value = new("sleep 0.05; exit 3") }))
	for _, want := range []mesosv1.TaskState{mesosv1.TaskState_TASK_STARTING, mesosv1.TaskState_TASK_RUNNING, mesosv1.TaskState_TASK_FAILED} {
		m, _ := expect(l.master, &messages.StatusUpdateMessage{})
		u := m.Update
		if m.GetPid() != l.link.cfg.Self.String() || len(u.Uuid) != 16 || string(u.Status.Uuid) != string(u.Uuid) || u.LatestState == nil {
			t.Errorf("update: %v", m)
		}
		if u.Status.GetState() != want || u.Status.GetContainerStatus().GetContainerId().GetValue() == "" {
			t.Fatalf("update %v, want %v", u.Status, want)
		}
		stale := proto.CloneOf(u)
		stale.Uuid = []byte("another one's id")
		l.acknowledge(stale) // changes nothing
		l.tell(&messages.UpdateFrameworkMessage{FrameworkId: frameworkID, FrameworkInfo: frameworkInfo()})
		again, _ := expect(l.master, &messages.StatusUpdateMessage{})
		diff(t, "the one that is outstanding", u.Uuid, again.Update.Uuid)
		l.acknowledge(u)
	}
	l.settled(0)
}

// A master as it was recorded: its own bytes admit the agent, run a task and
// acknowledge, but for what names us.
func TestRecordedMaster(t *testing.T) {
	admitted := captured(t, "ns-docker.pcap", "SlaveRegisteredMessage")
	tasks := captured(t, "ns-docker.pcap", "RunTaskMessage")
	acks := captured(t, "ns-docker.pcap", "StatusUpdateAcknowledgementMessage")
	if len(admitted) == 0 || len(tasks) == 0 || len(acks) == 0 {
		t.Fatalf("the capture has %d admissions, %d tasks, %d acknowledgements", len(admitted), len(tasks), len(acks))
	}
	l := newLive(t)
	expect(l.master, &messages.RegisterSlaveMessage{})
	send := func(m proto.Message, body []byte) {
		l.master.node.Send("master", l.link.cfg.Self, string(m.ProtoReflect().Descriptor().FullName()), body)
	}
	send(&messages.SlaveRegisteredMessage{}, admitted[0])
	send(&messages.RunTaskMessage{}, tasks[0])
	recorded := &messages.StatusUpdateAcknowledgementMessage{}
	if err := proto.Unmarshal(acks[0], recorded); err != nil {
		t.Fatal(err)
	}
	for _, want := range []mesosv1.TaskState{mesosv1.TaskState_TASK_STARTING, mesosv1.TaskState_TASK_RUNNING} {
		u := l.update(want)
		if u.GetSlaveId().GetValue() != recorded.SlaveId.GetValue() {
			t.Errorf("agent %s, recorded %s", u.GetSlaveId().GetValue(), recorded.SlaveId.GetValue())
		}
		ack := proto.CloneOf(recorded)
		ack.FrameworkId, ack.TaskId, ack.Uuid = u.FrameworkId, u.Status.TaskId, u.Uuid
		l.tell(ack)
	}
	for _, name := range []string{"KillTaskMessage", "ShutdownFrameworkMessage"} {
		for _, body := range captured(t, "ns-docker.pcap", name) {
			l.master.node.Send("master", l.link.cfg.Self, "mesos.internal."+name, body)
		}
	}
}

// A hundred thousand tasks fit into one registration, and a master that is
// killed and one that takes over get the same.
func Test10A_15_ManyTasksManyMasters(t *testing.T) {
	e := registered(t)
	r := roster(t)
	one := r.Tasks[1]
	r.Tasks = nil
	for i := range 100_000 {
		x := one
		spec := *one.Spec
		spec.Key.ID = fmt.Sprintf("t%d", i)
		info := &mesosv1.TaskInfo{}
		if err := proto.Unmarshal(one.Spec.Origin, info); err != nil {
			t.Fatal(err)
		}
		info.TaskId.Value = &spec.Key.ID
		spec.Origin, _ = proto.Marshal(info)
		x.Spec = &spec
		r.Tasks = append(r.Tasks, x)
	}
	e.setRoster(r)
	address := e.master.upid().Addr.String()
	for _, next := range []string{address, "127.0.0.1:0"} {
		e.master.stop()
		input[agent.Parted](e)
		e.lead(newMaster(t, next))
		e.master.limit = 2 * time.Minute // the race detector takes its time
		m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
		if len(m.Tasks) != len(r.Tasks) {
			t.Fatalf("%d tasks, want %d", len(m.Tasks), len(r.Tasks))
		}
		validate(t, m)
		r.Tasks = r.Tasks[:1000] // once is enough for so many
		e.setRoster(r)
		e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id})
		e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id}) // twice
		input[agent.Joined](e)
	}
}

// A stray order to end does not wipe a data center, unless that is wanted.
func Test10A_11_ShutdownPolicies(t *testing.T) {
	for name, x := range map[string]struct {
		policy ShutdownPolicy
		want   string // in the error; "" means that the agent goes on
		tasks  int
	}{
		"exit": {ShutdownExit, "left running", 1}, "ignore": {ShutdownIgnore, "", 1}, "kill": {ShutdownKill, "all its tasks were killed", 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLive(t, func(c *Config) { c.Shutdown = x.policy })
			l.join()
			l.tell(runTask("t", withImage))
			l.acknowledge(l.update(mesosv1.TaskState_TASK_STARTING))
			l.acknowledge(l.update(mesosv1.TaskState_TASK_RUNNING))
			if err := l.master.node.SendProto("impostor", l.link.cfg.Self, &messages.ShutdownMessage{}); err != nil {
				t.Fatal(err)
			}
			l.tell(&messages.ShutdownMessage{Message: new("gone")})
			if x.want == "" {
				l.tell(runTask("u", withImage))
				l.update(mesosv1.TaskState_TASK_STARTING)
				if n := l.link.Refused(); n["shutdown"] != 1 || n["not from the master"] != 1 {
					t.Errorf("refused %v", n)
				}
				return
			}
			select {
			case err := <-l.done:
				if err == nil || !strings.Contains(err.Error(), x.want) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(limit):
				t.Fatal("the agent goes on")
			}
			l.settled(x.tasks)
		})
	}
}
