package lead

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/store"
)

// inParts, as the flags of a key, says that its value is a reference.
const inParts = 1

// mostCommit bounds what a journal is to hold, as JSON.
const mostCommit = 1 << 30

// reference is a value that is kept in the keys Key/parts/ID/0 and so on.
type reference struct {
	ID    string `json:"id"`
	Parts int    `json:"parts"`
	Bytes int    `json:"bytes"` // of the whole value
}

// parseReference refuses what could not have been written.
func parseReference(text []byte) (reference, error) {
	var r reference
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("it is in parts, and where they are cannot be read: %w", err)
	}
	if r.ID == "" || strings.Contains(r.ID, "/") || r.Bytes < 0 || r.Bytes > mostCommit || r.Parts != (r.Bytes+mostValue-1)/mostValue {
		return r, fmt.Errorf("it is in parts, and %.200q does not say where", text)
	}
	return r, nil
}

func (s *Store) part(id string, n int) string { return fmt.Sprintf("%s/parts/%s/%06d", s.key, id, n) }

func (s *Store) journal() string { return s.key + "/journal" }

// scatter writes a value in parts, each in a transaction of its own. Nothing
// refers to them yet.
func (s *Store) scatter(ctx context.Context, value []byte) (reference, error) {
	ref := reference{ID: uuid.New().String(), Bytes: len(value)}
	for ; len(value) > 0; ref.Parts++ {
		n := min(len(value), mostValue)
		if err := s.write(ctx, api.TxnOps{s.set(s.part(ref.ID, ref.Parts), value[:n], 0)}); err != nil {
			return ref, err
		}
		value = value[n:]
	}
	return ref, nil
}

// gather reads what was scattered.
func (s *Store) gather(ctx context.Context, ref reference) ([]byte, error) {
	out := make([]byte, 0, ref.Bytes)
	for n := range ref.Parts {
		pair, err := s.read(ctx, s.part(ref.ID, n))
		if err != nil {
			return nil, err
		}
		if pair == nil {
			return nil, fmt.Errorf("part %d of %d is missing: %s", n+1, ref.Parts, s.part(ref.ID, n))
		}
		out = append(out, pair.Value...)
	}
	if len(out) != ref.Bytes {
		return nil, fmt.Errorf("it has %d bytes and should have %d", len(out), ref.Bytes)
	}
	return out, nil
}

// forget removes the parts of a value that nothing refers to any more.
func (s *Store) forget(ctx context.Context, ref reference) error {
	var writes api.TxnOps
	for n := range ref.Parts {
		writes = append(writes, s.remove(s.part(ref.ID, n)))
	}
	return s.inPieces(ctx, writes)
}

// inPieces makes as many transactions as it takes.
func (s *Store) inPieces(ctx context.Context, writes api.TxnOps) error {
	for len(writes) > 0 {
		n, size := 0, 0
		for n < min(len(writes), mostOps) && (n == 0 || size+weight(writes[n]) <= mostBytes) {
			size += weight(writes[n])
			n++
		}
		if err := s.write(ctx, writes[:n]); err != nil {
			return err
		}
		writes = writes[n:]
	}
	return nil
}

// journaled makes a commit of any size: it holds from when the journal's key is
// written, whatever happens then.
func (s *Store) journaled(ctx context.Context, ops []store.Op) error {
	text, err := encodeJournal(ops)
	if err != nil {
		return err
	}
	ref, err := s.scatter(ctx, text)
	if err != nil {
		return err
	}
	note, err := json.Marshal(ref)
	if err != nil {
		return err
	}
	if s.broken = s.write(ctx, api.TxnOps{s.set(s.journal(), note, inParts)}); s.broken == nil {
		s.broken = s.carryOut(ctx, ops, ref)
	}
	return s.broken
}

