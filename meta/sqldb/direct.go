package sqldb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gantry/meta"
	"gantry/upload"
)

const (
	directColumns = `d.spec, d.blob_id, d.store, d.object_key, d.multipart_id, d.updated_at`
	directQuery   = `SELECT ` + directColumns + ` FROM direct_uploads d`

	directByID  = directQuery + ` WHERE d.id = ? AND d.ended_at IS NULL`
	directByKey = directQuery + ` WHERE d.owner = ? AND d.idem_key = ?`

	directOfOwner = directQuery + ` WHERE d.owner = ? AND d.id > ? AND d.ended_at IS NULL ORDER BY d.id LIMIT ?`
	idleDirect    = directQuery + ` WHERE d.updated_at < ? AND d.ended_at IS NULL ORDER BY d.updated_at LIMIT ?`

	// directRow is locked by a commit before the answer is looked for: one that waits for another commit then sees
	// its answer, and not only that the row is gone. See dialect.go.
	directRow = `SELECT d.id FROM direct_uploads d WHERE d.id = ?`
)

func scanDirect(d *meta.DirectUpload) []any {
	return []any{specJSON{&d.Spec}, &d.BlobID, &d.Store, &d.ObjectKey, &d.MultipartID, (*micros)(&d.UpdatedAt)}
}

// specJSON is a column with an upload.Spec.
type specJSON struct{ spec *upload.Spec }

func (j specJSON) Scan(value any) error {
	var raw text
	if err := raw.Scan(value); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(raw), j.spec); err != nil {
		return fmt.Errorf("what a direct upload was to be: %w", err)
	}
	return nil
}

