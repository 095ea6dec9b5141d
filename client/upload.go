package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// UploadOptions describe the file that an Upload makes.
type UploadOptions struct {
	Name        string // "": the source's
	Path        string // folder-relative
	ContentType string
	Metadata    map[string]string
	Replaces    string // the id of a file whose content this becomes
	ChunkSize   int64  // a wish; 0: Options.ChunkSize
	NoInstant   bool   // send the bytes even if the server has them
	Direct      bool   // send large files to the server's store, past the server, if both can do that
	// Events hears what is going on; see Event.
	Events func(Event)
}

// Result is how an Upload ended well.
type Result struct {
	File File
	// Instant says that the server had the content and not all bytes were sent.
	Instant bool
	// BytesSent were acknowledged in this run, BytesResumed in earlier ones, and BytesNotSent
	// nowhere: they were the server's already. Together they are the file's size.
	BytesSent    int64
	BytesResumed int64
	BytesNotSent int64
	Duration     time.Duration
}

// errInstant ends the sending when the server has the content.
var errInstant = errors.New("the server has the content")

// maxRounds bounds how often chunks are sent again that a complete found missing.
const maxRounds = 10

// Upload brings a source to the server and returns the file that it became. What fails on the way is
// tried again; see Options.RetryFor.
//
// A large file is hashed while its chunks are sent. If the server turns out to have the content the
// rest is not sent. With Options.States an Upload of the same file that was interrupted, by
// another process too, goes on where it stopped.
//
// Failures are an *Error (refused by the server), a *LocalError (ErrChanged among them), the
// context's, or an error of the network, for which IsTemporary is true.
func (c *Client) Upload(ctx context.Context, src *Source, opt UploadOptions) (Result, error) {
	start := time.Now()
	s := &session{c: c, src: src, opt: opt, emit: opt.Events}
	if s.emit == nil {
		s.emit = func(Event) {}
	}
	s.opt.Name = cmp.Or(opt.Name, src.name)
	s.opt.ChunkSize = cmp.Or(opt.ChunkSize, c.opt.ChunkSize)
	s.pace = c.newPacer(s.retrying)
	var result Result
	var err error
	switch {
	case src.at == nil:
		result, err = s.sendStream(ctx)
	case src.size < upload.MinInstantSize && len(opt.Metadata) == 0:
		result, err = s.sendWhole(ctx)
	default:
		result, err = s.sendChunked(ctx)
	}
	if err != nil {
		return Result{}, err
	}
	result.Duration = time.Since(start)
	s.emit(Event{Kind: PhaseChanged, Phase: Done})
	return result, nil
}

// session is one Upload.
type session struct {
	c    *Client
	src  *Source
	opt  UploadOptions
	emit func(Event)
	pace *pacer

	mu      sync.Mutex // of state
	state   State
	stateID string // "": not remembered

	id      string
	layout  upload.Layout
	direct  *direct // nil: the chunks go to the server
	already int64   // bytes that were there before this run
	acked   atomic.Int64
	pending atomic.Int64 // chunks to be sent
	proving atomic.Bool  // a proof is on its way
}

// retrying passes on that something failed, unless that is what success looks like: a server that takes
// a proof stops the chunks that are under way, and they may hear of it before the proof does.
func (s *session) retrying(e Event) {
	if s.proving.Load() && (hasKind(e.Err, upload.Canceled) || hasKind(e.Err, upload.Timeout)) {
		return
	}
	s.emit(e)
}

// sendWhole sends a small file in one request: no round trip is cheaper than the bytes.
func (s *session) sendWhole(ctx context.Context) (Result, error) {
	s.emit(Event{Kind: PhaseChanged, Phase: Uploading})
	content := make([]byte, s.src.size)
	if err := s.src.readFull(content, 0); err != nil {
		return Result{}, err
	}
	if err := s.src.changed(); err != nil {
		return Result{}, err
	}
	return s.putWhole(ctx, content)
}

