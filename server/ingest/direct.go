package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

const (
	urlTTL       = time.Hour       // how long a URL for a part is good
	maxURLs      = 100             // in one answer
	directFinish = 5 * time.Minute // bounds what the store does at the end: a large object takes its time
)

// PartURL is where the client PUTs one chunk of a direct upload.
type PartURL struct {
	Index int
	URL   string
}

// URLs are some of a direct upload's.
type URLs struct {
	Parts     []PartURL
	ExpiresAt time.Time
}

// openUpload is an upload that has not ended. Its bytes are in this node's staging; or, of a direct one, in a store.
type openUpload struct {
	upload.Upload
	direct *meta.DirectUpload // nil: it is none
}

func openDirect(d *meta.DirectUpload) openUpload {
	return openUpload{upload.Upload{Spec: d.Spec, Size: d.Size, UpdatedAt: d.UpdatedAt}, d}
}

// director is a store as a client can use it by itself; false if it cannot.
func (s *Service) director(name string) (store.Direct, bool) {
	d, ok := store.As[store.Director](s.Stores[name])
	if !ok {
		return nil, false
	}
	return d.Direct(), true
}

// directFor decides where a direct upload goes, and how long its parts are. nil: it will be an ordinary one.
func (s *Service) directFor(spec *upload.Spec, r *InitRequest) *meta.DirectUpload {
	if !r.Direct || !s.opt.Direct || spec.Size <= 0 { // no store makes an object of no parts
		return nil
	}
	name := s.opt.Route(spec.Size, spec.ContentType, spec.Owner)
	direct, ok := s.director(name)
	if !ok {
		return nil
	}
	d := &meta.DirectUpload{Spec: *spec, BlobID: upload.NewID(spec.CreatedAt), Store: name, UpdatedAt: spec.CreatedAt}
	d.ObjectKey = upload.DirectKeyFor(s.opt.Node, d.BlobID)
	if d.ChunkSize, ok = partSize(spec.Size, spec.ChunkSize, direct); !ok {
		return nil
	}
	return d
}

// partSize makes a chunk size that we have chosen one that the store takes.
func partSize(size, part int64, d store.Direct) (int64, bool) {
	least, largest, most := d.PartLimits()
	for part > largest {
		part /= 2
	}
	for part < least || size > part*int64(most) {
		part *= 2
	}
	return part, part <= largest && part <= upload.MaxChunkSize
}

// initDirect begins a direct upload. nil, without an error: the store cannot at the moment, and an ordinary upload is as
// good.
func (s *Service) initDirect(ctx context.Context, owner string, d *meta.DirectUpload, r *InitRequest) (_ *Opened, repeated bool, err error) {
	const op = "ingest.Init"
	n, err := s.DB.CountDirect(ctx)
	if err != nil {
		return nil, false, upload.Wrap(upload.Unavailable, op, "", err)
	}
	if n >= s.opt.MaxOpen {
		return nil, false, tooMany(op, n)
	}
	direct, err := s.directOf(d)
	if err != nil {
		return nil, false, upload.Wrap(upload.Unavailable, op, "", err)
	}
	if d.MultipartID, err = create(ctx, s.Stores[d.Store], direct, d.ObjectKey); err != nil {
		if ctx.Err() != nil {
			return nil, false, upload.Wrap(upload.Canceled, op, "", err)
		}
		s.Log.Warn("cannot begin a direct upload; its bytes will pass this node", "store", d.Store, "error", err)
		return nil, false, nil
	}
	u := openDirect(d)
	status := openStatus(&u, s.opt.UploadTTL)
	if err := s.DB.BeginDirect(ctx, *d); err != nil { // before anybody gets a URL: what is sent there is known to be there
		finish, cancel := finishing(ctx)
		defer cancel()
		aborted := direct.Abort(finish, d.ObjectKey, d.MultipartID)
		if !errors.Is(err, upload.Conflict) || aborted != nil {
			return nil, false, upload.Wrap(upload.Unavailable, op, d.ID, errors.Join(err, aborted))
		}
		// Another node was faster to begin with this key.
		if status, err = s.statusByKey(ctx, owner, d.Key, d.Fingerprint); err != nil {
			return nil, true, upload.Wrap(upload.Internal, op, d.ID, err)
		}
		repeated = true
	} else {
		s.Metrics.created.Inc()
	}
	opened, err := s.opened(ctx, owner, status, r)
	return &opened, repeated, err
}

// create begins a multipart upload in a store that is ours and answers.
func create(ctx context.Context, st store.Store, direct store.Direct, key string) (string, error) {
	if downer, ok := store.As[store.Downer](st); ok && downer.Down() {
		return "", upload.Errorf(upload.Unavailable, "ingest.create", key, "The store does not answer.")
	}
	if owned, ok := store.As[*store.Owned](st); ok {
		if err := owned.Claim(ctx); err != nil {
			return "", err
		}
	}
	return direct.Create(ctx, key)
}

