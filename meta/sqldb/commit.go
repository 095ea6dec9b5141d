package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// CommitUpload makes the file of a sealed upload visible; see meta.Catalog.
func (db *DB) CommitUpload(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	defer db.copies.changed(c.File.Owner)
	return write(ctx, db, "CommitUpload", c.UploadID, func(ctx context.Context, s *session) (meta.Answer, error) {
		earlier, found, err := db.earlierCommit(ctx, s, &c)
		if found || err != nil {
			return earlier, err
		}
		b := newBlob(&c)
		b.Node, b.Staging = c.Node, c.UploadID
		return putContent(ctx, s, &c, &b, c.Store)
	})
}

// newBlob is the blob of a commit, but for where its bytes are.
func newBlob(c *meta.Commit) upload.Blob {
	now := kept(c.File.CreatedAt)
	return upload.Blob{
		ID: upload.NewID(now), SHA1: c.Sealed.SHA1, Size: c.Sealed.Size, Hint: c.Sealed.Hint, CRC32C: c.Sealed.CRC32C,
		State: upload.BlobLive, Refs: 1, CreatedAt: now,
	}
}

// putContent makes a blob, its transfer to a store, and its file.
func putContent(ctx context.Context, s *session, c *meta.Commit, b *upload.Blob, store string) (meta.Answer, error) {
	now := b.CreatedAt
	t := upload.Transfer{
		ID: upload.NewID(now), BlobID: b.ID, Node: c.Node, Store: store, State: upload.TransferQueued, Size: b.Size,
		NextAt: now, CreatedAt: now, UpdatedAt: now,
	}
	if err := insertBlob(ctx, s, b); err != nil {
		return meta.Answer{}, err
	}
	if err := insertTransfer(ctx, s, &t); err != nil {
		return meta.Answer{}, err
	}
	f := c.File
	f.BlobID, f.Size, f.SHA1, f.Transfer, f.Stored = b.ID, b.Size, b.SHA1, t, b.Store != ""
	return putFile(ctx, s, c, f, false)
}

// CommitInstant makes a file of a blob that is already there; see meta.Catalog.
func (db *DB) CommitInstant(ctx context.Context, c meta.Commit, blobID string) (meta.Answer, error) {
	defer db.copies.changed(c.File.Owner)
	return write(ctx, db, "CommitInstant", c.UploadID, func(ctx context.Context, s *session) (meta.Answer, error) {
		earlier, found, err := db.earlierInstant(ctx, s, &c)
		if found || err != nil {
			return earlier, err
		}
		// No root: not yet known, lost, being deleted, or joined with another blob.
		n, err := s.exec(ctx, `UPDATE blobs SET refs = refs + 1, state = 'live', condemned_at = NULL, last_owner = NULL, updated_at = ?
			WHERE id = ? AND root IS NOT NULL AND state IN ('live', 'condemned')`, at(c.File.CreatedAt), blobID)
		if err != nil {
			return meta.Answer{}, err
		}
		if n == 0 {
			return meta.Answer{}, upload.Errorf(upload.NotFound, "", blobID, "The content is not there any more.")
		}
		if c.Direct {
			if err := endDirect(ctx, s, c.UploadID, c.File.CreatedAt); err != nil {
				return meta.Answer{}, err
			}
		}
		job, err := jobOfBlob(ctx, s, blobID)
		if err != nil {
			return meta.Answer{}, err
		}
		f := c.File
		f.BlobID, f.Size, f.SHA1, f.Transfer = blobID, job.Blob.Size, job.Blob.SHA1, job.Transfer
		f.Stored = job.Blob.Store != ""
		return putFile(ctx, s, &c, f, true)
	})
}

// EndUpload records that an upload ended without a file; see meta.Catalog.
func (db *DB) EndUpload(ctx context.Context, a meta.Answer) (meta.Answer, error) {
	return write(ctx, db, "EndUpload", a.UploadID, func(ctx context.Context, s *session) (meta.Answer, error) {
		a := a // it may be run again
		earlier, found, err := db.earlierAnswer(ctx, s, a.UploadID, "", "")
		if found || err != nil {
			return earlier, err
		}
		if a.Key != "" { // another upload's answer keeps the key
			_, taken, err := db.earlierAnswer(ctx, s, "", a.Owner, a.Key)
			if err != nil {
				return meta.Answer{}, err
			}
			if taken {
				a.Key = ""
			}
		}
		if err := endDirect(ctx, s, a.UploadID, a.CreatedAt); err != nil {
			return meta.Answer{}, err
		}
		a.File, a.Instant = nil, false
		a.CreatedAt, a.ExpiresAt = kept(a.CreatedAt), kept(a.ExpiresAt)
		return a, insertAnswer(ctx, s, &a)
	})
}

