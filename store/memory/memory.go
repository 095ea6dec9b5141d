// Package memory is a store in memory, for tests and for trying things out. It keeps nothing.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"gantry/store"
	"gantry/upload"
)

// Store is a map of objects. It is made by New and is safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	data []byte // never changed
	unix int64
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return &Store{objects: make(map[string]object)} }

// step is how much of a content is read between two looks at the context, bytes.
const step = 1 << 20

// Put copies the content.
func (s *Store) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	const op = "memory.Put"
	if key == "" {
		return upload.Errorf(upload.Invalid, op, "", "An object key is not empty.")
	}
	size := content.Size()
	var data bytes.Buffer
	for off := int64(0); off < size; off += step {
		if err := ctx.Err(); err != nil {
			return upload.Wrap(upload.Canceled, op, key, err)
		}
		length := min(step, size-off)
		n, err := io.Copy(&data, io.NewSectionReader(content, off, length))
		if err == nil && n < length {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return upload.Wrap(upload.Unavailable, op, key, err)
		}
		if opt.Progress != nil {
			opt.Progress(off + n)
		}
	}
	if err := ctx.Err(); err != nil {
		return upload.Wrap(upload.Canceled, op, key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = object{data.Bytes(), time.Now().Unix()}
	if opt.Progress != nil && size == 0 {
		opt.Progress(0)
	}
	return nil
}

func (s *Store) get(op, key string) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, upload.Errorf(upload.NotFound, op, key, "There is no such object.")
	}
	return o, nil
}

// Verify digests the bytes that are kept.
func (s *Store) Verify(_ context.Context, key string, want store.Digests) error {
	const op = "memory.Verify"
	o, err := s.get(op, key)
	if err != nil {
		return err
	}
	var tree upload.TreeHasher
	_, _ = tree.Write(o.data) // never fails
	got := store.Digests{Size: int64(len(o.data)), Root: tree.Root(), CRC32C: crc32.Checksum(o.data, upload.Castagnoli)}
	if want.Source, want.CRC64 = nil, nil; got != want {
		e := upload.Errorf(upload.DigestMismatch, op, key, "The object in the store has other bytes than were sent.")
		e.Want, e.Got = describe(want), describe(got)
		return e
	}
	return nil
}

func describe(d store.Digests) string {
	return fmt.Sprintf("%d bytes, root %s, crc32c %08x", d.Size, d.Root, d.CRC32C)
}

// Open reads from the object as it is now.
func (s *Store) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	const op = "memory.Open"
	o, err := s.get(op, key)
	if err != nil {
		return nil, err
	}
	rest := int64(len(o.data)) - offset
	if offset < 0 || rest < 0 || length < -1 {
		return nil, upload.Errorf(upload.BadRange, op, key, "The object has %d bytes.", len(o.data))
	}
	if length == -1 || length > rest {
		length = rest
	}
	return io.NopCloser(bytes.NewReader(o.data[offset : offset+length])), nil
}

// Size returns an object's length.
func (s *Store) Size(_ context.Context, key string) (int64, error) {
	o, err := s.get("memory.Size", key)
	return int64(len(o.data)), err
}

// Delete forgets an object.
func (s *Store) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

// List goes through the objects that are there when it begins.
func (s *Store) List(ctx context.Context) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		s.mu.Lock()
		objects := maps.Clone(s.objects)
		s.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if err := ctx.Err(); err != nil {
				yield(store.Object{}, upload.Wrap(upload.Canceled, "memory.List", "", err))
				return
			}
			o := objects[key]
			if !yield(store.Object{Key: key, Size: int64(len(o.data)), Unix: o.unix}, nil) {
				return
			}
		}
	}
}

// Clean has nothing to do: what a failed Put read is gone.
func (s *Store) Clean(context.Context) error { return nil }

// Alter replaces an object's bytes behind the store's back, as a failing disk does; for tests.
func (s *Store) Alter(key string, change func(data []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[key]
	o.data = change(bytes.Clone(o.data))
	s.objects[key] = o
}
