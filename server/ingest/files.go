package ingest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

// PutFile takes a whole file in with one request. With a Key it may be repeated.
func (s *Service) PutFile(ctx context.Context, owner string, r FileRequest, body chunkstore.Body) (upload.File, error) {
	const op = "ingest.PutFile"
	name, path, err := checkNames(r.Name, r.Path, r.ContentType, r.Metadata)
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Invalid, op, "", err)
	}
	if body.Length > s.opt.MaxSize {
		return upload.File{}, upload.Wrap(upload.TooLarge, op, "", upload.CheckSize(body.Length, s.opt.MaxSize))
	}
	if s.Staging.Health().Full {
		return upload.File{}, upload.Errorf(upload.NoRoom, op, "", "The server's disk is nearly full. Try again later.")
	}
	if r.Replaces != "" {
		if _, err := s.DB.File(ctx, owner, r.Replaces); err != nil {
			return upload.File{}, upload.Wrap(upload.Internal, op, r.Replaces, err)
		}
	}
	now := s.Now().UTC()
	u := upload.Upload{Spec: upload.Spec{
		ID: upload.NewUploadID(s.opt.Node), Owner: owner, Name: name, Path: path, ContentType: r.ContentType,
		Metadata: r.Metadata, Replaces: r.Replaces, Key: r.Key, CreatedAt: now,
		Fingerprint: fingerprint("file", r.Name, r.Path, r.SHA1, r.ContentType, r.Metadata, r.Replaces, body.Length, announced(&body)),
	}}
	unlock, err := s.keys.lock(ctx, keyOf(owner, r.Key))
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, "", err)
	}
	defer unlock()
	if r.Key != "" {
		earlier, err := s.statusByKey(ctx, owner, r.Key, u.Fingerprint)
		if err == nil {
			return completed(op, &earlier.Answer)
		}
		if !errors.Is(err, upload.NotFound) {
			return upload.File{}, upload.Wrap(upload.Internal, op, "", err)
		}
	}
	return s.takeIn(ctx, &u, r.SHA1, body)
}

// announced is the digests that came with a body.
func announced(body *chunkstore.Body) []string {
	var all []string
	if body.CRC32C != nil {
		all = append(all, fmt.Sprintf("%08x", *body.CRC32C))
	}
	for _, check := range body.Checks {
		all = append(all, hex.EncodeToString(check.Want))
	}
	slices.Sort(all)
	return all
}