// earlierCommit looks for what an earlier call with the same commit did.
func (db *DB) earlierCommit(ctx context.Context, s *session, c *meta.Commit) (meta.Answer, bool, error) {
	if c.Answer {
		return db.earlierAnswer(ctx, s, c.UploadID, c.File.Owner, c.Key)
	}
	var blobID string
	err := row(ctx, s, []any{&blobID}, `SELECT b.id FROM blobs b WHERE b.staging = ?`, c.UploadID)
	if errors.Is(err, sql.ErrNoRows) {
		return meta.Answer{}, false, nil
	}
	if err != nil {
		return meta.Answer{}, false, err
	}
	var f upload.File
	err = row(ctx, s, scanFile(&f), fileQuery+` WHERE f.blob_id = ? AND f.owner = ? ORDER BY f.id LIMIT 1`, blobID, c.File.Owner)
	if errors.Is(err, sql.ErrNoRows) {
		err = upload.Errorf(upload.Conflict, "", "", "The upload became a file that has been deleted since.")
	}
	return answerOf(c, &f, false), true, err
}

func (db *DB) earlierInstant(ctx context.Context, s *session, c *meta.Commit) (meta.Answer, bool, error) {
	if c.Answer {
		return db.earlierAnswer(ctx, s, c.UploadID, c.File.Owner, c.Key)
	}
	f, found, err := ownFile(ctx, s, c.File.Owner, c.File.ID)
	return answerOf(c, &f, true), found, err
}

// earlierAnswer looks for an answer by upload id (if not "") and by key (if not ""). One that has
// expired is deleted, so that another can take its place.
func (db *DB) earlierAnswer(ctx context.Context, s *session, uploadID, owner, key string) (meta.Answer, bool, error) {
	look := func(query string, args ...any) (meta.Answer, bool, error) {
		var a meta.Answer
		err := row(ctx, s, scanAnswer(&a), query, args...)
		if errors.Is(err, sql.ErrNoRows) {
			return a, false, nil
		}
		if err != nil || db.now().Before(a.ExpiresAt) {
			return ownedAnswer(a), err == nil, err
		}
		// The time again: another may have put its answer in the place of this one by now.
		_, err = s.exec(ctx, `DELETE FROM answers WHERE upload_id = ? AND expires_at = ?`, a.UploadID, at(a.ExpiresAt))
		return meta.Answer{}, false, err
	}
	if uploadID != "" {
		if a, found, err := look(answerByID, uploadID); found || err != nil {
			return a, found, err
		}
	}
	if key != "" {
		return look(answerByKey, owner, key)
	}
	return meta.Answer{}, false, nil
}

// putFile makes the file f of a blob that counts it already, or gives an existing file that content,
// and records the answer.
func putFile(ctx context.Context, s *session, c *meta.Commit, f upload.File, instant bool) (meta.Answer, error) {
	now := kept(c.File.CreatedAt)
	f.CreatedAt, f.UpdatedAt = now, now
	replaced := false
	if c.Replaces != "" {
		if err := s.lock(ctx, fileRow, c.Replaces); err != nil { // or it gets another content, or goes
			return meta.Answer{}, err
		}
		old, found, err := ownFile(ctx, s, f.Owner, c.Replaces)
		if err != nil {
			return meta.Answer{}, err
		}
		if replaced = found; found {
			if err := replaceContent(ctx, s, &f, &old, now); err != nil {
				return meta.Answer{}, err
			}
		}
	}
	if !replaced {
		if err := insertFile(ctx, s, &f); err != nil {
			return meta.Answer{}, err
		}
	}
	a := answerOf(c, &f, instant)
	if !c.Answer {
		return a, nil
	}
	return a, insertAnswer(ctx, s, &a)
}

