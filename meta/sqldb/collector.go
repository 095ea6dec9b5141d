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

// Collect moves condemned blobs to deleting; see meta.Collector.
func (db *DB) Collect(ctx context.Context, q meta.CollectQuery) ([]upload.Blob, error) {
	return write(ctx, db, "Collect", "", func(ctx context.Context, s *session) ([]upload.Blob, error) {
		if err := s.behind(ctx, q.Fence); err != nil {
			return nil, err
		}
		const notLeased = `NOT EXISTS (SELECT 1 FROM transfers t WHERE t.blob_id = blobs.id AND t.state IN ('running', 'verifying') AND t.lease_until > ?)`
		ids, err := rows(ctx, s, scanString, `SELECT id FROM blobs WHERE state = 'condemned' AND condemned_at < ? AND refs = 0
			AND `+notLeased+` ORDER BY condemned_at LIMIT ?`, at(q.CondemnedBefore), at(q.Now), q.Limit)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if err := s.lock(ctx, blobRow, id); err != nil { // or a worker leases its transfer
				return nil, err
			}
			n, err := s.exec(ctx, `UPDATE blobs SET state = 'deleting', root = NULL, updated_at = ? WHERE id = ? AND state = 'condemned'
				AND refs = 0 AND `+notLeased, at(q.Now), id, at(q.Now))
			if err != nil {
				return nil, err
			}
			if n == 0 {
				continue
			}
			if err := finish(ctx, s, id, upload.TransferCancelled, "", q.Now); err != nil {
				return nil, err
			}
		}
		without, args := "", []any{q.Node, q.Node}
		if len(q.Without) > 0 {
			without = ` AND (b.store IS NULL OR b.store NOT IN (?` + strings.Repeat(`, ?`, len(q.Without)-1) + `))`
			for _, store := range q.Without {
				args = append(args, store)
			}
		}
		return rows(ctx, s, scanBlob, blobQuery+` WHERE b.state = 'deleting' AND b.condemned_at IS NOT NULL
			AND (? = '' OR b.node IS NULL OR b.node = ?)`+without+` ORDER BY b.condemned_at LIMIT ?`, append(args, q.Limit)...)
	})
}

// Deleted forgets a blob whose bytes are gone.
func (db *DB) Deleted(ctx context.Context, blobID string) error {
	return act(ctx, db, "Deleted", blobID, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, blobRow, blobID); err != nil { // in the order in which a switch takes what goes here
			return err
		}
		state, err := stateOf(ctx, s, blobID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil:
			return err
		case state != upload.BlobDeleting:
			return upload.Errorf(upload.Conflict, "", "", "The blob is %s, not being deleted.", state)
		}
		for _, query := range []string{
			`DELETE FROM moves WHERE blob_id = ?`,
			`DELETE FROM checkpoints WHERE transfer_id IN (SELECT t.id FROM transfers t WHERE t.blob_id = ?)`,
			`DELETE FROM transfers WHERE blob_id = ?`,
			`DELETE FROM blobs WHERE id = ?`,
		} {
			if _, err := s.exec(ctx, query, blobID); err != nil {
				return err
			}
		}
		return nil
	})
}

func stateOf(ctx context.Context, s *session, blobID string) (state upload.BlobState, err error) {
	err = row(ctx, s, []any{&state}, `SELECT b.state FROM blobs b WHERE b.id = ?`, blobID)
	return state, err
}

// forgetStep is how many answers one transaction forgets, so that nobody waits long for it.
const forgetStep = 500

// ForgetAnswers deletes expired answers, in several transactions if there are many.
func (db *DB) ForgetAnswers(ctx context.Context, now time.Time) (int, error) {
	const query = `SELECT a.upload_id FROM answers a WHERE a.expires_at <= ? LIMIT ?`
	total := 0
	for {
		ids, err := rows(ctx, db.reader, scanString, query, at(now), forgetStep)
		if err != nil || len(ids) == 0 {
			return total, db.failure("meta.ForgetAnswers", "", err)
		}
		n, err := write(ctx, db, "ForgetAnswers", "", func(ctx context.Context, s *session) (n int64, err error) {
			for _, id := range ids {
				gone, err := s.exec(ctx, `DELETE FROM answers WHERE upload_id = ? AND expires_at <= ?`, id, at(now))
				if err != nil {
					return n, err
				}
				n += gone
			}
			return n, nil
		})
		if total += int(n); err != nil {
			return total, err
		}
	}
}

// KnownStaging returns those of the upload ids that are the staging data of a blob.
func (db *DB) KnownStaging(ctx context.Context, ids []string) (map[string]bool, error) {
	found, err := rowsIn(ctx, db.reader, scanString, `SELECT b.staging FROM blobs b WHERE b.staging IN (?)`, ids)
	if err != nil {
		return nil, db.failure("meta.KnownStaging", "", err)
	}
	known := make(map[string]bool, len(found))
	for _, id := range found {
		known[id] = true
	}
	return known, nil
}

// places is a blob, where its transfer goes, and where one of its moves goes from and to, if it has any.
type places struct {
	job      meta.Job
	from, to meta.Place
}

func scanPlaces(p *places) []any {
	return append(scanJob(&p.job), (*text)(&p.from.Store), (*text)(&p.from.Key), (*text)(&p.to.Store), (*text)(&p.to.Key))
}

