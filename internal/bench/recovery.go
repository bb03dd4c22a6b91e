package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// Recovery is what a restart of the agent with all tasks running has shown.
type Recovery struct {
	Took    time.Duration `json:"took_ns"`        // from the agent's start to its re-registration
	Pings   int           `json:"pings"`          // that were answered meanwhile, one at a time
	Ping    time.Duration `json:"worst_ping_ns"`  // the longest wait for an answer
	PerTask int64         `json:"bytes_per_task"` // live memory that the agent's life has added, all of it
	Spec    int64         `json:"spec_bytes"`     // of that, the description of a task
}

// restartAgent ends the agent and begins another life of it. It returns when
// the master has taken it back with all its tasks.
func (c *cluster) restartAgent(ctx context.Context, tasks int) (r Recovery, err error) {
	c.agent.stop()
	<-c.agent.done
	c.agent = nil
	before, err := counters(ctx, c.master)
	if err != nil {
		return r, err
	}
	if r.Spec, err = described(ctx, c.store, tasks); err != nil {
		return r, err
	}
	empty := live()
	begin := time.Now()
	if err := c.startAgent(); err != nil {
		return r, err
	}
	p := &pinger{agent: c.agent.self}
	pings := make(chan error, 1)
	pctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { pings <- p.run(pctx) }()
	err = untilCounted(ctx, c.master, func(n master.Counters) bool { return n.AgentReregistrations > before.AgentReregistrations })
	r.Took = time.Since(begin)
	stop()
	err = errors.Join(err, <-pings)
	r.Pings, r.Ping = p.answered, p.worst
	r.PerTask = (int64(live()) - int64(empty)) / int64(max(1, tasks))
	return r, err
}

// described is what the specifications in the agent's store take in memory, by
// task.
func described(ctx context.Context, s store.Store, tasks int) (int64, error) {
	rows, err := s.List(ctx, "agent/spec/")
	if err != nil {
		return 0, err
	}
	specs := make([]task.Spec, len(rows))
	empty := live() - uint64(len(specs))*uint64(unsafe.Sizeof(task.Spec{}))
	for i, row := range rows {
		if err := json.Unmarshal(row.Value, &specs[i]); err != nil {
			return 0, err
		}
	}
	sum := live() - empty
	runtime.KeepAlive(rows)
	runtime.KeepAlive(specs)
	return int64(sum) / int64(max(1, tasks)), nil
}

// live is what is reachable. Twice, because finalizers keep some things for one
// round.
func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// pinger asks an agent for a sign of life, as a master's observer does, again
// and again.
type pinger struct {
	agent    libprocess.UPID
	answered int
	worst    time.Duration
}

const (
	pingEvery = 5 * time.Millisecond  // after an answer
	pingAgain = 20 * time.Millisecond // without one
)

func (p *pinger) run(ctx context.Context) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node := libprocess.NewNode(libprocess.Config{Listener: l})
	nctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- node.Run(nctx) }()
	node.Link(p.agent)
	for n := 0; ctx.Err() == nil; n++ {
		p.ping(ctx, node, fmt.Sprintf("slave-observer(%d)", n))
		pause(ctx, pingEvery)
	}
	stop()
	return <-done
}

// ping waits for one answer. What is on its way when the measurement ends
// counts as long as it has taken.
func (p *pinger) ping(ctx context.Context, node *libprocess.Node, actor string) {
	pong := make(chan struct{})
	once := sync.OnceFunc(func() { close(pong) })
	node.Handle(actor, func(libprocess.Message) { once() })
	defer node.Unhandle(actor)
	begin := time.Now()
	defer func() { p.worst = max(p.worst, time.Since(begin)) }()
	for {
		// The message can be encoded.
		_ = node.SendProto(actor, p.agent, &messages.PingSlaveMessage{Connected: new(true)})
		select {
		case <-pong:
			p.answered++
			return
		case <-ctx.Done():
			return
		case <-time.After(pingAgain):
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
