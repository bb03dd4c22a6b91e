package lead

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// fault is what happens to a call.
type fault int

const (
	well   fault = iota
	broken       // Consul does not get it
	lost         // Consul does it, and its answer is lost
	hangs        // nobody says anything
)

var errLost = errors.New("connection reset")

// fake is a Consul as far as elections need one. It is a transport, so that it
// works in virtual time.
type fake struct {
	mu       sync.Mutex
	index    uint64
	sessions map[string]*fakeSession
	pairs    map[string]*api.KVPair
	delayed  map[string]time.Time // locks that nobody gets before
	changed  chan struct{}
	calls    []string
	fault    func(call string) fault
	mostOps  int
	mostBody int
}

type fakeSession struct {
	ttl, delay time.Duration
	timer      *time.Timer
}

func newFake() *fake {
	return &fake{
		sessions: map[string]*fakeSession{}, pairs: map[string]*api.KVPair{}, delayed: map[string]time.Time{},
		changed: make(chan struct{}), mostOps: 64, mostBody: 512 << 10,
	}
}

func (f *fake) client() *http.Client { return &http.Client{Transport: f} }

// set changes which calls go wrong; nil: none.
func (f *fake) set(fault func(call string) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// once lets the next call of a kind go wrong.
func once(kind string, what fault) func(string) fault {
	done := false
	return func(call string) fault {
		if call != kind || done {
			return well
		}
		done = true
		return what
	}
}

func kindOf(r *http.Request) string {
	q := r.URL.Query()
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/v1/session/"):
		return strings.Split(path, "/")[3]
	case path == "/v1/txn":
		return "txn"
	case q.Has("acquire"):
		return "acquire"
	case q.Has("release"):
		return "release"
	case q.Has("keys"):
		return "keys"
	case q.Has("recurse"):
		return "list"
	}
	return "get"
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	kind := kindOf(r)
	f.mu.Lock()
	f.calls = append(f.calls, kind)
	what := well
	if f.fault != nil {
		what = f.fault(kind)
	}
	f.mu.Unlock()
	switch what {
	case broken:
		return nil, errLost
	case hangs:
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	code, header, text := f.answer(r.Context(), kind, r, body)
	switch {
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	case what == lost:
		return nil, errLost
	}
	resp := &http.Response{StatusCode: code, Status: http.StatusText(code), Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(text)), Request: r}
	for k, v := range header {
		resp.Header.Set(k, v)
	}
	return resp, nil
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

func (f *fake) answer(ctx context.Context, kind string, r *http.Request, body []byte) (int, map[string]string, []byte) {
	q := r.URL.Query()
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	key := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	switch kind {
	case "create":
		return f.create(body)
	case "renew":
		s := f.sessions[id]
		if s == nil {
			return 404, nil, nil
		}
		s.timer.Reset(2 * s.ttl)
		return 200, nil, encode([]api.SessionEntry{{ID: id, TTL: s.ttl.String()}})
	case "destroy":
		f.invalidate(id)
		return 200, nil, []byte("true")
	case "acquire":
		return 200, nil, []byte(strconv.FormatBool(f.acquire(key, q.Get("acquire"), body)))
	case "release":
		return 200, nil, []byte(strconv.FormatBool(f.release(key, q.Get("release"))))
	case "txn":
		return f.txn(body)
	case "keys", "list":
		return f.list(kind, key)
	}
	return f.get(ctx, key, q.Get("index"), q.Get("wait"))
}

func (f *fake) create(body []byte) (int, map[string]string, []byte) {
	var in struct{ TTL, LockDelay string }
	if err := json.Unmarshal(body, &in); err != nil {
		return 400, nil, []byte(err.Error())
	}
	f.index++
	id := fmt.Sprint("session-", f.index)
	s := &fakeSession{}
	s.ttl, _ = time.ParseDuration(in.TTL)
	s.delay, _ = time.ParseDuration(in.LockDelay)
	s.timer = time.AfterFunc(2*s.ttl, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.invalidate(id)
	})
	f.sessions[id] = s
	return 200, nil, encode(map[string]string{"ID": id})
}

