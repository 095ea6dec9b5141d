package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/text/unicode/norm"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/upload"
)

// finishTimeout bounds a durable step that goes on though its caller went away.
const finishTimeout = 30 * time.Second

// finishing returns a context for a durable step that must not stop half way.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
}

// Init opens an upload. With a Key it may be repeated: the second result is then true and the first
// is the upload as it stands by now, even if it has ended. upload.KeyReused if the key stood for
// another request.
func (s *Service) Init(ctx context.Context, owner string, r InitRequest) (Opened, bool, error) {
	const op = "ingest.Init"
	spec, err := s.spec(owner, &r)
	if err != nil {
		return Opened{}, false, upload.Wrap(upload.Invalid, op, "", err)
	}
	if r.Replaces != "" {
		if _, err := s.DB.File(ctx, owner, r.Replaces); err != nil {
			return Opened{}, false, upload.Wrap(upload.Internal, op, r.Replaces, err)
		}
	}
	unlock, err := s.keys.lock(ctx, keyOf(owner, r.Key))
	if err != nil {
		return Opened{}, false, upload.Wrap(upload.Internal, op, "", err)
	}
	defer unlock()
	if r.Key != "" {
		earlier, err := s.statusByKey(ctx, owner, r.Key, spec.Fingerprint)
		if err == nil {
			opened, err := s.opened(ctx, owner, earlier, &r)
			return opened, true, err
		}
		if !errors.Is(err, upload.NotFound) {
			return Opened{}, false, upload.Wrap(upload.Internal, op, "", err)
		}
	}
	if d := s.directFor(&spec, &r); d != nil {
		opened, repeated, err := s.initDirect(ctx, owner, d, &r)
		if err != nil {
			return Opened{}, false, err
		}
		if opened != nil {
			return *opened, repeated, nil
		}
	}
	if open := s.Staging.Health().Open; open >= s.opt.MaxOpen {
		return Opened{}, false, tooMany(op, open)
	}
	if err := s.Staging.Create(ctx, spec); err != nil {
		return Opened{}, false, upload.Wrap(upload.Internal, op, "", err)
	}
	err = s.View.Begin(ctx, &spec, s.opt.UploadTTL)
	if errors.Is(err, upload.Conflict) {
		return s.second(ctx, owner, &spec, &r, err)
	}
	if err != nil {
		return Opened{}, false, upload.Wrap(upload.Unavailable, op, spec.ID, errors.Join(err, s.drop(ctx, &spec)))
	}
	s.Metrics.created.Inc()
	status, err := s.Status(ctx, owner, spec.ID)
	if err != nil {
		return Opened{}, false, err
	}
	opened, err := s.opened(ctx, owner, status, &r)
	return opened, false, err
}

func tooMany(op string, open int) error {
	return upload.Errorf(upload.TooMany, op, "", "The server has %d open uploads and takes no more. Complete or cancel some, or try later.", open)
}

// second ends an upload that another node was faster to begin with the same Idempotency-Key: it never was,
// and the other stands for both.
func (s *Service) second(ctx context.Context, owner string, spec *upload.Spec, r *InitRequest, conflict error) (Opened, bool, error) {
	const op = "ingest.Init"
	if err := s.Staging.Discard(ctx, spec.ID); err != nil {
		return Opened{}, false, upload.Wrap(upload.Internal, op, spec.ID, err)
	}
	first, _ := errors.AsType[*upload.Error](conflict)
	status, err := s.statusOfFirst(ctx, owner, first.ID, r.Key, spec.Fingerprint)
	if err != nil {
		return Opened{}, false, upload.Wrap(upload.Internal, op, first.ID, err)
	}
	opened, err := s.opened(ctx, owner, status, r)
	return opened, true, err
}