// URLs answers where to PUT count chunks of a direct upload, from first on; those that there are. upload.Conflict if it
// is no direct upload.
func (s *Service) URLs(ctx context.Context, owner, id string, first, count int) (URLs, error) {
	const op = "ingest.URLs"
	u, answer, err := s.lookUp(ctx, owner, id)
	switch {
	case err != nil:
		return URLs{}, upload.Wrap(upload.Internal, op, id, err)
	case answer != nil:
		return URLs{}, notOpen(op, answer)
	case u.direct == nil:
		return URLs{}, upload.Errorf(upload.Conflict, op, id, "The chunks of this upload go to the server, not to its store. Send them there.")
	case first < 0 || first >= u.Layout().Count():
		return URLs{}, upload.Errorf(upload.InvalidIndex, op, id, "The upload has no such chunk. Look at its chunk_count.")
	}
	if err := s.DB.TouchDirect(ctx, id, s.Now().UTC()); err != nil {
		return URLs{}, upload.Wrap(upload.Unavailable, op, id, err)
	}
	urls, err := s.presign(ctx, u.direct, first, count)
	return urls, upload.Wrap(upload.Unavailable, op, id, err)
}

func (s *Service) presign(ctx context.Context, d *meta.DirectUpload, first, count int) (URLs, error) {
	direct, err := s.directOf(d)
	if err != nil {
		return URLs{}, err
	}
	layout := upload.Layout{Size: d.Size, ChunkSize: d.ChunkSize}
	urls := URLs{ExpiresAt: s.Now().Add(urlTTL)}
	for index := first; index < min(first+min(count, maxURLs), layout.Count()); index++ {
		u, err := direct.PresignPart(ctx, d.ObjectKey, d.MultipartID, index+1, urlTTL)
		if err != nil {
			return URLs{}, err
		}
		urls.Parts = append(urls.Parts, PartURL{index, u.String()})
	}
	return urls, nil
}

// directOf is the store that a direct upload uses.
func (s *Service) directOf(d *meta.DirectUpload) (store.Direct, error) {
	direct, ok := s.director(d.Store)
	if !ok {
		return nil, upload.Errorf(upload.Unavailable, "", d.ID, "The store %q that has this upload's chunks is not configured on this server. Ask its operator, and try again.", d.Store)
	}
	return direct, nil
}

// look asks the store what of a direct upload is there, and returns the parts that are as they should be, in order.
// whole: they have become the object already. upload.NotFound: the store has nothing of it any more.
func (s *Service) look(ctx context.Context, u *openUpload) (parts []store.Part, whole bool, err error) {
	direct, err := s.directOf(u.direct)
	if err != nil {
		return nil, false, err
	}
	layout := u.Layout()
	for part, err := range direct.Parts(ctx, u.direct.ObjectKey, u.direct.MultipartID) {
		if errors.Is(err, upload.NotFound) {
			return s.lookWhole(ctx, u)
		}
		if err != nil {
			return nil, false, err
		}
		index := part.Number - 1
		if index >= 0 && index < layout.Count() && part.Size == layout.Length(index) && u.Received.Add(index) {
			u.ReceivedBytes += part.Size
			parts = append(parts, part)
		}
	}
	slices.SortFunc(parts, func(a, b store.Part) int { return cmp.Compare(a.Number, b.Number) })
	return parts, false, nil
}

// lookWhole is look where the parts are gone: into the object, or for good.
func (s *Service) lookWhole(ctx context.Context, u *openUpload) (parts []store.Part, whole bool, err error) {
	if _, err := s.Stores[u.direct.Store].Size(ctx, u.direct.ObjectKey); err != nil {
		return nil, false, err
	}
	for index := range u.Layout().Count() {
		u.Received.Add(index)
	}
	u.ReceivedBytes = u.Size
	return nil, true, nil
}

// statusOfDirect is Status with what the store says.
func (s *Service) statusOfDirect(ctx context.Context, u *openUpload) (Status, error) {
	_, _, err := s.look(ctx, u)
	if errors.Is(err, upload.NotFound) {
		answer, err := s.dropped(ctx, u)
		return Status{ID: u.ID, State: answer.State, Answer: answer}, err
	}
	return openStatus(u, s.opt.UploadTTL), err
}

// dropped ends an upload of which the store has nothing any more: a rule of the bucket's, or somebody else, has
// deleted it.
func (s *Service) dropped(ctx context.Context, u *openUpload) (meta.Answer, error) {
	s.Log.Warn("the store has dropped an open direct upload; look at its rules for incomplete multipart uploads", "upload_id", u.ID, "store", u.direct.Store)
	ctx, cancel := finishing(ctx)
	defer cancel()
	return s.end(ctx, u, meta.Answer{State: upload.Expired})
}