// takeIn writes a whole file and commits it.
func (s *Service) takeIn(ctx context.Context, u *upload.Upload, want *upload.SHA1, body chunkstore.Body) (upload.File, error) {
	const op = "ingest.PutFile"
	s.writing.add(u.ID)
	defer s.writing.remove(u.ID)
	sealed, err := s.Staging.WriteWhole(ctx, u.ID, body, s.opt.MaxSize)
	if err != nil {
		return upload.File{}, upload.Wrap(upload.Internal, op, u.ID, err)
	}
	if want != nil && *want != sealed.SHA1 {
		return upload.File{}, errors.Join(&upload.Error{
			Op: op, Kind: upload.DigestMismatch, ID: u.ID, Want: want.String(), Got: sealed.SHA1.String(),
			Detail: "The bytes received are not those whose SHA-1 was announced. Nothing was kept. Send the file again.",
		},
			s.Staging.Discard(ctx, u.ID))
	}
	ctx, cancel := finishing(ctx)
	defer cancel()
	c := s.commitOf(u)
	c.Sealed, c.Node, c.Answer = sealed, s.opt.Node, u.Key != ""
	c.Store = s.opt.Route(sealed.Size, u.ContentType, u.Owner)
	answer, err := s.DB.CommitUpload(ctx, c)
	if err != nil {
		// The commit may have happened: the bytes stay, and the janitor drops them if no row refers to them.
		return upload.File{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	s.Wake()
	s.Metrics.created.Inc()
	s.Metrics.finished.WithLabelValues("stored").Inc()
	s.Metrics.received.Add(float64(sealed.Size))
	return completed(op, &answer)
}

// File returns one file.
func (s *Service) File(ctx context.Context, owner, id string) (upload.File, error) {
	f, err := s.DB.File(ctx, owner, id)
	return f, upload.Wrap(upload.Internal, "ingest.File", id, err)
}

// Files lists files.
func (s *Service) Files(ctx context.Context, q meta.FileQuery) (Page[upload.File], error) {
	limit := q.Limit
	q.Limit++
	files, err := s.DB.Files(ctx, q)
	if err != nil {
		return Page[upload.File]{}, upload.Wrap(upload.Internal, "ingest.Files", "", err)
	}
	return Page[upload.File]{Items: files[:min(limit, len(files))], More: len(files) > limit}, nil
}

// UpdateFile renames or moves a file, or replaces its metadata.
func (s *Service) UpdateFile(ctx context.Context, owner, id string, c meta.FileChange) (upload.File, error) {
	const op = "ingest.UpdateFile"
	name, path := "unchanged", ""
	var metadata map[string]string
	if c.Name != nil {
		name = *c.Name
	}
	if c.Path != nil {
		path = *c.Path
	}
	if c.Metadata != nil {
		metadata = *c.Metadata
	}
	name, path, err := checkNames(name, path, "", metadata)
	if err != nil {
		return upload.File{}, upload.Wrap(upload.InvalidName, op, id, err)
	}
	if c.Name != nil {
		c.Name = &name
	}
	if c.Path != nil {
		c.Path = &path
	}
	c.Now = s.Now().UTC()
	f, err := s.DB.UpdateFile(ctx, owner, id, c)
	return f, upload.Wrap(upload.Internal, op, id, err)
}

// DeleteFile drops a file. Its content is deleted after a grace time if nothing else refers to it.
func (s *Service) DeleteFile(ctx context.Context, owner, id string) error {
	return upload.Wrap(upload.Internal, "ingest.DeleteFile", id, s.DB.DeleteFile(ctx, owner, id, s.Now().UTC()))
}

// Content opens a file's bytes: from this node's staging while they are there, from the store after.
// The caller closes.
func (s *Service) Content(ctx context.Context, owner, id string) (FileContent, error) {
	const op = "ingest.Content"
	f, err := s.DB.File(ctx, owner, id)
	if err != nil {
		return FileContent{}, upload.Wrap(upload.Internal, op, id, err)
	}
	blob, err := s.DB.Blob(ctx, f.BlobID)
	if err != nil {
		return FileContent{}, upload.Wrap(upload.Internal, op, id, err)
	}
	if blob.State == upload.BlobLost && blob.Undigested() && f.Transfer.LastError != "" {
		return FileContent{}, upload.Errorf(upload.Gone, op, id, "%s Upload it again.", f.Transfer.LastError)
	}
	if blob.State == upload.BlobLost {
		return FileContent{}, upload.Errorf(upload.Gone, op, id, "The server has lost the content of this file. Upload it again.")
	}
	if blob.Node == s.opt.Node && blob.Staging != "" {
		content, err := s.Staging.Open(ctx, blob.Staging)
		if err == nil {
			return FileContent{File: f, Open: sections(content), Close: content.Close}, nil
		}
		if !errors.Is(err, upload.NotFound) {
			return FileContent{}, upload.Wrap(upload.Internal, op, id, err)
		}
		// Dropped since the row was read, because the store has it by now.
		if blob, err = s.DB.Blob(ctx, f.BlobID); err != nil {
			return FileContent{}, upload.Wrap(upload.Internal, op, id, err)
		}
	}
	if blob.Store == "" {
		gone := upload.Errorf(upload.Gone, op, id, "The content of this file is not on this server's disk. Ask the operator, whose \"gantry doctor\" says more, or upload it again.")
		if blob.Node != "" && blob.Node != s.opt.Node {
			gone.Err = &ElsewhereError{blob.Node}
		}
		return FileContent{}, gone
	}
	st, ok := s.Stores[blob.Store]
	if !ok {
		return FileContent{}, notConfigured(op, id, blob.Store)
	}
	open := func(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
		return s.openStored(ctx, id, blob, offset, length)
	}
	return FileContent{File: f, Open: open, URL: s.redirect(&blob, st), Close: func() error { return nil }}, nil
}

// redirect returns how to make a URL from which clients fetch a blob by themselves; nil if they cannot.
func (s *Service) redirect(blob *upload.Blob, st store.Store) func(context.Context, store.PresignOptions) (*url.URL, error) {
	cdn, ok := s.opt.Redirect[blob.Store]
	signer, can := store.As[store.Presigner](st)
	if !ok || !can || blob.Size == 0 {
		return nil
	}
	return func(ctx context.Context, opt store.PresignOptions) (*url.URL, error) {
		u, err := signer.Presign(ctx, blob.ObjectKey, opt)
		if err == nil && cdn != nil {
			u.Scheme, u.Host = cdn.Scheme, cdn.Host
			u = cdn.JoinPath(u.EscapedPath()).ResolveReference(&url.URL{RawQuery: u.RawQuery})
		}
		return u, upload.Wrap(upload.Unavailable, "ingest.redirect", blob.ID, err)
	}
}

func notConfigured(op, id, name string) error {
	return upload.Errorf(upload.Unavailable, op, id, "The store %q that has this file is not configured on this server. Ask its operator, and try again.", name)
}

// openStored reads a part of a file's object. If that is not there the blob may have been moved to another
// place since its row was read.
func (s *Service) openStored(ctx context.Context, id string, blob upload.Blob, offset, length int64) (io.ReadCloser, error) {
	const op = "ingest.Content"
	for {
		st, ok := s.Stores[blob.Store]
		if !ok {
			return nil, notConfigured(op, id, blob.Store)
		}
		r, err := st.Open(ctx, blob.ObjectKey, offset, length)
		if !errors.Is(err, upload.NotFound) {
			return r, upload.Wrap(upload.Unavailable, op, id, err)
		}
		now, err := s.DB.Blob(ctx, blob.ID)
		if err != nil && !errors.Is(err, upload.NotFound) {
			return nil, upload.Wrap(upload.Internal, op, id, err)
		}
		if now.Store == "" || now.Store == blob.Store && now.ObjectKey == blob.ObjectKey {
			return nil, upload.Errorf(upload.Gone, op, id, "The store no longer has the content of this file. Upload it again.")
		}
		blob = now
	}
}

// sections reads ranges of content, which stays open.
func sections(content chunkstore.Content) func(context.Context, int64, int64) (io.ReadCloser, error) {
	return func(_ context.Context, offset, length int64) (io.ReadCloser, error) {
		if length < 0 {
			length = content.Size() - offset
		}
		return io.NopCloser(io.NewSectionReader(content, offset, length)), nil
	}
}