// spec checks a request and decides what the upload will be.
func (s *Service) spec(owner string, r *InitRequest) (upload.Spec, error) {
	spec := upload.Spec{Owner: owner, Size: upload.UnknownSize, Replaces: r.Replaces, Key: r.Key}
	var err error
	if spec.Name, spec.Path, err = checkNames(r.Name, r.Path, r.ContentType, r.Metadata); err != nil {
		return spec, err
	}
	if r.Size != nil {
		if err := upload.CheckSize(*r.Size, s.opt.MaxSize); err != nil {
			return spec, err
		}
		spec.Size = *r.Size
	}
	var wish int64
	if r.ChunkSize != nil {
		if wish = *r.ChunkSize; wish <= 0 {
			return spec, upload.Errorf(upload.InvalidSize, "", "", "chunk_size is a positive number of bytes. Choose one, or leave it out.")
		}
	}
	if r.SHA1 != nil {
		spec.SHA1 = *r.SHA1
	}
	spec.ContentType, spec.Metadata = r.ContentType, r.Metadata
	spec.ChunkSize = upload.ChooseChunkSize(spec.Size, wish)
	request := []any{"upload", r.Name, r.Path, r.Size, r.SHA1, r.ContentType, r.Metadata, r.Replaces}
	if r.Direct { // one that is not has the fingerprint that it had before there were direct ones
		request = append(request, "direct")
	}
	spec.Fingerprint = fingerprint(request...)
	spec.ID = upload.NewUploadID(s.opt.Node)
	spec.CreatedAt = s.Now().UTC()
	return spec, nil
}

// checkNames refuses unacceptable names and returns name and path in Unicode's composed form (NFC),
// so that the same name typed on two systems is the same.
func checkNames(name, path, contentType string, metadata map[string]string) (string, string, error) {
	name, path = norm.NFC.String(name), norm.NFC.String(path)
	return name, path, errors.Join(upload.CheckName(name), upload.CheckPath(path),
		upload.CheckContentType(contentType), upload.CheckMetadata(metadata))
}

