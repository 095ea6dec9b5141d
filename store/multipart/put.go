package multipart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"gantry/store"
	"gantry/upload"
)

// put is one Put.
type put struct {
	*Putter
	key     string
	content store.Content
	size    int64
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

// read fills body with the content from offset on.
func (w *put) read(body []byte, offset int64) error {
	n, err := io.ReadFull(io.NewSectionReader(w.content, offset, int64(len(body))), body)
	switch {
	case n == len(body):
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the content ends after %d of %d bytes: %w", offset+int64(n), w.size, io.ErrUnexpectedEOF)
	}
	return err
}

func (w *put) whole(ctx context.Context) error {
	body, release, err := w.buffer(ctx, w.size)
	if err != nil {
		return err
	}
	defer release()
	if err := w.read(body, 0); err != nil {
		return err
	}
	_, err = try(ctx, w.Putter, func() (struct{}, error) { return struct{}{}, w.server.PutObject(ctx, w.key, body) })
	if err == nil {
		w.progress(w.size)
	}
	return err
}

// checkpoint is what is kept from one Put of an object to the next.
type checkpoint struct {
	ID   string `json:"id"`   // of the multipart upload
	Part int64  `json:"part"` // the size of its parts
	Size int64  `json:"size"` // of the content
}

// inParts sends what the store does not have yet, and completes.
func (w *put) inParts(ctx context.Context) error {
	id, there, err := w.resume(ctx)
	if err == nil && id == "" {
		id, err = w.begin(ctx)
	}
	if err != nil {
		return err
	}
	size := w.PartSize(w.size)
	parts := make([]store.Part, (w.size+size-1)/size)
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(w.Putter.opt.Parts)
	for i := range parts {
		if sending.Err() != nil {
			break
		}
		group.Go(func() (err error) {
			offset := int64(i) * size
			parts[i], err = w.part(sending, id, i+1, offset, min(size, w.size-offset), there[i+1])
			return err
		})
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return err
	}
	return w.complete(ctx, id, parts)
}

// begin starts a multipart upload, and remembers it before anything is sent.
func (w *put) begin(ctx context.Context) (string, error) {
	id, err := try(ctx, w.Putter, func() (string, error) { return w.server.Create(ctx, w.key) })
	if err != nil || w.opt.Checkpoint == nil {
		return id, err
	}
	state, err := json.Marshal(checkpoint{ID: id, Part: w.PartSize(w.size), Size: w.size})
	if err != nil {
		return "", err
	}
	if len(state) > store.MaxCheckpoint {
		return id, nil // it cannot be gone on with, that is all
	}
	return id, w.opt.Checkpoint.Save(ctx, state)
}

// resume returns the multipart upload that the Put before has left, "" if none, and what the store has of it.
func (w *put) resume(ctx context.Context) (id string, there map[int]store.Part, err error) {
	if w.opt.Checkpoint == nil {
		return "", nil, nil
	}
	var c checkpoint
	if state := w.opt.Checkpoint.Load(); len(state) == 0 || json.Unmarshal(state, &c) != nil || c.ID == "" {
		return "", nil, nil
	}
	if c.Part != w.PartSize(w.size) || c.Size != w.size { // the settings have changed since
		_ = w.server.Abort(ctx, w.key, c.ID) // or Clean will
		return "", nil, ctx.Err()
	}
	there, err = try(ctx, w.Putter, func() (map[int]store.Part, error) {
		there := map[int]store.Part{}
		for part, err := range w.server.Parts(ctx, w.key, c.ID) {
			if err != nil {
				return nil, err
			}
			there[part.Number] = part
		}
		return there, nil
	})
	if errors.Is(err, upload.NotFound) { // completed, aborted or expired
		return "", nil, nil
	}
	return c.ID, there, err
}

// part sends one part, unless the store has it as it should be.
func (w *put) part(ctx context.Context, id string, number int, offset, length int64, there store.Part) (store.Part, error) {
	body, release, err := w.buffer(ctx, length)
	if err != nil {
		return store.Part{}, err
	}
	defer release()
	if err := w.read(body, offset); err != nil {
		return store.Part{}, err
	}
	sent := there
	if there.Size != length || !w.server.Same(there, body) {
		sent, err = try(ctx, w.Putter, func() (store.Part, error) { return w.server.PutPart(ctx, w.key, id, number, body) })
		if err != nil {
			return store.Part{}, err
		}
	}
	sent.Number, sent.Size = number, length
	w.progress(length)
	return sent, nil
}

// complete makes an object of the parts. Where the answer is lost it asks what has come of it before it tries again:
// two Completes of one upload at a time have destroyed objects in some servers.
func (w *put) complete(ctx context.Context, id string, parts []store.Part) error {
	var failure error
	_, err := try(ctx, w.Putter, func() (struct{}, error) {
		if failure != nil {
			switch open, err := w.open(ctx, id); {
			case err != nil:
				return struct{}{}, err
			case !open && w.done(ctx):
				return struct{}{}, nil
			case !open:
				return struct{}{}, failure
			}
		}
		failure = w.server.Complete(ctx, w.key, id, parts)
		return struct{}{}, failure
	})
	if err != nil && ctx.Err() == nil {
		if open, unknown := w.open(ctx, id); unknown == nil && !open && w.done(ctx) {
			return nil // what the object has is for Verify to find out
		}
	}
	return err
}

// done reports whether there is an object of the right size.
func (w *put) done(ctx context.Context) bool {
	size, err := w.server.Size(ctx, w.key)
	return err == nil && size == w.size
}

// open reports whether there is such a multipart upload still.
func (w *put) open(ctx context.Context, id string) (bool, error) {
	for _, err := range w.server.Parts(ctx, w.key, id) {
		if errors.Is(err, upload.NotFound) {
			return false, nil
		}
		return err == nil, err
	}
	return true, nil
}