// BeginDirect makes a direct upload known; see meta.DirectUploads.
func (db *DB) BeginDirect(ctx context.Context, d meta.DirectUpload) error {
	spec, err := json.Marshal(d.Spec)
	if err != nil {
		return upload.Wrap(upload.Internal, "meta.BeginDirect", d.ID, err)
	}
	return act(ctx, db, "BeginDirect", d.ID, func(ctx context.Context, s *session) error {
		if d.Key != "" {
			var first meta.DirectUpload
			err := row(ctx, s, scanDirect(&first), directByKey, d.Owner, d.Key)
			if err == nil && first.ID != d.ID {
				return upload.Errorf(upload.Conflict, "", "", "The Idempotency-Key stands for another upload. Look at that one.")
			}
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		_, err := s.exec(ctx, `INSERT INTO direct_uploads (id, owner, idem_key, spec, blob_id, store, object_key, multipart_id, created_at,
			updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			d.ID, d.Owner, orNull(d.Key), string(spec), d.BlobID, d.Store, d.ObjectKey, d.MultipartID, at(d.CreatedAt), at(d.UpdatedAt))
		return err
	})
}

// DirectUpload returns an open direct upload.
func (db *DB) DirectUpload(ctx context.Context, id string) (meta.DirectUpload, error) {
	return db.direct(ctx, "meta.DirectUpload", id, directByID, id)
}

// DirectByKey is DirectUpload by Idempotency-Key.
func (db *DB) DirectByKey(ctx context.Context, owner, key string) (meta.DirectUpload, error) {
	return db.direct(ctx, "meta.DirectByKey", "", directByKey, owner, key)
}

func (db *DB) direct(ctx context.Context, op, id, query string, args ...any) (meta.DirectUpload, error) {
	var d meta.DirectUpload
	if err := row(ctx, db.reader, scanDirect(&d), query, args...); err != nil {
		return meta.DirectUpload{}, db.missing(op, id, "upload", err)
	}
	return d, nil
}

// DirectOf lists an owner's open direct uploads.
func (db *DB) DirectOf(ctx context.Context, owner, after string, limit int) ([]meta.DirectUpload, error) {
	all, err := rows(ctx, db.reader, scanDirect, directOfOwner, owner, after, limit)
	return all, db.failure("meta.DirectOf", "", err)
}

// CountDirect counts the open direct uploads.
func (db *DB) CountDirect(ctx context.Context) (int, error) {
	var n int
	err := row(ctx, db.reader, []any{&n}, `SELECT COUNT(*) FROM direct_uploads d WHERE d.ended_at IS NULL`)
	return n, db.failure("meta.CountDirect", "", err)
}

// TouchDirect notes that the client goes on with a direct upload.
func (db *DB) TouchDirect(ctx context.Context, id string, now time.Time) error {
	return act(ctx, db, "TouchDirect", id, func(ctx context.Context, s *session) error {
		n, err := s.exec(ctx, `UPDATE direct_uploads SET updated_at = ? WHERE id = ? AND ended_at IS NULL`, at(now), id)
		if err == nil && n == 0 {
			err = noDirect()
		}
		return err
	})
}

func noDirect() error {
	return upload.Errorf(upload.NotFound, "", "", "There is no such direct upload any more. Begin a new one.")
}

// CommitDirect makes a file of a direct upload; see meta.DirectUploads.
func (db *DB) CommitDirect(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	defer db.copies.changed(c.File.Owner)
	return write(ctx, db, "CommitDirect", c.UploadID, func(ctx context.Context, s *session) (meta.Answer, error) {
		if err := s.lock(ctx, directRow, c.UploadID); err != nil {
			return meta.Answer{}, err
		}
		earlier, found, err := db.earlierAnswer(ctx, s, c.UploadID, c.File.Owner, c.Key)
		if found || err != nil {
			return earlier, err
		}
		var d meta.DirectUpload
		err = row(ctx, s, scanDirect(&d), directByID, c.UploadID)
		if errors.Is(err, sql.ErrNoRows) {
			err = noDirect()
		}
		if err != nil {
			return meta.Answer{}, err
		}
		if _, err := s.exec(ctx, `DELETE FROM direct_uploads WHERE id = ?`, c.UploadID); err != nil {
			return meta.Answer{}, err
		}
		b := newBlob(&c)
		b.ID, b.Store, b.ObjectKey = d.BlobID, d.Store, d.ObjectKey
		return putContent(ctx, s, &c, &b, d.Store)
	})
}

// endDirect hides a direct upload that ends without the object it was to become. Others are not touched.
func endDirect(ctx context.Context, s *session, id string, now time.Time) error {
	_, err := s.exec(ctx, `UPDATE direct_uploads SET ended_at = ?, idem_key = NULL WHERE id = ? AND ended_at IS NULL`, at(now), id)
	return err
}

// IdleDirect returns open direct uploads whose clients have not been heard of.
func (db *DB) IdleDirect(ctx context.Context, before time.Time, limit int) ([]meta.DirectUpload, error) {
	idle, err := rows(ctx, db.reader, scanDirect, idleDirect, at(before), limit)
	return idle, db.failure("meta.IdleDirect", "", err)
}

// EndedDirect returns direct uploads whose rests are to be deleted.
func (db *DB) EndedDirect(ctx context.Context, after string, limit int) ([]meta.DirectUpload, error) {
	ended, err := rows(ctx, db.reader, scanDirect, directQuery+` WHERE d.ended_at IS NOT NULL AND d.id > ? ORDER BY d.id LIMIT ?`, after, limit)
	return ended, db.failure("meta.EndedDirect", "", err)
}

// DropDirect forgets a direct upload that has ended.
func (db *DB) DropDirect(ctx context.Context, id string) error {
	return act(ctx, db, "DropDirect", id, func(ctx context.Context, s *session) error {
		_, err := s.exec(ctx, `DELETE FROM direct_uploads WHERE id = ? AND ended_at IS NOT NULL`, id)
		return err
	})
}

// SetDigests records the digests of a blob whose bytes nobody had read; see meta.Outbox.
func (db *DB) SetDigests(ctx context.Context, id string, epoch int64, found upload.Sealed, now time.Time) error {
	return act(ctx, db, "SetDigests", id, func(ctx context.Context, s *session) error {
		if err := s.held(ctx, id, epoch, `updated_at = ?`, at(now)); err != nil {
			return err
		}
		var job meta.Job
		if err := row(ctx, s, scanJob(&job), jobQuery+` WHERE t.id = ?`, id); err != nil {
			return err
		}
		b := &job.Blob
		recorded := upload.Sealed{Size: b.Size, SHA1: b.SHA1, Hint: b.Hint, CRC32C: b.CRC32C}
		if recorded == found {
			return nil
		}
		announced := b.SHA1.IsZero() || b.SHA1 == found.SHA1
		if found.Size != b.Size || !announced || !b.Hint.IsZero() { // with a hint all of them are recorded
			return &upload.Error{
				Kind: upload.DigestMismatch, Want: b.SHA1.String(), Got: found.SHA1.String(),
				Detail: "The content is not what was announced, or what it was when it was read before.",
			}
		}
		_, err := s.exec(ctx, `UPDATE blobs SET sha1 = ?, hint = ?, crc32c = ?, updated_at = ? WHERE id = ?`,
			found.SHA1[:], found.Hint[:], int64(found.CRC32C), at(now), b.ID)
		return err
	})
}

// passOn gives the work that a node had on objects in stores to the node that was heard of last.
func passOn(ctx context.Context, s *session, node string) error {
	var heir string
	err := row(ctx, s, []any{&heir}, `SELECT n.id FROM nodes n WHERE n.forgotten_at IS NULL AND n.id <> ?
		ORDER BY CASE WHEN n.left_at IS NULL THEN 0 ELSE 1 END, n.seen_at DESC LIMIT 1`, node)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `UPDATE transfers SET node = ? WHERE node = ? AND state <> 'stored' AND blob_id IN
		(SELECT b.id FROM blobs b WHERE b.store IS NOT NULL AND b.verified_at IS NULL)`, heir, node)
	return err
}