func (s *session) putWhole(ctx context.Context, content []byte) (Result, error) {
	sum := upload.SumSHA1(content)
	crc := crc32.Checksum(content, upload.Castagnoli)
	r := FileRequest{
		Name: s.opt.Name, Path: s.opt.Path, ContentType: s.opt.ContentType, Replaces: s.opt.Replaces, SHA1: &sum, Key: newKey(),
	}
	size := int64(len(content))
	f, err := retry(ctx, s.pace, s.opt.Name, func(ctx context.Context) (f File, err error) {
		err = s.c.exchange(ctx, size, func() io.Reader { return bytes.NewReader(content) }, s.moved,
			func(ctx context.Context, body func() io.ReadCloser) error {
				f, err = s.c.putFile(ctx, r, body, size, crc)
				return err
			})
		return f, err
	})
	if err != nil {
		return Result{}, err
	}
	s.emit(Event{Kind: Acknowledged, Bytes: size})
	return Result{File: f, BytesSent: size}, nil
}

func (s *session) moved(n int64) { s.emit(Event{Kind: Moved, Bytes: n}) }

// sendChunked sends a file of known size in chunks. An upload that was resumed and cannot be gone on
// with is begun anew, once.
func (s *session) sendChunked(ctx context.Context) (Result, error) {
	resumed := s.load()
	result, err := s.attempt(ctx)
	if _, ok := errors.AsType[*noDirectError](err); ok {
		s.c.log.DebugContext(ctx, "the store cannot be used from here, beginning anew through the server", "upload", s.id, "error", err)
		s.reset(ctx)
		s.opt.Direct = false
		result, err = s.attempt(ctx)
	}
	if resumed && errors.Is(err, errStale) {
		s.c.log.DebugContext(ctx, "the upload cannot be resumed, beginning anew", "upload", s.id, "error", err)
		s.reset(ctx)
		result, err = s.attempt(ctx)
	}
	if e, ok := errors.AsType[*staleError](err); ok {
		s.forget() // the next attempt is to begin anew
		err = e.error
		if IsDigestMismatch(err) || hasKind(err, upload.ChunkConflict) { // two readings of the file differ
			err = &LocalError{Op: "upload", Path: s.src.path, Err: fmt.Errorf("%w: %w", ErrChanged, err)}
		}
	}
	return result, err
}

// errStale marks failures that a new upload does not have.
var errStale = errors.New("the upload cannot be gone on with")

type staleError struct{ error }

func (e *staleError) Unwrap() []error { return []error{errStale, e.error} }

// asStale marks err if it says that this upload, rather than any upload of the file, cannot be: it
// has expired, or other bytes than the file's are there.
func asStale(err error) error {
	if err != nil && (IsNotFound(err) || IsGone(err) || hasKind(err, upload.ChunkConflict) ||
		hasKind(err, upload.KeyReused) || hasKind(err, upload.DigestMismatch)) {
		return &staleError{err}
	}
	return err
}

func (s *session) attempt(ctx context.Context) (Result, error) {
	up, err := s.open(ctx)
	if err != nil {
		return Result{}, asStale(err)
	}
	if up.State == upload.Complete && up.File != nil { // the answer to complete had been lost
		s.forget()
		s.acknowledgeRest()
		return s.result(*up.File, up.Instant), nil
	}
	if up.ChunkSize <= 0 {
		return Result{}, &upload.Error{Op: "client.Upload", Kind: upload.Internal, ID: up.ID, Detail: "The server's answer has no chunk size."}
	}
	sum, instant, err := s.hashAndSend(ctx, up.Missing)
	if err != nil {
		return Result{}, s.explain(ctx, err)
	}
	if instant != nil {
		s.forget()
		return s.result(*instant, true), nil
	}
	f, err := s.finish(ctx, sum)
	if err != nil {
		return Result{}, s.explain(ctx, err)
	}
	s.forget()
	return s.result(f, false), nil
}

