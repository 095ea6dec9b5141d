//go:build ceph

package rados

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"syscall"
	"time"

	ceph "github.com/ceph/go-ceph/rados"

	"gantry/store"
	"gantry/upload"
)

// put is one Put.
type put struct {
	*Store
	c       *cluster
	key     string
	content store.Content
	opt     store.PutOptions

	mu   sync.Mutex
	sent int64
}

// progress counts bytes that the store has.
func (w *put) progress(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent += n
	if w.opt.Progress != nil {
		w.opt.Progress(w.sent)
	}
}

// Put sends the data objects, and then the head, which makes an object of them. What is there under the key is left
// alone if it has the content's bytes, and replaced otherwise.
func (s *Store) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	const op = "rados.Put"
	c, old, err := s.head(ctx, op, key)
	if err != nil && !errors.Is(err, upload.NotFound) && !errors.Is(err, upload.DigestMismatch) {
		return err
	}
	w := &put{Store: s, c: c, key: key, content: content, opt: opt}
	if err := w.run(ctx, old); err != nil {
		if ctx.Err() != nil {
			return upload.Wrap(upload.Canceled, op, key, errors.Join(ctx.Err(), err))
		}
		if errno(err) == syscall.ENOENT { // a write that finds nothing finds no pool
			err = cmp.Or(s.there(ctx, c), err)
		}
		return s.classify(op, key, err)
	}
	return nil
}

// run does a Put over an object that is there, or over none, which is the zero head.
func (w *put) run(ctx context.Context, old head) error {
	if same, err := w.same(ctx, old); same || err != nil {
		return err
	}
	h, resumed := w.resume(old)
	if !resumed {
		var err error
		if h, err = w.begin(ctx); err != nil {
			return err
		}
	}
	sums := make([]uint32, h.objects())
	err := w.each(ctx, h.objects(), func(ctx context.Context, i int64) (err error) {
		sums[i], err = w.object(ctx, h, i, resumed)
		if err == nil {
			w.progress(h.length(i))
		}
		return err
	})
	if err != nil {
		return err
	}
	h.CRC32C, h.Unix = h.combine(sums), time.Now().Unix()
	if err := w.commit(ctx, h); err != nil {
		return err
	}
	w.progress(0)                          // also where there was nothing to send
	_ = w.removeData(ctx, w.c, w.key, old) // what stays is Clean's
	return nil
}

// same reports whether the object that is there has the content's bytes.
func (w *put) same(ctx context.Context, old head) (bool, error) {
	if old.Generation == "" || old.Size != w.content.Size() {
		return false, nil
	}
	errOther := errors.New("other bytes")
	err := w.each(ctx, old.objects(), func(ctx context.Context, i int64) error {
		return w.slot(ctx, func(piece []byte) (bool, error) {
			_, there, err := w.there(ctx, old, i, piece)
			if err == nil && !there {
				err = errOther
			}
			return false, err
		})
	})
	if errors.Is(err, errOther) {
		return false, ctx.Err()
	}
	if err == nil {
		w.progress(old.Size)
	}
	return err == nil, err
}

// checkpoint is what is kept from one Put of an object to the next.
type checkpoint struct {
	Generation string `json:"generation"`
	Object     int64  `json:"object"` // the size of data objects
	Size       int64  `json:"size"`   // of the content
	Began      int64  `json:"began"`  // Unix seconds
}

// resumable is for how long a Put is gone on with: not so long that Clean could get at what it has.
const resumable = 3 * 24 * time.Hour

// begin makes up a generation, and remembers it before anything is sent.
func (w *put) begin(ctx context.Context) (head, error) {
	var random [8]byte
	_, _ = rand.Read(random[:])
	h := head{Size: w.content.Size(), Object: w.Store.opt.ObjectSize, Generation: hex.EncodeToString(random[:])}
	if w.opt.Checkpoint == nil || h.Size == 0 {
		return h, nil
	}
	state, err := json.Marshal(checkpoint{h.Generation, h.Object, h.Size, time.Now().Unix()})
	if err != nil {
		return head{}, err
	}
	return h, w.opt.Checkpoint.Save(ctx, state)
}

