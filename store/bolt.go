package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bolt keeps everything in one bbolt file. The layout: one bucket "kv" whose
// values are 8 bytes of big-endian version, then the value. The versions come
// from the bucket's sequence, so they grow over the life of the file.
type Bolt struct {
	db *bbolt.DB
}

var bucketName = []byte("kv")

// OpenBolt opens or creates the file. Only one process can have it open; a
// second one is told so after a second.
func OpenBolt(path string) (*Bolt, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("store: %s is in use by another process; stop that one or choose another --work-dir", path)
	}
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: prepare %s: %w", path, err), db.Close())
	}
	return &Bolt{db: db}, nil
}

// Get implements Store.
func (b *Bolt) Get(_ context.Context, key string) (Entry, error) {
	var e Entry
	err := b.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketName).Get([]byte(key))
		if v == nil {
			return ErrNotFound
		}
		e = decodeEntry([]byte(key), v)
		return nil
	})
	return e, err
}

// List implements Store.
func (b *Bolt) List(_ context.Context, prefix string) ([]Entry, error) {
	var out []Entry
	err := b.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		p := []byte(prefix)
		for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
			out = append(out, decodeEntry(k, v))
		}
		return nil
	})
	return out, err
}

// Commit implements Store; it returns after the data is on disk.
func (b *Bolt) Commit(_ context.Context, ops []Op) error {
	if len(ops) == 0 {
		return nil
	}
	err := b.db.Update(func(tx *bbolt.Tx) error {
		kv := tx.Bucket(bucketName)
		for _, op := range ops {
			if op.If != nil && boltVersion(kv, op.Key) != *op.If {
				return ErrConflict
			}
		}
		for _, op := range ops {
			if err := boltWrite(kv, op); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("store: write %s: %w", b.db.Path(), err)
	}
	return err
}

func boltVersion(kv *bbolt.Bucket, key string) uint64 {
	v := kv.Get([]byte(key))
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func boltWrite(kv *bbolt.Bucket, op Op) error {
	if op.Value == nil {
		return kv.Delete([]byte(op.Key))
	}
	version, err := kv.NextSequence()
	if err != nil {
		return err
	}
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(op.Value)), version)
	return kv.Put([]byte(op.Key), append(v, op.Value...))
}

func decodeEntry(k, v []byte) Entry {
	return Entry{Key: string(k), Value: slices.Clone(v[8:]), Version: binary.BigEndian.Uint64(v)}
}

// Close implements Store.
func (b *Bolt) Close() error { return b.db.Close() }