// open goes on with the remembered upload or begins one.
func (s *session) open(ctx context.Context) (Upload, error) {
	resumed := s.state.UploadID != ""
	var up Upload
	var err error
	if resumed {
		up, err = retry(ctx, s.pace, "status", func(ctx context.Context) (Upload, error) {
			return s.c.Status(ctx, s.state.UploadID)
		})
	} else {
		up, err = s.init(ctx)
	}
	if err != nil {
		return up, err
	}
	s.id = up.ID
	s.layout = upload.Layout{Size: s.src.size, ChunkSize: up.ChunkSize}
	s.already = up.ReceivedBytes
	s.direct = nil
	if up.Direct != nil {
		s.direct = newDirect(up.Direct, s.already > 0)
	}
	if s.already > 0 {
		s.emit(Event{Kind: Resumed, Bytes: s.already})
	}
	return up, nil
}

func (s *session) init(ctx context.Context) (Upload, error) {
	head, err := hint(s.src)
	if err != nil {
		return Upload{}, err
	}
	s.save(func(*State) {}) // the key first: an init whose answer is lost is not repeated under another
	r := InitRequest{
		Name: s.opt.Name, Path: s.opt.Path, Size: &s.src.size, ChunkSize: s.opt.ChunkSize,
		ContentType: s.opt.ContentType, Metadata: s.opt.Metadata, Replaces: s.opt.Replaces,
		Direct: s.opt.Direct,
	}
	if !s.opt.NoInstant && s.src.size >= upload.MinInstantSize {
		r.Hint = &head
	}
	up, err := retry(ctx, s.pace, "start", func(ctx context.Context) (Upload, error) {
		up, err := s.c.Init(ctx, r, s.state.Key)
		if r.Direct && hasKind(err, upload.Invalid) { // an older server, which knows no such thing
			r.Direct = false
			up, err = s.c.Init(ctx, r, s.state.Key)
		}
		return up, err
	})
	if err != nil {
		return up, err
	}
	s.save(func(st *State) { st.UploadID, st.Known = up.ID, up.Known })
	return up, nil
}