// carryOut does what a journal says, and removes it. Doing it twice is doing it
// once.
func (s *Store) carryOut(ctx context.Context, ops []store.Op, journal reference) error {
	var writes api.TxnOps
	var old []reference
	now := map[string]reference{}
	for _, op := range ops {
		if ref, was := s.large[op.Key]; was {
			old = append(old, ref)
			delete(s.large, op.Key)
		}
		if ref, again := now[op.Key]; again {
			old = append(old, ref)
			delete(now, op.Key)
		}
		if len(op.Value) <= mostValue {
			writes = append(writes, s.plain(op))
			continue
		}
		ref, err := s.scatter(ctx, op.Value)
		if err != nil {
			return err
		}
		note, err := json.Marshal(ref)
		if err != nil {
			return err
		}
		now[op.Key] = ref
		writes = append(writes, s.set(s.state(op.Key), note, inParts))
	}
	if err := s.inPieces(ctx, append(writes, s.remove(s.journal()))); err != nil {
		return err
	}
	for key, ref := range now {
		s.large[key] = ref
	}
	for _, ref := range append(old, journal) {
		if err := s.forget(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// tidy carries out the journal of an earlier leader, and removes the parts that
// nothing refers to.
func (s *Store) tidy(ctx context.Context) error {
	pair, err := s.read(ctx, s.journal())
	if err != nil {
		return err
	}
	if err := s.findLarge(ctx); err != nil || pair == nil {
		return err
	}
	ref, err := parseReference(pair.Value)
	if err != nil {
		return fmt.Errorf("the journal: %w", err)
	}
	text, err := s.gather(ctx, ref)
	if err != nil {
		return fmt.Errorf("the journal: %w", err)
	}
	ops, err := decodeJournal(text)
	if err != nil {
		return err
	}
	s.term.session.log.Info("a commit of the last leader is carried out", "changes", len(ops))
	if err := s.carryOut(ctx, ops, ref); err != nil {
		return err
	}
	return s.findLarge(ctx)
}

// findLarge learns which values are in parts, and removes the parts of no value
// and of no journal. Most of the time there are none.
func (s *Store) findLarge(ctx context.Context) error {
	prefix := s.key + "/parts/"
	var names []string
	err := s.persist(ctx, listTime, func(ctx context.Context) (err error) {
		o := &api.QueryOptions{RequireConsistent: true}
		names, _, err = s.client.KV().Keys(prefix, "", o.WithContext(ctx))
		return understood(err)
	})
	if err != nil || len(names) == 0 {
		return err
	}
	used, err := s.referred(ctx)
	if err != nil {
		return err
	}
	var writes api.TxnOps
	for _, name := range names {
		id, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "/")
		if !used[id] {
			writes = append(writes, s.remove(name))
		}
	}
	return s.inPieces(ctx, writes)
}

// referred are the IDs of all parts that something refers to.
func (s *Store) referred(ctx context.Context) (map[string]bool, error) {
	pairs, err := s.list(ctx, s.state(""))
	if err != nil {
		return nil, err
	}
	journal, err := s.read(ctx, s.journal())
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	if journal != nil {
		pairs = append(pairs, journal)
	}
	clear(s.large)
	for _, p := range pairs {
		if p.Flags != inParts {
			continue
		}
		ref, err := parseReference(p.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Key, err)
		}
		used[ref.ID] = true
		if p != journal {
			s.large[strings.TrimPrefix(p.Key, s.state(""))] = ref
		}
	}
	return used, nil
}

// change is an operation in a journal; no value deletes.
type change struct {
	Key   string  `json:"key"`
	Value *[]byte `json:"value,omitempty"`
}

func encodeJournal(ops []store.Op) ([]byte, error) {
	changes := make([]change, len(ops))
	for i, op := range ops {
		changes[i].Key = op.Key
		if op.Value != nil {
			changes[i].Value = &ops[i].Value
		}
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	text := &counter{w: z}
	if err := json.NewEncoder(text).Encode(changes); err != nil {
		return nil, err
	}
	if text.n > mostCommit {
		return nil, fmt.Errorf("a change of %d bytes is too large; at most %d are possible at once", text.n, mostCommit)
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return c.w.Write(p)
}

func decodeJournal(text []byte) ([]store.Op, error) {
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("the journal cannot be read: %w", err)
	}
	d := json.NewDecoder(io.LimitReader(z, mostCommit))
	var changes []change
	if err := d.Decode(&changes); err != nil {
		return nil, fmt.Errorf("the journal cannot be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the journal cannot be read: there is more than it should hold")
	}
	ops := make([]store.Op, len(changes))
	for i, c := range changes {
		ops[i].Key = c.Key
		if c.Value != nil {
			ops[i].Value = *c.Value
		}
	}
	return ops, nil
}