// resume returns what the Put before has begun, if it can be gone on with. What has become an object is not written to.
func (w *put) resume(old head) (head, bool) {
	var c checkpoint
	if w.opt.Checkpoint == nil || json.Unmarshal(w.opt.Checkpoint.Load(), &c) != nil {
		return head{}, false
	}
	good := c.Generation != "" && c.Generation != old.Generation && c.Size == w.content.Size() && c.Object == w.Store.opt.ObjectSize &&
		time.Since(time.Unix(c.Began, 0)) < resumable
	return head{Size: c.Size, Object: c.Object, Generation: c.Generation}, good
}

// slot calls do when one more data object may be under way, with memory for a piece of the content. do reports whether
// it has passed that on to somebody who will give it back.
func (w *put) slot(ctx context.Context, do func(piece []byte) (passed bool, err error)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case piece := <-w.slots:
		if len(piece) != w.c.piece {
			piece = make([]byte, w.c.piece)
		}
		passed, err := do(piece)
		if !passed {
			w.slots <- piece
		}
		return err
	}
}

// object sees to it that one data object is there, and returns its checksum.
func (w *put) object(ctx context.Context, h head, i int64, resumed bool) (crc uint32, err error) {
	err = w.slot(ctx, func(piece []byte) (bool, error) {
		if resumed {
			var there bool
			if crc, there, err = w.there(ctx, h, i, piece); there || err != nil {
				return false, err
			}
		}
		op := ceph.CreateWriteOp() // librados copies what it is given, so a piece at a time is all that is needed here
		crc, err = w.pieces(ctx, h, i, piece, func(p []byte, at int64) {
			if at == 0 {
				op.WriteFull(p)
			} else {
				op.Write(p, uint64(at))
			}
		})
		if err != nil {
			op.Release()
			return false, err
		}
		_, err = await(ctx, start(w.Store, none(func() error {
			defer func() { w.slots <- piece }()
			defer op.Release()
			return op.Operate(w.c.data, h.name(w.key, i), ceph.OperationNoFlag)
		})))
		return true, err
	})
	return crc, err
}

// there reports whether a data object is there with the content's bytes, by the checksum that its OSD computes.
func (w *put) there(ctx context.Context, h head, i int64, piece []byte) (crc uint32, there bool, err error) {
	got, err := call(ctx, w.Store, func() (sum, error) { return sumOf(w.c.data, h.name(w.key, i)) })
	if lost(err) || err == nil && got.size != h.length(i) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	crc, err = w.pieces(ctx, h, i, piece, func([]byte, int64) {})
	return crc, crc == got.crc32c, err
}

// pieces reads a data object's part of the content, hands it on piece by piece, and returns its checksum.
func (w *put) pieces(ctx context.Context, h head, i int64, piece []byte, use func(p []byte, at int64)) (crc uint32, err error) {
	offset, length := i*h.Object, h.length(i)
	for at := int64(0); at < length; at += int64(len(piece)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		p := piece[:min(int64(len(piece)), length-at)]
		if n, err := io.ReadFull(io.NewSectionReader(w.content, offset+at, int64(len(p))), p); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("the content ends after %d of %d bytes: %w", offset+at+int64(n), h.Size, io.ErrUnexpectedEOF)
			}
			return 0, err
		}
		crc = crc32.Update(crc, upload.Castagnoli, p)
		use(p, at)
	}
	return crc, nil
}

// commit writes the head. It is waited for whatever ctx says, so that it is known whether there is an object.
func (w *put) commit(ctx context.Context, h head) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = call(context.WithoutCancel(ctx), w.Store, none(func() error {
		op := ceph.CreateWriteOp()
		defer op.Release()
		op.Create(ceph.CreateIdempotent)
		op.SetXattr(attribute, text)
		return op.Operate(w.c.heads, w.key, ceph.OperationNoFlag)
	}))
	return err
}
