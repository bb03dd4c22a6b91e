package lead

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/store"
)

// Term is the time in which this process leads.
type Term struct {
	election *Election
	session  *session
	resign   func()
}

// Check returns nil while this process surely leads, else why it does not. It
// asks nobody: it is what to look at before anything that cannot be taken back.
func (t *Term) Check() error { return t.session.check() }

// Resign ends the term; another process may lead then.
func (t *Term) Resign() { t.resign() }

// What Consul takes in one transaction by itself (txn_endpoint.go, convertOps):
// so many operations (older ones 64), and a body of 512 KiB, in which values are
// base64.
const (
	mostOps   = 60
	mostBytes = 448 << 10
	// mostValue is the largest value that is kept in one key.
	mostValue = 300 << 10
)

// callTime bounds a call but for lists, which have listTime.
const (
	callTime = 5 * time.Second
	listTime = time.Minute
)

// Store is a store.Store in Consul's key–value store, which only its term can
// write to. Calls are repeated while Consul does not answer and the term lasts.
//
// A commit that fits into one transaction is one. A larger one is written as a
// journal first, which holds as a whole with its last key, and then carried out
// piece by piece: by the next leader, if this one does not live so long. Versions
// are compared before: nobody else can write meanwhile. A version does not grow
// when a value is replaced by the same one.
type Store struct {
	term   *Term
	client *api.Client
	key    string // Config.Key
	lock   string

	mu     sync.Mutex
	large  map[string]reference // values that are kept in parts, by key
	broken error                // of a commit that may hold in part: the next one to open the store completes it
}

// Store opens what leaders have kept, and carries out what the last one has begun.
func (t *Term) Store(ctx context.Context) (store.Store, error) {
	e := t.election
	s := &Store{term: t, client: e.client, key: e.cfg.Key, lock: e.lock(), large: map[string]reference{}}
	if err := s.tidy(ctx); err != nil {
		return nil, fmt.Errorf("lead: open the state in Consul at %s: %w", s.key, err)
	}
	return s, nil
}

func (s *Store) state(key string) string { return s.key + "/state/" + key }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(ctx, key)
}

func (s *Store) get(ctx context.Context, key string) (store.Entry, error) {
	pair, err := s.read(ctx, s.state(key))
	if err != nil {
		return store.Entry{}, fmt.Errorf("lead: read %s from Consul: %w", key, err)
	}
	if pair == nil {
		return store.Entry{}, store.ErrNotFound
	}
	return s.entry(ctx, pair)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pairs, err := s.list(ctx, s.state(prefix))
	if err != nil {
		return nil, fmt.Errorf("lead: list %s in Consul: %w", prefix, err)
	}
	out := make([]store.Entry, len(pairs))
	for i, p := range pairs {
		if out[i], err = s.entry(ctx, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// entry reads what a pair stands for.
func (s *Store) entry(ctx context.Context, p *api.KVPair) (store.Entry, error) {
	e := store.Entry{Key: strings.TrimPrefix(p.Key, s.state("")), Value: p.Value, Version: p.ModifyIndex}
	if p.Flags != inParts {
		return e, nil
	}
	ref, err := parseReference(p.Value)
	if err == nil {
		e.Value, err = s.gather(ctx, ref)
	}
	if err != nil {
		return e, fmt.Errorf("lead: the value of %s in Consul: %w", e.Key, err)
	}
	return e, nil
}

// Commit implements store.Store. It fails with ErrDeposed when this process does
// not lead; an answer that was lost makes no difference, as writing the same
// again changes nothing.
func (s *Store) Commit(ctx context.Context, ops []store.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return fmt.Errorf("lead: an earlier change was not completed: %w", s.broken)
	}
	if err := s.compare(ctx, ops); err != nil {
		return err
	}
	var err error
	if writes, fits := s.inOne(ops); fits {
		err = s.write(ctx, writes)
	} else {
		err = s.journaled(ctx, ops)
	}
	if err != nil {
		return fmt.Errorf("lead: write to Consul: %w", err)
	}
	return nil
}

// Close implements store.Store; there is nothing to release.
func (s *Store) Close() error { return nil }

// compare looks whether the versions are those that were expected.
func (s *Store) compare(ctx context.Context, ops []store.Op) error {
	for _, op := range ops {
		if op.If == nil {
			continue
		}
		e, err := s.get(ctx, op.Key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if e.Version != *op.If {
			return store.ErrConflict
		}
	}
	return nil
}

// inOne is a commit as one transaction, if it fits into one and neither writes
// nor replaces a value in parts.
func (s *Store) inOne(ops []store.Op) (api.TxnOps, bool) {
	size := 0
	writes := make(api.TxnOps, 0, len(ops))
	for _, op := range ops {
		if _, large := s.large[op.Key]; large || len(op.Value) > mostValue {
			return nil, false
		}
		w := s.plain(op)
		size += weight(w)
		writes = append(writes, w)
	}
	return writes, len(writes) <= mostOps && size <= mostBytes
}

// plain is an operation whose value is kept in its key.
func (s *Store) plain(op store.Op) *api.TxnOp {
	if op.Value == nil {
		return s.remove(s.state(op.Key))
	}
	return s.set(s.state(op.Key), op.Value, 0)
}

func (s *Store) set(key string, value []byte, flags uint64) *api.TxnOp {
	return &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVSet, Key: key, Value: value, Flags: flags}}
}

func (s *Store) remove(key string) *api.TxnOp {
	return &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: key}}
}

