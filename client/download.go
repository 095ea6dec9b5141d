package client

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// DownloadOptions say how to write a file.
type DownloadOptions struct {
	Force  bool        // overwrite what is there
	Events func(Event) // see Event
}

// Downloaded is how a Download ended well.
type Downloaded struct {
	File          File
	BytesReceived int64 // in this run; the rest was there from an earlier one
	Duration      time.Duration
}

const (
	partSuffix  = ".gantry-part"  // the unfinished content
	stateSuffix = ".gantry-state" // which ranges of it are there
	rangeSize   = 8 << 20         // bytes per request: what a broken connection costs at the most
)

// Download brings a file's content to path. It is written beside it, in ranges fetched in parallel,
// and gets its name when its SHA-1 is right and it is on stable storage: there is never a wrong or
// unfinished file at path; of a file whose SHA-1 the server does not know yet (see File) the size is all
// that is compared. An interrupted download is gone on with by the next one of the same file
// to the same path.
//
// Without Force a path that exists is a *LocalError with ErrExists. Failures are otherwise as those
// of Upload.
func (c *Client) Download(ctx context.Context, id, path string, opt DownloadOptions) (Downloaded, error) {
	start := time.Now()
	d := &fetch{c: c, path: path, opt: opt, emit: opt.Events}
	if d.emit == nil {
		d.emit = func(Event) {}
	}
	d.pace = c.newPacer(d.emit)
	if err := d.checkTarget(); err != nil {
		return Downloaded{}, err
	}
	var err error
	d.file, err = retry(ctx, d.pace, "file", func(ctx context.Context) (File, error) { return c.File(ctx, id) })
	if err != nil {
		return Downloaded{}, err
	}
	err = d.run(ctx)
	if errors.Is(err, ErrCorrupt) && d.resumed {
		// Part of it is from an earlier run, and may have been lost in a crash or written to since.
		d.emit(Event{Kind: Resumed, Bytes: -d.already})
		d.emit(Event{Kind: Acknowledged, Bytes: -d.received})
		d.already, d.received = 0, 0
		err = d.run(ctx)
	}
	if err != nil {
		return Downloaded{}, err
	}
	d.emit(Event{Kind: PhaseChanged, Phase: Done})
	return Downloaded{File: d.file, BytesReceived: d.received, Duration: time.Since(start)}, nil
}

// fetch is one Download.
type fetch struct {
	c    *Client
	path string
	opt  DownloadOptions
	emit func(Event)
	pace *pacer
	file File

	layout  upload.Layout
	out     *os.File
	resumed bool
	already int64 // bytes of an earlier run

	mu       sync.Mutex // of what follows
	have     upload.ChunkSet
	saved    time.Time
	received int64
}

// fetchState is kept beside an unfinished download.
type fetchState struct {
	File      string      `json:"file"`
	SHA1      upload.SHA1 `json:"sha1"`
	Size      int64       `json:"size"`
	RangeSize int64       `json:"range_size"`
	Have      []byte      `json:"have"` // bitmap of the ranges
}

func (d *fetch) checkTarget() error {
	info, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &LocalError{Op: "write", Path: d.path, Err: err}
	case !info.Mode().IsRegular():
		return &LocalError{Op: "write", Path: d.path, Err: errors.New("it is not a regular file")}
	case !d.opt.Force:
		return &LocalError{Op: "write", Path: d.path, Err: ErrExists}
	}
	return nil
}

func (d *fetch) run(ctx context.Context) (err error) {
	d.emit(Event{Kind: PhaseChanged, Phase: Downloading})
	if err := d.openPart(); err != nil {
		return err
	}
	closed := false
	defer func() {
		if !closed {
			_ = d.out.Close() // the download has failed already; what is there is checked when resumed
		}
	}()
	sum, err := d.fetchAll(ctx)
	if err != nil {
		d.saveState(true)
		return err
	}
	if sum != d.file.SHA1 && !d.file.SHA1.IsZero() {
		_ = os.Remove(d.path + stateSuffix) // so that the next run begins anew
		return &LocalError{Op: "download", Path: d.path, Err: ErrCorrupt}
	}
	d.emit(Event{Kind: PhaseChanged, Phase: Finishing})
	closed = true
	err = errors.Join(d.out.Sync(), d.out.Close())
	if err == nil {
		err = d.rename()
	}
	if err != nil {
		return &LocalError{Op: "write", Path: d.path, Err: err}
	}
	_ = os.Remove(d.path + stateSuffix) // of no use, and overwritten by the next download
	return nil
}