// replaceContent gives the file old the content of f. What f does not say stays as it was.
func replaceContent(ctx context.Context, s *session, f, old *upload.File, now time.Time) error {
	f.ID, f.CreatedAt = old.ID, old.CreatedAt
	if f.Name == "" {
		f.Name = old.Name
	}
	if f.Path == "" {
		f.Path = old.Path
	}
	if f.ContentType == "" {
		f.ContentType = old.ContentType
	}
	if f.Metadata == nil {
		f.Metadata = old.Metadata
	}
	meta, err := metadataJSON(f.Metadata)
	if err != nil {
		return err
	}
	if _, err := s.exec(ctx, `UPDATE files SET blob_id = ?, size = ?, name = ?, name_folded = ?, path = ?, content_type = ?,
		metadata = ?, updated_at = ? WHERE id = ?`,
		f.BlobID, f.Size, f.Name, fold(f.Name), f.Path, f.ContentType, meta, at(now), f.ID); err != nil {
		return err
	}
	return dropRef(ctx, s, old.BlobID, f.Owner, now)
}

// dropRef takes one reference from a blob. Without any it is condemned; if its bytes are not good, it
// gives its identity up, so that nobody is referred to it again.
func dropRef(ctx context.Context, s *session, blobID, owner string, now time.Time) error {
	if _, err := s.exec(ctx, `UPDATE blobs SET refs = refs - 1 WHERE id = ?`, blobID); err != nil {
		return err
	}
	return condemn(ctx, s, blobID, owner, now)
}

// condemn condemns a blob that has no references; others stay as they are.
func condemn(ctx context.Context, s *session, blobID, lastOwner string, now time.Time) error {
	_, err := s.exec(ctx, `UPDATE blobs SET root = CASE WHEN state = 'live' THEN root ELSE NULL END, state = 'condemned',
		condemned_at = ?, last_owner = ?, updated_at = ? WHERE id = ? AND refs = 0 AND state IN ('live', 'lost', 'stranded')`,
		at(now), orNull(lastOwner), at(now), blobID)
	return err
}

func answerOf(c *meta.Commit, f *upload.File, instant bool) meta.Answer {
	return meta.Answer{
		UploadID: c.UploadID, Owner: f.Owner, Key: c.Key, Fingerprint: c.Fingerprint, State: upload.Complete, Instant: instant,
		File: f, CreatedAt: kept(c.File.CreatedAt), ExpiresAt: kept(c.AnswerUntil),
	}
}

// ownedAnswer gives the file of an answer what its column leaves out.
func ownedAnswer(a meta.Answer) meta.Answer {
	if a.File != nil {
		a.File.Owner = a.Owner
	}
	return a
}

func insertBlob(ctx context.Context, s *session, b *upload.Blob) error {
	_, err := s.exec(ctx, `INSERT INTO blobs (id, sha1, size, hint, crc32c, state, refs, node, staging, store, object_key,
		created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		b.ID, b.SHA1[:], b.Size, b.Hint[:], int64(b.CRC32C), string(b.State), b.Refs, orNull(b.Node), orNull(b.Staging),
		orNull(b.Store), orNull(b.ObjectKey), at(b.CreatedAt), at(b.CreatedAt))
	return err
}

func insertTransfer(ctx context.Context, s *session, t *upload.Transfer) error {
	_, err := s.exec(ctx, `INSERT INTO transfers (id, blob_id, node, store, state, bytes, attempts, next_at, due_at, lease_epoch,
		created_at, updated_at) VALUES (?, ?, ?, ?, 'queued', 0, 0, ?, 0, 0, ?, ?)`,
		t.ID, t.BlobID, t.Node, t.Store, at(t.NextAt), at(t.CreatedAt), at(t.UpdatedAt))
	return err
}

func insertFile(ctx context.Context, s *session, f *upload.File) error {
	meta, err := metadataJSON(f.Metadata)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO files (id, owner, blob_id, name, name_folded, path, content_type, metadata, size, created_at,
		updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		f.ID, f.Owner, f.BlobID, f.Name, fold(f.Name), f.Path, f.ContentType, meta, f.Size, at(f.CreatedAt), at(f.UpdatedAt))
	return err
}

func insertAnswer(ctx context.Context, s *session, a *meta.Answer) error {
	file, err := answerFileJSON(a.File)
	if err != nil {
		return err
	}
	instant := int64(0)
	if a.Instant {
		instant = 1
	}
	_, err = s.exec(ctx, `INSERT INTO answers (upload_id, owner, idem_key, fingerprint, state, instant, file, want, got, created_at,
		expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		a.UploadID, a.Owner, orNull(a.Key), orNull(a.Fingerprint), string(a.State), instant, file, orNull(a.Want), orNull(a.Got),
		at(a.CreatedAt), at(a.ExpiresAt))
	return err
}

// fold is a name as it is searched and sorted: without regard to case.
func fold(name string) string { return strings.ToLower(name) }