func fingerprint(parts ...any) string {
	text, _ := json.Marshal(parts) // strings, numbers and maps of strings: never fails
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// keyOf names an owner's Idempotency-Key, "" for none.
func keyOf(owner, key string) string {
	if key == "" {
		return ""
	}
	return owner + "\x00" + key
}

// statusByKey returns what an earlier request with this key began; upload.NotFound if there was none.
func (s *Service) statusByKey(ctx context.Context, owner, key, fingerprint string) (Status, error) {
	id, err := s.View.ByKey(ctx, owner, key)
	if err != nil {
		return Status{}, err
	}
	if s.opt.Direct && id == "" {
		d, err := s.DB.DirectByKey(ctx, owner, key)
		if err == nil {
			return s.statusOfFirst(ctx, owner, d.ID, key, fingerprint)
		}
		if !errors.Is(err, upload.NotFound) {
			return Status{}, err
		}
	}
	if id != "" {
		status, err := s.statusOfFirst(ctx, owner, id, key, fingerprint)
		if !errors.Is(err, upload.NotFound) {
			return status, err
		}
		s.forget(ctx, &upload.Spec{ID: id, Owner: owner, Key: key}) // or nobody could use the key
	}
	answer, err := s.DB.AnswerByKey(ctx, owner, key)
	if err != nil {
		return Status{}, err
	}
	if answer.Fingerprint != fingerprint {
		return Status{}, keyReused(key)
	}
	return Status{ID: answer.UploadID, State: answer.State, Answer: answer}, nil
}

// statusOfFirst is the status of the upload that a key stands for; upload.NotFound if it is unknown by now,
// upload.Conflict and ElsewhereError if only its own node can tell.
func (s *Service) statusOfFirst(ctx context.Context, owner, id, key, fingerprint string) (Status, error) {
	status, err := s.Status(ctx, owner, id)
	if node, ok := s.elsewhere(id); ok && errors.Is(err, upload.NotFound) {
		conflict := upload.Errorf(upload.Conflict, "", id, "The upload of this Idempotency-Key is on another node. Try again, or take a new key.")
		conflict.Err = &ElsewhereError{node}
		return Status{}, conflict
	}
	if err != nil {
		return Status{}, err
	}
	if status.State == upload.Open && status.Upload.Fingerprint != fingerprint || status.State != upload.Open && status.Answer.Fingerprint != fingerprint {
		return Status{}, keyReused(key)
	}
	return status, nil
}

func keyReused(key string) error {
	return upload.Errorf(upload.KeyReused, "", "", "The Idempotency-Key %q was used for another request. Take a new key for a new request.", key)
}

// opened adds to an upload's status what init tells about content that may be here already.
func (s *Service) opened(ctx context.Context, owner string, status Status, r *InitRequest) (Opened, error) {
	opened := Opened{Status: status, Known: KnownNo}
	u := &status.Upload
	if status.Direct {
		urls, err := s.URLs(ctx, owner, u.ID, 0, maxURLs)
		if err != nil {
			return Opened{}, err
		}
		opened.URLs = &urls
	}
	if status.State != upload.Open || u.Size < upload.MinInstantSize {
		return opened, nil
	}
	if r.SHA1 != nil {
		c, err := s.challenge(ctx, owner, u, *r.SHA1)
		if err != nil {
			return Opened{}, err
		}
		opened.Challenge, opened.Known = &c, KnownMaybe
		return opened, nil
	}
	if r.Hint != nil {
		known, err := s.DB.KnowsHint(ctx, s.opt.Scope, owner, *r.Hint, u.Size)
		if err != nil {
			return Opened{}, upload.Wrap(upload.Internal, "ingest.Init", u.ID, err)
		}
		s.Metrics.check("hint", known)
		if known || s.blur(owner, *r.Hint, u.Size) {
			opened.Known = KnownMaybe
		}
	}
	return opened, nil
}

// blur makes the answer to some hints "maybe" although the content is unknown, where that answer would
// tell of other owners' content: always to the same ones, so that asking again tells no more.
func (s *Service) blur(owner string, hint upload.SHA1, size int64) bool {
	const oneIn = 8
	return s.opt.Scope == meta.ScopeGlobal && s.draw("hint", owner, hint, size)[0]%oneIn == 0
}

// lookUp returns an upload of owner that is open on this node. If it has ended instead, it returns
// how; upload.NotFound if it is unknown or another owner's.
func (s *Service) lookUp(ctx context.Context, owner, id string) (openUpload, *meta.Answer, error) {
	u, err := s.Staging.Get(id)
	if err == nil && u.Owner != owner {
		return openUpload{}, nil, notFound(id)
	}
	if err == nil && !u.Sealed {
		return openUpload{Upload: u}, nil, nil
	}
	if errors.Is(err, upload.NotFound) {
		d, directErr := s.DB.DirectUpload(ctx, id)
		switch {
		case directErr == nil && d.Owner == owner:
			return openDirect(&d), nil, nil
		case directErr == nil:
			return openUpload{}, nil, notFound(id)
		case !errors.Is(directErr, upload.NotFound):
			return openUpload{}, nil, directErr
		}
	} else if err != nil {
		return openUpload{}, nil, err
	}
	answer, answerErr := s.DB.Answer(ctx, id) // after the direct uploads: one is there until its answer is
	switch {
	case answerErr == nil && answer.Owner == owner:
		return openUpload{}, &answer, nil
	case answerErr == nil:
		return openUpload{}, nil, notFound(id)
	case !errors.Is(answerErr, upload.NotFound):
		return openUpload{}, nil, answerErr
	case err == nil: // sealed, its complete not yet committed
		return openUpload{Upload: u}, nil, nil
	}
	return openUpload{}, nil, notFound(id)
}

// elsewhere returns the node that has, or had, an upload's bytes, if that is another one.
func (s *Service) elsewhere(id string) (node string, ok bool) {
	node, ok = upload.ParseUploadID(id)
	return node, ok && node != s.opt.Node
}

// truth tells the view how an upload of this node stands.
func (s *Service) truth(id string) (u upload.Upload, ttl time.Duration, err error) {
	u, err = s.Staging.Get(id)
	return u, u.UpdatedAt.Add(s.opt.UploadTTL).Sub(s.Now()), err
}

func notFound(id string) error {
	return upload.Errorf(upload.NotFound, "", id, "There is no such upload, or it is not yours. Begin a new one.")
}

// PutChunk takes one chunk in. It may be repeated; see chunkstore.Staging.
func (s *Service) PutChunk(ctx context.Context, owner, id string, index int, body chunkstore.Body) error {
	const op = "ingest.PutChunk"
	u, answer, err := s.lookUp(ctx, owner, id)
	if err != nil {
		return upload.Wrap(upload.Internal, op, id, err)
	}
	if answer != nil {
		return notOpen(op, answer)
	}
	if u.direct != nil {
		return upload.Errorf(upload.DirectUpload, op, id, "The chunks of this upload go to the store. Send them to its URLs.")
	}
	if u.Size < 0 && index >= 0 && index < upload.MaxChunks && u.Layout().Offset(index)+body.Length > s.opt.MaxSize {
		return upload.Wrap(upload.TooLarge, op, id, upload.CheckSize(u.Layout().Offset(index)+body.Length, s.opt.MaxSize))
	}
	if err := s.Staging.WriteChunk(ctx, id, index, body); err != nil {
		if errors.Is(err, upload.NotFound) { // it ended while the chunk was under way
			return upload.Errorf(upload.NotOpen, op, id, "The upload ended while the chunk was being sent. Look at its state.")
		}
		if errors.Is(err, upload.Unavailable) { // it may have been there, and turned out damaged
			s.putBack(ctx, id)
		}
		return upload.Wrap(upload.Internal, op, id, err)
	}
	// No acknowledgement before the view has the chunk, or nobody reads the view (I7). One that ended
	// meanwhile needs no mark.
	if err := s.View.Mark(ctx, id, index, s.truth); err != nil && !errors.Is(err, upload.NotFound) {
		return upload.Wrap(upload.Unavailable, op, id, err)
	}
	s.Metrics.received.Add(float64(body.Length))
	return nil
}

func notOpen(op string, a *meta.Answer) error {
	return upload.Errorf(upload.NotOpen, op, a.UploadID, "The upload is %s and takes no more chunks. Look at its state; for another file begin a new one.", a.State)
}

// Complete makes a file of an upload whose chunks are all there. It may be repeated and then gives
// the same answer. upload.Incomplete lists chunks to be sent (again); upload.DigestMismatch ends the
// upload: its bytes are not those announced, and they are dropped.
func (s *Service) Complete(ctx context.Context, owner, id string, r CompleteRequest) (upload.File, error) {
	const op = "ingest.Complete"
	u, answer, err := s.lookUp(ctx, owner, id)
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, id, err)
	}
	if answer != nil {
		return completed(op, answer)
	}
	if u.direct != nil {
		return s.completeDirect(ctx, &u, &r)
	}
	size := upload.UnknownSize
	if r.Size != nil {
		if size = *r.Size; size < 0 {
			return upload.File{}, upload.Errorf(upload.InvalidSize, op, id, "A size is not negative. Send the file's length in bytes.")
		}
	}
	sealed, err := s.Staging.Seal(ctx, id, size)
	if errors.Is(err, upload.NotFound) { // another complete or a cancel was faster
		if _, answer, lookErr := s.lookUp(ctx, owner, id); lookErr == nil && answer != nil {
			return completed(op, answer)
		}
	}
	if errors.Is(err, upload.Incomplete) { // chunks may have turned out damaged that the view still has
		s.putBack(ctx, id)
	}
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, id, err)
	}
	ctx, cancel := finishing(ctx)
	defer cancel()
	for _, want := range []*upload.SHA1{&u.SHA1, r.SHA1} {
		if want != nil && !want.IsZero() && *want != sealed.SHA1 {
			return s.mismatch(ctx, &u, *want, sealed.SHA1)
		}
	}
	return s.commit(ctx, &u.Upload, sealed)
}