// openPart opens the unfinished file of an earlier run if it is of the same content, or a new one.
func (d *fetch) openPart() error {
	d.layout = upload.Layout{Size: d.file.Size, ChunkSize: rangeSize}
	for d.layout.Count() > upload.MaxChunks {
		d.layout.ChunkSize *= 2
	}
	flags := os.O_RDWR | os.O_CREATE
	d.have, d.resumed = d.loadState()
	if !d.resumed {
		flags |= os.O_TRUNC
	}
	var err error
	if d.out, err = os.OpenFile(d.path+partSuffix, flags, 0o666); err != nil {
		return &LocalError{Op: "write", Path: d.path + partSuffix, Err: err}
	}
	for i := range d.layout.Count() {
		if d.have.Has(i) {
			d.already += d.layout.Length(i)
		}
	}
	if d.already > 0 {
		d.emit(Event{Kind: Resumed, Bytes: d.already})
	}
	return nil
}

func (d *fetch) loadState() (upload.ChunkSet, bool) {
	b, err := os.ReadFile(d.path + stateSuffix)
	if err != nil {
		return upload.ChunkSet{}, false
	}
	var s fetchState
	info, err := os.Stat(d.path + partSuffix)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return upload.ChunkSet{}, false
	}
	have := upload.ChunkSetFromBytes(s.Have)
	last := have.Last()
	if s.SHA1.IsZero() || s.SHA1 != d.file.SHA1 || s.Size != d.file.Size || s.RangeSize != d.layout.ChunkSize || last < 0 ||
		last >= d.layout.Count() || info.Size() < d.layout.Offset(last)+d.layout.Length(last) {
		return upload.ChunkSet{}, false
	}
	return have, true
}

// saveState keeps which ranges are there: every few seconds, and at the end.
func (d *fetch) saveState(now bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !now && time.Since(d.saved) < saveInterval || d.have.Len() == 0 {
		return
	}
	d.saved = time.Now()
	b, err := json.Marshal(fetchState{d.file.ID, d.file.SHA1, d.file.Size, d.layout.ChunkSize, d.have.Bytes()})
	if err == nil {
		err = writeFileAtomic(d.path+stateSuffix, b)
	}
	if err != nil {
		d.c.log.Warn("the download cannot be remembered: it could not be resumed", "error", err)
	}
}