// completeDirect is Complete for a direct upload: the store makes an object of the parts. Whatever it is killed
// after, it can be repeated.
func (s *Service) completeDirect(ctx context.Context, u *openUpload, r *CompleteRequest) (upload.File, error) {
	const op = "ingest.Complete"
	if r.Size != nil && *r.Size != u.Size {
		return upload.File{}, upload.Errorf(upload.InvalidSize, op, u.ID, "The upload was begun with a size of %d bytes, not %d. Complete it with that one, or begin a new one.", u.Size, *r.Size)
	}
	unlock, err := s.keys.lock(ctx, "\x00direct\x00"+u.ID) // the store would be asked twice, and say strange things
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, u.ID, err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), directFinish)
	defer cancel()
	sum := u.SHA1
	if r.SHA1 != nil && !r.SHA1.IsZero() {
		if sum = *r.SHA1; !u.SHA1.IsZero() && sum != u.SHA1 {
			return s.rejectDirect(ctx, u, u.SHA1.String(), sum.String())
		}
	}
	size, err := s.assemble(ctx, u)
	if errors.Is(err, upload.NotFound) {
		answer, err := s.dropped(ctx, u)
		if err != nil {
			return upload.File{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
		}
		return completed(op, &answer)
	}
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	if size != u.Size {
		return s.rejectDirect(ctx, u, fmt.Sprintf("%d bytes", u.Size), fmt.Sprintf("%d bytes", size))
	}
	return s.commitDirect(ctx, u, sum)
}

// assemble makes the object, unless an earlier call has, and returns its size.
func (s *Service) assemble(ctx context.Context, u *openUpload) (int64, error) {
	parts, whole, err := s.look(ctx, u)
	if err != nil {
		return 0, err
	}
	if missing := u.Missing(); len(missing) > 0 {
		return 0, &upload.Error{
			Kind: upload.Incomplete, ID: u.ID, Ranges: missing,
			Detail: "The store does not have these chunks, or they are not as long as they must be. Send them to their URLs, then complete again.",
		}
	}
	if !whole {
		direct, err := s.directOf(u.direct)
		if err != nil {
			return 0, err
		}
		err = direct.Complete(ctx, u.direct.ObjectKey, u.direct.MultipartID, parts)
		if err != nil && !errors.Is(err, upload.NotFound) { // not found: another call was faster
			return 0, err
		}
	}
	return s.Stores[u.direct.Store].Size(ctx, u.direct.ObjectKey)
}

// rejectDirect ends an upload that is not what was announced.
func (s *Service) rejectDirect(ctx context.Context, u *openUpload, want, got string) (upload.File, error) {
	const op = "ingest.Complete"
	answer, err := s.end(ctx, u, meta.Answer{State: upload.Rejected, Want: want, Got: got})
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	return completed(op, &answer)
}

// commitDirect makes a file of the object.
func (s *Service) commitDirect(ctx context.Context, u *openUpload, sum upload.SHA1) (upload.File, error) {
	const op = "ingest.Complete"
	c := s.commitOf(&u.Upload)
	c.Sealed, c.Node = upload.Sealed{Size: u.Size, SHA1: sum}, s.opt.Node
	answer, err := s.DB.CommitDirect(ctx, c)
	if errors.Is(err, upload.NotFound) { // it ended long ago, and nobody knows how any more
		s.dropDirect(ctx, u.direct)
	}
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	switch {
	case answer.State == upload.Complete && !answer.Instant:
		s.Wake()
		s.Metrics.finished.WithLabelValues("stored").Inc()
		s.Metrics.direct.Add(float64(u.Size))
	case answer.UploadID == u.ID: // cancelled, say, while the store was at work: what that deleted is there again
		s.dropDirect(ctx, u.direct)
	}
	return completed(op, &answer)
}

// dropDirect deletes what an ended direct upload has in its store. What fails the janitor does later.
func (s *Service) dropDirect(ctx context.Context, d *meta.DirectUpload) {
	if err := s.deleteDirect(ctx, d); err != nil {
		s.Log.Warn("cannot delete what a direct upload has in its store; the janitor will", "upload_id", d.ID, "store", d.Store, "error", err)
	}
}

func (s *Service) deleteDirect(ctx context.Context, d *meta.DirectUpload) error {
	direct, err := s.directOf(d)
	if err != nil {
		return err
	}
	if err := direct.Abort(ctx, d.ObjectKey, d.MultipartID); err != nil {
		return err
	}
	if err := s.Stores[d.Store].Delete(ctx, d.ObjectKey); err != nil {
		return err
	}
	return s.DB.DropDirect(ctx, d.ID)
}

// cleanDirect is the janitor's work on direct uploads, which one node does for all: it ends those that have expired,
// and deletes what is left of those that have ended.
func (s *Service) cleanDirect(ctx context.Context) error {
	idle, err := s.DB.IdleDirect(ctx, s.Now().Add(-s.opt.UploadTTL), sweepBatch)
	if err != nil {
		return err
	}
	for i := range idle {
		u := openDirect(&idle[i])
		if _, err := s.end(ctx, &u, meta.Answer{State: upload.Expired}); err != nil {
			return err
		}
	}
	var errs []error
	for after := ""; ctx.Err() == nil; {
		ended, err := s.DB.EndedDirect(ctx, after, sweepBatch)
		if err != nil || len(ended) == 0 {
			return errors.Join(append(errs, err)...)
		}
		for i := range ended {
			after = ended[i].ID
			if err := s.deleteDirect(ctx, &ended[i]); err != nil {
				errs = append(errs, err) // another store may be well
			}
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// nothing is the content of which nothing can be read yet.
type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (nothing) Size() int64                       { return 0 }
func (nothing) Close() error                      { return nil }