// KnownObjects returns those of the object keys that belong to a blob; see meta.Collector.
func (db *DB) KnownObjects(ctx context.Context, store string, keys []string) (map[string]bool, error) {
	ids := make([]string, 0, len(keys))
	for _, key := range keys {
		if id, ok := upload.BlobIDFromKey(key); ok {
			ids = append(ids, id)
		}
	}
	// The direct uploads first: one that becomes a blob in between is a blob by then.
	direct, err := rowsIn(ctx, db.reader, scanDirect, directQuery+` WHERE d.blob_id IN (?)`, ids)
	if err != nil {
		return nil, db.failure("meta.KnownObjects", "", err)
	}
	// One query: between two a switch could pass an object from the one to the other.
	found, err := rowsIn(ctx, db.reader, scanPlaces, `SELECT `+blobColumns+`, `+transferColumns+`, m.from_store, m.from_key, m.to_store, m.to_key
		FROM transfers t JOIN blobs b ON b.id = t.blob_id LEFT JOIN moves m ON m.blob_id = b.id WHERE b.id IN (?)`, ids)
	if err != nil {
		return nil, db.failure("meta.KnownObjects", "", err)
	}
	theirs := make(map[string]bool, len(found)+len(direct))
	for i := range direct {
		if direct[i].Store == store {
			theirs[direct[i].ObjectKey] = true
		}
	}
	for i := range found {
		b, t := &found[i].job.Blob, &found[i].job.Transfer
		if b.Store == store {
			theirs[b.ObjectKey] = true
		} else if b.Store == "" && t.Store == store {
			theirs[upload.ObjectKeyFor(b)] = true
		}
		for _, place := range []meta.Place{found[i].from, found[i].to} {
			if place.Store == store {
				theirs[place.Key] = true
			}
		}
	}
	known := make(map[string]bool, len(theirs))
	for _, key := range keys {
		if theirs[key] {
			known[key] = true
		}
	}
	return known, nil
}

// Blobs goes through all blobs in the order of ids.
func (db *DB) Blobs(ctx context.Context, after string, limit int) ([]upload.Blob, error) {
	blobs, err := rows(ctx, db.reader, scanBlob, blobQuery+` WHERE b.id > ? ORDER BY b.id LIMIT ?`, after, limit)
	return blobs, db.failure("meta.Blobs", "", err)
}

// refCount is a blob with its number of files.
type refCount struct {
	id string
	n  int64
}

// WrongRefs returns blobs whose refs differ from the number of their files, with that number. It reads
// all of both tables.
func (db *DB) WrongRefs(ctx context.Context) (map[string]int64, error) {
	found, err := rows(ctx, db.reader, func(c *refCount) []any { return []any{&c.id, &c.n} },
		`SELECT b.id, COUNT(f.id) FROM blobs b LEFT JOIN files f ON f.blob_id = b.id GROUP BY b.id, b.refs HAVING b.refs <> COUNT(f.id)`)
	if err != nil {
		return nil, db.failure("meta.WrongRefs", "", err)
	}
	wrong := make(map[string]int64, len(found))
	for _, c := range found {
		wrong[c.id] = c.n
	}
	return wrong, nil
}

// MendRefs sets refs to the number of files; see meta.Collector.
func (db *DB) MendRefs(ctx context.Context, blobID string, now time.Time) error {
	return act(ctx, db, "MendRefs", blobID, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, blobRow, blobID); err != nil { // before the files are counted
			return err
		}
		n, err := s.exec(ctx, `UPDATE blobs SET refs = (SELECT COUNT(*) FROM files f WHERE f.blob_id = blobs.id) WHERE id = ?`, blobID)
		if err != nil {
			return err
		}
		if n == 0 {
			return noBlob()
		}
		if err := condemn(ctx, s, blobID, "", now); err != nil {
			return err
		}
		// It was condemned, or on its way out, with files: bytes that are there are good again.
		for _, query := range []string{
			`UPDATE blobs SET state = 'live', condemned_at = NULL, last_owner = NULL, updated_at = ? WHERE id = ? AND refs > 0 AND state = 'condemned'`,
			`UPDATE blobs SET state = 'lost', condemned_at = NULL, updated_at = ? WHERE id = ? AND refs > 0 AND state = 'deleting'`,
		} {
			if _, err := s.exec(ctx, query, at(now), blobID); err != nil {
				return err
			}
		}
		return nil
	})
}

// MarkLost records that a blob's bytes are gone or wrong.
func (db *DB) MarkLost(ctx context.Context, blobID, reason string, now time.Time) error {
	return act(ctx, db, "MarkLost", blobID, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, blobRow, blobID); err != nil {
			return err
		}
		state, err := stateOf(ctx, s, blobID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return noBlob()
		case err != nil || state == upload.BlobLost || state == upload.BlobDeleting:
			return err
		}
		return lose(ctx, s, blobID, reason, now)
	})
}

// Unstore makes the transfer of a blob due again whose store has lost it; see meta.Collector.
func (db *DB) Unstore(ctx context.Context, blobID, reason string, now time.Time) error {
	return act(ctx, db, "Unstore", blobID, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, blobRow, blobID); err != nil {
			return err
		}
		var b upload.Blob
		err := row(ctx, s, scanBlob(&b), blobQuery+` WHERE b.id = ?`, blobID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return noBlob()
		case err != nil:
			return err
		case b.Node == "" || !offered(b.State):
			return upload.Errorf(upload.Conflict, "", "", "Staging does not have the content either.")
		case b.Store == "":
			return nil
		}
		return unstore(ctx, s, blobID, reason, now)
	})
}

// unstore says that a blob is in no store. Its transfer is due again.
func unstore(ctx context.Context, s *session, blobID, reason string, now time.Time) error {
	if _, err := s.exec(ctx, `UPDATE blobs SET store = NULL, object_key = NULL, verified_at = NULL, updated_at = ? WHERE id = ?`,
		at(now), blobID); err != nil {
		return err
	}
	return requeue(ctx, s, blobID, reason, now)
}