// fetchAll fetches the ranges that are missing and hashes them as they become contiguous.
func (d *fetch) fetchAll(ctx context.Context) (upload.SHA1, error) {
	n := d.layout.Count()
	there := make([]chan struct{}, n) // closed when the range is
	for i := range there {
		there[i] = make(chan struct{})
		if d.have.Has(i) {
			close(there[i])
		}
	}
	missing := d.have.Missing(n)
	work := chunkQueue{ranges: missing}
	group, ctx := errgroup.WithContext(ctx)
	for range min(int64(d.c.opt.Parallel), count(missing)) {
		group.Go(func() error {
			for {
				i, ok := work.next()
				if !ok {
					return nil
				}
				if err := d.fetchRange(ctx, i); err != nil {
					return err
				}
				d.mu.Lock()
				d.have.Add(i)
				d.received += d.layout.Length(i)
				d.mu.Unlock()
				close(there[i])
				d.emit(Event{Kind: Acknowledged, Bytes: d.layout.Length(i)})
				d.saveState(false)
			}
		})
	}
	sum := sha1.New()
	group.Go(func() error {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		for i := range n {
			select {
			case <-there[i]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			section := io.NewSectionReader(d.out, d.layout.Offset(i), d.layout.Length(i))
			if _, err := io.CopyBuffer(onlyWriter{sum}, section, *buf); err != nil {
				return &LocalError{Op: "read", Path: d.path + partSuffix, Err: err}
			}
			d.emit(Event{Kind: Hashed, Bytes: d.layout.Length(i)})
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return upload.SHA1{}, err
	}
	return upload.SHA1(sum.Sum(nil)), nil
}

// onlyWriter hides other methods, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// fetchRange fetches one range. Bytes of an attempt that broke are kept.
func (d *fetch) fetchRange(ctx context.Context, i int) error {
	offset, end := d.layout.Offset(i), d.layout.Offset(i)+d.layout.Length(i)
	_, err := retry(ctx, d.pace, fmt.Sprintf("range %d", i), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, d.c.receive(ctx, d.file.ID, offset, end-offset, func(src io.Reader) error {
			n, err := io.Copy(io.NewOffsetWriter(d.out, offset), &marked{src})
			offset += n
			if n > 0 {
				d.pace.progress()
			}
			return copyError(err, offset < end, d.path+partSuffix)
		}, func(n int64) { d.emit(Event{Kind: Moved, Bytes: n}) })
	})
	return err
}

// receive makes one request for a range under a lane and a watchdog, and hands its bytes to use.
func (c *Client) receive(ctx context.Context, id string, offset, length int64, use func(io.Reader) error, onMove func(int64)) error {
	if err := c.lanes.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer c.lanes.Release(1)
	ctx, dog := watch(ctx, c.opt.StallTimeout)
	defer dog.stop()
	content, err := c.Content(ctx, id, offset, length)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // read-only
	dog.busy()
	in := io.LimitReader(&incoming{ctx: ctx, src: content, limit: c.opt.Limit, dog: dog, onMove: onMove}, max(length, 0))
	return use(in)
}

// marked tells errors of the source from those of the destination.
type marked struct{ src io.Reader }

type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

func (r *marked) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if err != nil && err != io.EOF {
		err = sourceError{err}
	}
	return n, err
}

// copyError says what a copy that ended with err means: a line that broke, or a disk that is full.
func copyError(err error, short bool, path string) error {
	if e, ok := errors.AsType[sourceError](err); ok {
		return e.error
	}
	if err != nil {
		return &LocalError{Op: "write", Path: path, Err: err}
	}
	if short {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// rename gives the finished file its name. Without Force it must be free at that very moment.
func (d *fetch) rename() error {
	part := d.path + partSuffix
	if d.opt.Force {
		if err := os.Rename(part, d.path); err != nil {
			return err
		}
		return syncDir(filepath.Dir(d.path))
	}
	err := os.Link(part, d.path) // unlike rename it does not replace
	switch {
	case errors.Is(err, fs.ErrExist):
		return ErrExists
	case err != nil: // a file system without links
		if _, err := os.Lstat(d.path); err == nil {
			return ErrExists
		}
		if err := os.Rename(part, d.path); err != nil {
			return err
		}
	default:
		if err := os.Remove(part); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(d.path))
}

// syncDir makes a rename durable, where directories can be synced.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil //nolint:nilerr // the file is there; only its durability is unknown
	}
	_ = f.Sync() // not possible on every system
	return f.Close()
}

// WriteTo writes a file's content to w in order, going on where a connection broke, and checks its
// SHA-1 at the end. w has the wrong bytes already when the error is ErrCorrupt.
func (c *Client) WriteTo(ctx context.Context, w io.Writer, id string, opt DownloadOptions) (Downloaded, error) {
	start := time.Now()
	emit := opt.Events
	if emit == nil {
		emit = func(Event) {}
	}
	pace := c.newPacer(emit)
	f, err := retry(ctx, pace, "file", func(ctx context.Context) (File, error) { return c.File(ctx, id) })
	if err != nil {
		return Downloaded{}, err
	}
	emit(Event{Kind: PhaseChanged, Phase: Downloading})
	sum := sha1.New()
	var offset int64
	for offset < f.Size {
		_, err := retry(ctx, pace, "content", func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.receive(ctx, f.ID, offset, f.Size-offset, func(src io.Reader) error {
				n, err := io.Copy(io.MultiWriter(sum, w), &marked{src})
				offset += n
				if n > 0 {
					pace.progress()
					emit(Event{Kind: Acknowledged, Bytes: n})
				}
				return copyError(err, offset < f.Size, "the output")
			}, func(n int64) { emit(Event{Kind: Moved, Bytes: n}) })
		})
		if err != nil {
			return Downloaded{}, err
		}
	}
	if upload.SHA1(sum.Sum(nil)) != f.SHA1 && !f.SHA1.IsZero() {
		return Downloaded{}, &LocalError{Op: "download", Path: f.Name, Err: ErrCorrupt}
	}
	emit(Event{Kind: PhaseChanged, Phase: Done})
	return Downloaded{File: f, BytesReceived: offset, Duration: time.Since(start)}, nil
}