// weight is more than an operation's part of a transaction's body.
func weight(op *api.TxnOp) int { return 300 + 2*len(op.KV.Key) + len(op.KV.Value)*4/3 }

// write makes one transaction of at most mostOps operations and mostBytes, that
// only the holder of the lock can make.
func (s *Store) write(ctx context.Context, writes api.TxnOps) error {
	if len(writes) == 0 {
		return nil
	}
	fence := &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVCheckSession, Key: s.lock, Session: s.term.session.id}}
	all := append(api.TxnOps{fence}, writes...)
	return s.persist(ctx, callTime, func(ctx context.Context) error {
		ok, answer, _, err := s.client.Txn().Txn(all, new(api.QueryOptions).WithContext(ctx))
		switch {
		case err != nil && refused(err.Error()):
			return final{err}
		case err != nil || ok:
			return err
		}
		return s.rolledBack(answer.Errors)
	})
}

// rolledBack says why a transaction did not hold: the fence, most likely.
func (s *Store) rolledBack(why api.TxnErrors) error {
	for _, w := range why {
		if w.OpIndex == 0 && !refused(w.What) {
			s.term.session.end(errTaken)
			return final{fmt.Errorf("%w (%s)", errTaken, w.What)}
		}
	}
	if len(why) == 0 {
		return final{errors.New("the transaction was rolled back")}
	}
	return final{errors.New(why[0].What)}
}

// refused says whether Consul would say the same again. The client has no code
// for this: only the words are left of the answer.
func refused(words string) bool {
	for _, w := range []string{"too large", "too many operations", "Permission denied", "ACL not found", "Failed to parse"} {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}

// final is an error after which nothing is tried again.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// persist tries until it works, or what went wrong is final, or the term or ctx
// ends.
func (s *Store) persist(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, done := both(ctx, s.term.session)
	defer done(nil)
	pause := 20 * time.Millisecond
	for {
		if err := s.term.Check(); err != nil {
			return err
		}
		c, cancel := context.WithTimeout(ctx, limit)
		err := try(c)
		cancel()
		if err == nil || errors.As(err, &final{}) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (%v)", context.Cause(ctx), err)
		}
		s.term.session.log.Warn("Consul does not do what it is asked; trying again", "error", err)
		wait(ctx, pause)
		pause = min(2*pause, time.Second)
	}
}

// read returns nil for a key that is not there.
func (s *Store) read(ctx context.Context, key string) (pair *api.KVPair, err error) {
	err = s.persist(ctx, callTime, func(ctx context.Context) error {
		o := &api.QueryOptions{RequireConsistent: true}
		var err error
		pair, _, err = s.client.KV().Get(key, o.WithContext(ctx))
		return understood(err)
	})
	return pair, err
}

func (s *Store) list(ctx context.Context, prefix string) (pairs api.KVPairs, err error) {
	err = s.persist(ctx, listTime, func(ctx context.Context) error {
		o := &api.QueryOptions{RequireConsistent: true}
		var err error
		pairs, _, err = s.client.KV().List(prefix, o.WithContext(ctx))
		return understood(err)
	})
	return pairs, err
}

func understood(err error) error {
	if err != nil && refused(err.Error()) {
		return final{err}
	}
	return err
}