// hashAndSend sends the missing chunks and hashes the file beside it, or before it where the server
// may have the content. It returns the file if the server had it.
func (s *session) hashAndSend(ctx context.Context, missing []upload.Range) (upload.SHA1, *File, error) {
	known, asked, sum := s.state.Known, s.state.Asked, s.state.SHA1
	ask := !s.opt.NoInstant && !asked && s.src.size >= upload.MinInstantSize
	s.pending.Store(count(missing))
	if ask && known == KnownMaybe && len(missing) > 0 {
		s.emit(Event{Kind: PhaseChanged, Phase: Checking})
		d, err := s.hash(ctx, true)
		if err != nil {
			return sum, nil, err
		}
		if f := s.askInstant(ctx, d); f != nil {
			return d.sha1, f, nil
		}
		if err := context.Cause(ctx); err != nil {
			return sum, nil, err
		}
		ask, sum = false, d.sha1
	}
	s.emit(Event{Kind: PhaseChanged, Phase: Uploading})
	sending, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	asking, stopAsking := context.WithCancel(sending)
	defer stopAsking()
	var found *File
	var group errgroup.Group
	group.Go(func() error {
		defer stopAsking() // all is sent: completing is quicker than asking
		err := s.send(sending, missing)
		if err != nil {
			stop(err)
		} else {
			s.emit(Event{Kind: PhaseChanged, Phase: Finishing}) // the hasher may still be at work
		}
		return err
	})
	if sum.IsZero() {
		group.Go(func() error {
			// A file of which a part was sent before gets no tree: the server said "no" then.
			d, err := s.hash(sending, ask && s.already == 0)
			if err != nil {
				stop(err)
				return err
			}
			sum = d.sha1
			if d.tree != nil && s.pending.Load() > 0 {
				if found = s.askInstant(asking, d); found != nil {
					stop(errInstant)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	if found != nil {
		return sum, found, nil
	}
	if err != nil && context.Cause(sending) != nil {
		err = context.Cause(sending) // the first failure, not what it brought about
	}
	return sum, nil, err
}

func count(ranges []upload.Range) (n int64) {
	for _, r := range ranges {
		n += int64(r.Last - r.First + 1)
	}
	return n
}

func (s *session) hash(ctx context.Context, tree bool) (digest, error) {
	h := &hasher{src: s.src, emit: s.emit, save: func(state []byte, hashed int64) {
		s.save(func(st *State) { st.SHA1Hash, st.Hashed = state, hashed })
	}}
	d, err := h.run(ctx, tree, s.state.SHA1Hash, s.state.Hashed)
	if err == nil {
		s.save(func(st *State) { st.SHA1 = d.sha1 })
	}
	return d, err
}

// askInstant asks for instant upload and proves that we have the content. nil is "send it": when
// the server does not have it, and when asking failed, since sending is always right.
func (s *session) askInstant(ctx context.Context, d digest) *File {
	answer, err := retry(ctx, s.pace, "instant upload", func(ctx context.Context) (InstantAnswer, error) {
		answer, err := s.c.AskInstant(ctx, s.id, d.sha1)
		if err != nil || answer.Status != InstantChallenge || answer.Challenge == nil {
			return answer, err
		}
		proof, err := prove(s.src, d.tree, answer.Challenge)
		if err != nil {
			return InstantAnswer{}, err
		}
		s.proving.Store(true)
		defer s.proving.Store(false)
		return s.c.ProveInstant(ctx, s.id, d.sha1, proof)
	})
	if err != nil {
		s.c.log.DebugContext(ctx, "instant upload failed, sending", "upload", s.id, "error", err)
		return nil
	}
	if answer.Status == InstantComplete && answer.File != nil {
		s.emit(Event{Kind: Instant, Bytes: s.src.size - s.already - s.acked.Load()})
		return answer.File
	}
	s.save(func(st *State) { st.Asked = true })
	return nil
}

func prove(src *Source, tree *upload.Tree, c *Challenge) (upload.Proof, error) {
	if len(c.Leaves) > upload.ChallengeLeaves {
		return upload.Proof{}, upload.Errorf(upload.Invalid, "client.Upload", "", "The server asks for %d leaves.", len(c.Leaves))
	}
	proof := upload.Proof{Challenge: c.ID}
	for _, index := range c.Leaves {
		leaf, err := tree.Prove(src, index)
		if err != nil {
			return upload.Proof{}, err
		}
		proof.Leaves = append(proof.Leaves, leaf)
	}
	return proof, nil
}

// send sends the chunks of the ranges, in order, over as many lanes as there are.
func (s *session) send(ctx context.Context, ranges []upload.Range) error {
	work := chunkQueue{ranges: ranges}
	group, ctx := errgroup.WithContext(ctx)
	for range min(int64(s.c.opt.Parallel), count(ranges)) {
		group.Go(func() error {
			for {
				index, ok := work.next()
				if !ok {
					return nil
				}
				if index < 0 || index >= s.layout.Count() {
					return upload.Errorf(upload.Internal, "client.Upload", s.id, "The server wants chunk %d, which there is not.", index)
				}
				send := s.sendChunk
				if s.direct != nil {
					send = s.sendDirect
				}
				if err := send(ctx, index); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// chunkQueue hands out chunk indexes to the lanes.
type chunkQueue struct {
	mu     sync.Mutex
	ranges []upload.Range
	taken  int // of the first range
}

func (q *chunkQueue) next() (int, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ranges) > 0 {
		if index := q.ranges[0].First + q.taken; index <= q.ranges[0].Last {
			q.taken++
			return index, true
		}
		q.ranges, q.taken = q.ranges[1:], 0
	}
	return 0, false
}

func (s *session) sendChunk(ctx context.Context, index int) error {
	offset, length := s.layout.Offset(index), s.layout.Length(index)
	mismatches := 0
	for {
		crc, err := chunkCRC(ctx, s.src, offset, length)
		if err != nil {
			return err
		}
		err = s.putChunk(ctx, index, crc, length, func() io.Reader { return io.NewSectionReader(s.src.at, offset, length) })
		switch {
		case err == nil:
			return nil
		case IsDigestMismatch(err) && mismatches < maxDoubts && s.src.changed() == nil:
			mismatches++ // altered on its way, where TCP's checksum is too weak to see it
		default:
			return err
		}
	}
}

// putChunk sends one chunk until it is acknowledged. open gives its bytes for each attempt.
func (s *session) putChunk(ctx context.Context, index int, crc uint32, length int64, open func() io.Reader) error {
	_, err := retry(ctx, s.pace, fmt.Sprintf("chunk %d", index), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.c.exchange(ctx, length, open, s.moved,
			func(ctx context.Context, body func() io.ReadCloser) error {
				return s.c.putChunk(ctx, s.id, index, body, length, crc)
			})
	})
	if hasKind(err, upload.NotOpen) {
		err = nil // another process has completed it, or completes it: finish will tell
	}
	if err != nil {
		return err
	}
	s.acked.Add(length)
	s.pending.Add(-1)
	s.emit(Event{Kind: Acknowledged, Bytes: length})
	return nil
}

// finish completes the upload, sending again what the server has lost meanwhile.
func (s *session) finish(ctx context.Context, sum upload.SHA1) (File, error) {
	for round := 0; ; round++ {
		if err := s.src.changed(); err != nil {
			return File{}, err
		}
		f, err := s.complete(ctx, &sum, nil)
		missing, incomplete := IsIncomplete(err)
		if !incomplete || round == maxRounds {
			return f, err
		}
		lost := min(s.bytesOf(missing), s.acked.Load())
		s.acked.Add(-lost)
		s.emit(Event{Kind: Acknowledged, Bytes: -lost})
		s.emit(Event{Kind: Moved, Bytes: -lost})
		if err := s.send(ctx, missing); err != nil {
			return File{}, err
		}
	}
}

func (s *session) complete(ctx context.Context, sum *upload.SHA1, size *int64) (File, error) {
	return retry(ctx, s.pace, "complete", func(ctx context.Context) (File, error) {
		return s.c.Complete(ctx, s.id, sum, size)
	})
}

func (s *session) bytesOf(ranges []upload.Range) (n int64) {
	for _, r := range ranges {
		if r.First >= 0 && r.First <= r.Last && r.Last < s.layout.Count() {
			n += s.layout.Offset(r.Last) + s.layout.Length(r.Last) - s.layout.Offset(r.First)
		}
	}
	return n
}

// explain turns what the server found wrong into what is wrong here, where that is known, and drops
// an upload that can never be completed.
func (s *session) explain(ctx context.Context, err error) error {
	if changed := s.src.changed(); changed != nil {
		err = changed
	}
	if errors.Is(err, ErrChanged) {
		s.reset(ctx)
		return err
	}
	return asStale(err)
}

func (s *session) acknowledgeRest() {
	if rest := s.src.size - s.already; rest > 0 {
		s.emit(Event{Kind: Resumed, Bytes: rest})
		s.already = s.src.size
	}
}

func (s *session) result(f File, instant bool) Result {
	r := Result{File: f, BytesSent: s.acked.Load(), BytesResumed: s.already}
	if instant {
		r.BytesNotSent = max(s.src.size-r.BytesSent-r.BytesResumed, 0)
		r.Instant = r.BytesNotSent > 0
	}
	return r
}