// mismatch finds out whose fault a wrong digest is. If the disk lost bytes, the chunks are asked for
// again; if not, the client announced another content, and the upload ends.
func (s *Service) mismatch(ctx context.Context, u *openUpload, want, got upload.SHA1) (upload.File, error) {
	const op = "ingest.Complete"
	bad, err := s.Staging.Recheck(ctx, u.ID)
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, u.ID, err)
	}
	if len(bad) > 0 {
		s.putBack(ctx, u.ID)
		return upload.File{}, &upload.Error{
			Op: op, Kind: upload.Incomplete, ID: u.ID, Ranges: bad,
			Detail: "Some chunks were damaged on the server's disk. Send them again, then complete.",
		}
	}
	answer, err := s.end(ctx, u, meta.Answer{State: upload.Rejected, Want: want.String(), Got: got.String()})
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, u.ID, err)
	}
	return completed(op, &answer)
}

// commit turns a sealed upload into a file.
func (s *Service) commit(ctx context.Context, u *upload.Upload, sealed upload.Sealed) (upload.File, error) {
	const op = "ingest.Complete"
	c := s.commitOf(u)
	c.Sealed, c.Node, c.Store = sealed, s.opt.Node, s.opt.Route(sealed.Size, u.ContentType, u.Owner)
	answer, err := s.DB.CommitUpload(ctx, c)
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	if answer.State == upload.Complete && !answer.Instant {
		// From here on the file stands. What fails below is put right by Recover.
		s.Wake()
		if err := s.Staging.Commit(ctx, u.ID); err != nil && !errors.Is(err, upload.NotFound) {
			s.Log.Error("cannot drop a committed upload's journal", "upload_id", u.ID, "error", err)
		}
		s.forget(ctx, &u.Spec)
		s.Metrics.finished.WithLabelValues("stored").Inc()
	}
	return completed(op, &answer)
}

