package multipart

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
	"sync"
	"time"

	"gantry/store"
	"gantry/upload"
)

// fault is what happens to one request.
type fault int

const (
	fine   fault = iota
	before       // it fails, and nothing was done
	after        // it was done, and the answer is lost
	damage       // the store refuses the body: it was damaged on the way
	faults       // how many there are
)

var errLost = upload.Errorf(upload.Unavailable, "fake", "", "The network is down.")

// fake is a server in memory, as strict as S3.
type fake struct {
	minPart  int
	maxParts int
	latency  time.Duration // of a body; in a synctest bubble it costs nothing
	// fault is asked before each request; what is its name and number, as "part 3".
	fault func(what string) fault

	mu       sync.Mutex
	objects  map[string][]byte
	uploads  map[string]*fakeUpload
	ids      int
	requests []string
	held     int // bytes of the bodies that are on their way, with what their buffers hold beyond
	most     int
}

type fakeUpload struct {
	key   string
	began time.Time
	parts map[int][]byte
}

func newFake() *fake {
	return &fake{minPart: 4, maxParts: 10, objects: map[string][]byte{}, uploads: map[string]*fakeUpload{}}
}

// request does what a request does, under the fault that is its lot.
func (f *fake) request(ctx context.Context, what string, body []byte, do func() error) error {
	f.mu.Lock()
	f.requests = append(f.requests, what)
	f.held += cap(body)
	f.most = max(f.most, f.held)
	f.mu.Unlock()
	var lot fault
	if f.fault != nil {
		lot = f.fault(what)
	}
	if body != nil && f.latency > 0 {
		select {
		case <-time.After(f.latency):
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held -= cap(body)
	if err := ctx.Err(); err != nil {
		return upload.Wrap(upload.Canceled, "fake", "", err)
	}
	switch {
	case lot == before:
		return errLost
	case lot == damage && body != nil:
		return upload.Errorf(upload.DigestMismatch, "fake", "", "The body was damaged.")
	}
	err := do()
	if err == nil && lot == after {
		err = errLost
	}
	return err
}

func etag(body []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(body, upload.Castagnoli)) }

var errNoUpload = upload.Errorf(upload.NotFound, "fake", "", "There is no such upload.")

func (f *fake) upload(key, id string) (*fakeUpload, error) {
	if u := f.uploads[id]; u != nil && u.key == key {
		return u, nil
	}
	return nil, errNoUpload
}

func (f *fake) PutObject(ctx context.Context, key string, body []byte) error {
	return f.request(ctx, "put", body, func() error {
		f.objects[key] = bytes.Clone(body)
		return nil
	})
}

func (f *fake) Create(ctx context.Context, key string) (id string, err error) {
	err = f.request(ctx, "create", nil, func() error {
		f.ids++
		id = fmt.Sprint("upload-", f.ids)
		f.uploads[id] = &fakeUpload{key, time.Now(), map[int][]byte{}}
		return nil
	})
	return id, err
}

func (f *fake) PutPart(ctx context.Context, key, id string, number int, body []byte) (part store.Part, err error) {
	err = f.request(ctx, fmt.Sprint("part ", number), body, func() error {
		u, err := f.upload(key, id)
		if err == nil {
			u.parts[number] = bytes.Clone(body)
			part.ETag = etag(body)
		}
		return err
	})
	return part, err
}

func (f *fake) Parts(ctx context.Context, key, id string) iter.Seq2[store.Part, error] {
	return func(yield func(store.Part, error) bool) {
		var all []store.Part
		err := f.request(ctx, "parts", nil, func() error {
			u, err := f.upload(key, id)
			if err == nil {
				for number, body := range u.parts {
					all = append(all, store.Part{Number: number, Size: int64(len(body)), ETag: etag(body)})
				}
			}
			return err
		})
		if err != nil {
			yield(store.Part{}, err)
			return
		}
		for _, part := range all {
			if !yield(part, nil) {
				return
			}
		}
	}
}

func (f *fake) Same(part store.Part, body []byte) bool { return part.ETag == etag(body) }

func (f *fake) Complete(ctx context.Context, key, id string, parts []store.Part) error {
	return f.request(ctx, "complete", nil, func() error {
		u, err := f.upload(key, id)
		if err != nil {
			return err
		}
		if len(parts) == 0 || len(parts) > f.maxParts || !slices.IsSortedFunc(parts, func(a, b store.Part) int { return cmp.Compare(a.Number, b.Number) }) {
			return upload.Errorf(upload.Invalid, "fake", "", "These are %d parts, or they are not in order.", len(parts))
		}
		var object []byte
		for i, part := range parts {
			body, there := u.parts[part.Number]
			if !there || etag(body) != part.ETag {
				return upload.Errorf(upload.Conflict, "fake", "", "Part %d is not there.", part.Number)
			}
			if len(body) < f.minPart && i < len(parts)-1 {
				return upload.Errorf(upload.Invalid, "fake", "", "Part %d is too small.", part.Number)
			}
			object = append(object, body...)
		}
		f.objects[key] = object
		delete(f.uploads, id)
		return nil
	})
}

func (f *fake) Abort(ctx context.Context, key, id string) error {
	return f.request(ctx, "abort", nil, func() error {
		if _, err := f.upload(key, id); err == nil {
			delete(f.uploads, id)
		}
		return nil
	})
}

func (f *fake) Uploads(ctx context.Context) iter.Seq2[Upload, error] {
	return func(yield func(Upload, error) bool) {
		var all []Upload
		err := f.request(ctx, "uploads", nil, func() error {
			for id, u := range f.uploads {
				all = append(all, Upload{u.key, id, u.began})
			}
			return nil
		})
		if err != nil {
			yield(Upload{}, err)
			return
		}
		for _, u := range all {
			if !yield(u, nil) {
				return
			}
		}
	}
}

func (f *fake) Size(ctx context.Context, key string) (size int64, err error) {
	err = f.request(ctx, "size", nil, func() error {
		object, there := f.objects[key]
		if !there {
			return upload.Errorf(upload.NotFound, "fake", key, "There is no such object.")
		}
		size = int64(len(object))
		return nil
	})
	return size, err
}

// count is how many requests of a kind there were, "part" for all parts.
func (f *fake) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if r == what || len(r) > len(what) && r[:len(what)+1] == what+" " {
			n++
		}
	}
	return n
}

// reporter is what *testing.T and *rapid.T have in common.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func (f *fake) expect(t reporter, key string, data []byte) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if object, there := f.objects[key]; !there || !bytes.Equal(object, data) {
		t.Fatalf("the object is %q (%v), want %q", object, there, data)
	}
}

// left fails the test if multipart uploads are.
func (f *fake) left(t reporter) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, u := range f.uploads {
		t.Errorf("%s of %s with %d parts is left", id, u.key, len(u.parts))
	}
}