// invalidate ends a session; its locks have their delay.
func (f *fake) invalidate(id string) {
	s := f.sessions[id]
	if s == nil {
		return
	}
	s.timer.Stop()
	delete(f.sessions, id)
	for key, p := range f.pairs {
		if p.Session == id {
			f.delayed[key] = time.Now().Add(s.delay)
			f.write(&api.KVPair{Key: key, Value: p.Value})
		}
	}
}

func (f *fake) write(p *api.KVPair) {
	f.index++
	p.ModifyIndex = f.index
	f.pairs[p.Key] = p
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) acquire(key, session string, value []byte) bool {
	held := ""
	if p := f.pairs[key]; p != nil {
		held = p.Session
	}
	if f.sessions[session] == nil || held != "" && held != session || time.Now().Before(f.delayed[key]) {
		return false
	}
	f.write(&api.KVPair{Key: key, Value: value, Session: session})
	return true
}

func (f *fake) release(key, session string) bool {
	p := f.pairs[key]
	if p == nil || p.Session != session {
		return false
	}
	f.write(&api.KVPair{Key: key, Value: p.Value})
	return true
}

func (f *fake) txn(body []byte) (int, map[string]string, []byte) {
	var ops api.TxnOps
	if len(body) > f.mostBody {
		return 413, nil, []byte("Request body too large")
	}
	if err := json.Unmarshal(body, &ops); err != nil || len(ops) > f.mostOps {
		return 413, nil, []byte("Transaction contains too many operations")
	}
	for i, op := range ops {
		if p := f.pairs[op.KV.Key]; op.KV.Verb == api.KVCheckSession && (p == nil || p.Session != op.KV.Session) {
			return 409, nil, encode(api.TxnResponse{Errors: api.TxnErrors{{OpIndex: i, What: "failed session check"}}})
		}
	}
	for _, op := range ops {
		switch op.KV.Verb {
		case api.KVSet:
			f.write(&api.KVPair{Key: op.KV.Key, Value: op.KV.Value, Flags: op.KV.Flags})
		case api.KVDelete:
			f.index++
			delete(f.pairs, op.KV.Key)
		}
	}
	return 200, nil, encode(api.TxnResponse{})
}

func (f *fake) below(prefix string) (out []*api.KVPair) {
	for _, key := range slices.Sorted(maps.Keys(f.pairs)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, f.pairs[key])
		}
	}
	return out
}

func (f *fake) list(kind, prefix string) (int, map[string]string, []byte) {
	all := f.below(prefix)
	if len(all) == 0 {
		return 404, nil, nil
	}
	if kind == "list" {
		return 200, nil, encode(all)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Key)
	}
	return 200, nil, encode(names)
}

// get waits, if it is asked to, until the key has changed. The lock is held.
func (f *fake) get(ctx context.Context, key, index, patience string) (int, map[string]string, []byte) {
	after, _ := strconv.ParseUint(index, 10, 64)
	limit, _ := time.ParseDuration(patience)
	over := time.NewTimer(limit)
	defer over.Stop()
	for waits := after > 0; waits && f.indexOf(key) <= after; {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-over.C:
			waits = false
		case <-ctx.Done():
			waits = false
		}
		f.mu.Lock()
	}
	header := map[string]string{"X-Consul-Index": strconv.FormatUint(max(1, f.indexOf(key)), 10)}
	p := f.pairs[key]
	if p == nil {
		return 404, header, nil
	}
	return 200, header, encode([]*api.KVPair{p})
}

func (f *fake) indexOf(key string) uint64 {
	if p := f.pairs[key]; p != nil {
		return p.ModifyIndex
	}
	return f.index
}

// at gives what the fake holds to look.
func (f *fake) at(look func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	look()
}