// commitOf is what an upload becomes, but for its content.
func (s *Service) commitOf(u *upload.Upload) meta.Commit {
	now := s.Now().UTC()
	return meta.Commit{
		UploadID: u.ID, Answer: true, Key: u.Key, Fingerprint: u.Fingerprint,
		File: upload.File{
			ID: upload.NewID(now), Owner: u.Owner, Name: u.Name, Path: u.Path,
			ContentType: u.ContentType, Metadata: u.Metadata, CreatedAt: now,
		},
		Replaces:    u.Replaces,
		AnswerUntil: now.Add(s.opt.AnswerTTL),
	}
}

// completed turns the answer that stands into what complete returns.
func completed(op string, a *meta.Answer) (upload.File, error) {
	switch a.State {
	case upload.Complete:
		return *a.File, nil
	case upload.Rejected:
		return upload.File{}, &upload.Error{
			Op: op, Kind: upload.DigestMismatch, ID: a.UploadID, Want: a.Want, Got: a.Got,
			Detail: "The bytes received are not those whose SHA-1 was announced. They were dropped. Begin a new upload.",
		}
	default:
		return upload.File{}, upload.Errorf(upload.Gone, op, a.UploadID, "The upload is %s. Begin a new one.", a.State)
	}
}

// Cancel ends an upload and deletes its bytes. It may be repeated. upload.NotOpen if it is a file by
// now.
func (s *Service) Cancel(ctx context.Context, owner, id string) error {
	const op = "ingest.Cancel"
	u, answer, err := s.lookUp(ctx, owner, id)
	if err != nil {
		return upload.Wrap(upload.Internal, op, id, err)
	}
	if answer == nil {
		ctx, cancel := finishing(ctx)
		defer cancel()
		ended, err := s.end(ctx, &u, meta.Answer{State: upload.Cancelled})
		if err != nil {
			return upload.Wrap(upload.Internal, op, id, err)
		}
		answer = &ended
	}
	if answer.State == upload.Complete {
		return upload.Errorf(upload.NotOpen, op, id, "The upload is complete. Delete the file instead.")
	}
	return nil
}

// end records that an upload ends without a file and deletes its bytes, unless it has become a file
// meanwhile. It returns the answer that stands.
func (s *Service) end(ctx context.Context, u *openUpload, a meta.Answer) (meta.Answer, error) {
	now := s.Now().UTC()
	a.UploadID, a.Owner, a.Key, a.Fingerprint = u.ID, u.Owner, u.Key, u.Fingerprint
	a.CreatedAt, a.ExpiresAt = now, now.Add(s.opt.AnswerTTL)
	stands, err := s.DB.EndUpload(ctx, a)
	if err != nil {
		return meta.Answer{}, err
	}
	if stands.State == upload.Complete {
		return stands, nil
	}
	s.Metrics.finished.WithLabelValues(string(stands.State)).Inc()
	if u.direct != nil {
		s.dropDirect(ctx, u.direct)
		return stands, nil
	}
	return stands, s.drop(ctx, &u.Spec)
}

// drop deletes the bytes of an upload that has ended without needing them.
func (s *Service) drop(ctx context.Context, spec *upload.Spec) error {
	if err := s.Staging.Discard(ctx, spec.ID); err != nil {
		return err
	}
	s.forget(ctx, spec)
	return nil
}

// forget takes an upload out of the view, once it is out of staging: then nothing puts it back. What cannot
// be removed expires there; until then its answer says that it has ended.
func (s *Service) forget(ctx context.Context, spec *upload.Spec) {
	if err := s.View.Remove(ctx, spec); err != nil {
		s.Log.Warn("cannot remove an upload from the view", "upload_id", spec.ID, "error", err)
	}
}

// putBack makes an upload known anew whose chunks are other ones than were acknowledged. A view that cannot be
// reached asks for all uploads later; see Run.
func (s *Service) putBack(ctx context.Context, id string) {
	_ = s.View.Put(ctx, id, s.truth)
}
