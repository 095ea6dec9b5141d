package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gantry/meta"
	"gantry/upload"
)

const (
	moveColumns = `m.id, m.blob_id, m.from_store, m.from_key, m.to_store, m.to_key, m.state, m.checkpoint, m.created_at, m.switched_at`
	moveQuery   = `SELECT ` + moveColumns + ` FROM moves m`

	blobsInQuery = blobQuery + ` WHERE b.store = ? AND b.state = ? AND b.id > ? ORDER BY b.id LIMIT ?`
)

func scanMove(m *meta.Move) []any {
	return []any{
		&m.ID, &m.BlobID, &m.From.Store, &m.From.Key, &m.To.Store, &m.To.Key, &m.State, &m.Checkpoint,
		(*micros)(&m.CreatedAt), (*micros)(&m.SwitchedAt),
	}
}

// BlobsIn goes through the blobs in a store; see meta.Mover.
func (db *DB) BlobsIn(ctx context.Context, store string, state upload.BlobState, after string, limit int) ([]upload.Blob, error) {
	blobs, err := rows(ctx, db.reader, scanBlob, blobsInQuery, store, string(state), after, limit)
	return blobs, db.failure("meta.BlobsIn", "", err)
}

// tally is how many rows have a state, and how many bytes they stand for.
type tally struct {
	state    string
	n, bytes int64
}

func scanTally(c *tally) []any { return []any{&c.state, &c.n, &c.bytes} }

// Usage counts what a store has; see meta.Mover.
func (db *DB) Usage(ctx context.Context, store string) (meta.Usage, error) {
	var u meta.Usage
	blobs, err := rows(ctx, db.reader, scanTally, `SELECT b.state, COUNT(*), SUM(b.size) FROM blobs b WHERE b.store = ? GROUP BY b.state`, store)
	if err != nil {
		return u, db.failure("meta.Usage", "", err)
	}
	for _, c := range blobs {
		switch upload.BlobState(c.state) {
		case upload.BlobLive, upload.BlobStranded:
			u.Live += c.n
			u.Bytes += c.bytes
		case upload.BlobCondemned, upload.BlobDeleting:
			u.Condemned += c.n
		case upload.BlobLost:
			u.Lost = c.n
		}
	}
	transfers, err := rows(ctx, db.reader, scanTally, `SELECT t.state, COUNT(*), 0 FROM transfers t
		WHERE t.state IN ('queued', 'running', 'verifying', 'retrying', 'dead', 'cancelled') AND t.store = ? GROUP BY t.state`, store)
	if err != nil {
		return u, db.failure("meta.Usage", "", err)
	}
	for _, c := range transfers {
		if upload.TransferState(c.state).Final() {
			u.Halted += c.n
		} else {
			u.Waiting += c.n
		}
	}
	err = row(ctx, db.reader, []any{&u.Copying, &u.Leftovers}, `SELECT
		(SELECT COUNT(*) FROM moves m WHERE m.state = 'copying' AND m.to_store = ?),
		(SELECT COUNT(*) FROM moves m WHERE m.state <> 'copying' AND (CASE WHEN m.switched_at IS NULL THEN m.to_store ELSE m.from_store END) = ?)`,
		store, store)
	return u, db.failure("meta.Usage", "", err)
}

// Moves lists moves; see meta.Mover.
func (db *DB) Moves(ctx context.Context, q meta.MoveQuery) ([]meta.Move, error) {
	query, args := moveQuery+` WHERE m.id > ?`, []any{q.After}
	if q.BlobID != "" {
		query, args = query+` AND m.blob_id = ?`, append(args, q.BlobID)
	}
	if q.State != "" {
		query, args = query+` AND m.state = ?`, append(args, string(q.State))
	}
	moves, err := rows(ctx, db.reader, scanMove, query+` ORDER BY m.id LIMIT ?`, append(args, q.Limit)...)
	return moves, db.failure("meta.Moves", "", err)
}

// BeginMove makes a move's row; see meta.Mover.
func (db *DB) BeginMove(ctx context.Context, fence meta.Fence, blob *upload.Blob, to string, now time.Time) (meta.Move, error) {
	return write(ctx, db, "BeginMove", blob.ID, func(ctx context.Context, s *session) (meta.Move, error) {
		b, err := s.mover(ctx, fence, blob.ID)
		movable := b.State == upload.BlobLive || b.State == upload.BlobStranded
		if err == nil && (!movable || b.Root.IsZero() || b.Undigested() || b.Store != blob.Store || b.ObjectKey != blob.ObjectKey || b.Store == "" || b.Store == to) {
			err = notThere(&b)
		}
		if err != nil {
			return meta.Move{}, err
		}
		begun, err := rows(ctx, s, scanMove, moveQuery+` WHERE m.blob_id = ? AND m.state = 'copying'`, b.ID)
		if err != nil {
			return meta.Move{}, err
		}
		from := meta.Place{Store: b.Store, Key: b.ObjectKey}
		for i := range begun { // one at the most
			if begun[i].From == from && begun[i].To.Store == to {
				return begun[i], nil
			}
			if _, err := s.exec(ctx, `UPDATE moves SET state = 'deleting' WHERE id = ? AND state = 'copying'`, begun[i].ID); err != nil {
				return meta.Move{}, err
			}
		}
		id := upload.NewID(now)
		m := meta.Move{
			ID: id, BlobID: b.ID, From: from, To: meta.Place{Store: to, Key: upload.MovedKeyFor(&b, id)},
			State: meta.MoveCopying, CreatedAt: kept(now),
		}
		_, err = s.exec(ctx, `INSERT INTO moves (id, blob_id, from_store, from_key, to_store, to_key, state, created_at)
			VALUES (?, ?, ?, ?, ?, ?, 'copying', ?)`, m.ID, m.BlobID, m.From.Store, m.From.Key, m.To.Store, m.To.Key, at(now))
		return m, err
	})
}

// mover locks and reads a blob for who holds the lease.
func (s *session) mover(ctx context.Context, fence meta.Fence, blobID string) (b upload.Blob, err error) {
	if err := s.behind(ctx, fence); err != nil {
		return b, err
	}
	if err := s.lock(ctx, blobRow, blobID); err != nil {
		return b, err
	}
	err = row(ctx, s, scanBlob(&b), blobQuery+` WHERE b.id = ?`, blobID)
	if errors.Is(err, sql.ErrNoRows) {
		err = upload.Errorf(upload.Conflict, "", "", "The blob was deleted.")
	}
	return b, err
}

// moving reads a move and, locked, its blob.
func (s *session) moving(ctx context.Context, fence meta.Fence, id string) (m meta.Move, b upload.Blob, err error) {
	read := func() error {
		err := row(ctx, s, scanMove(&m), moveQuery+` WHERE m.id = ?`, id)
		if errors.Is(err, sql.ErrNoRows) {
			err = upload.Errorf(upload.Conflict, "", "", "The move was given up.")
		}
		return err
	}
	if err := read(); err != nil { // whose it is never changes
		return m, b, err
	}
	if b, err = s.mover(ctx, fence, m.BlobID); err != nil {
		return m, b, err
	}
	m = meta.Move{}
	return m, b, read()
}

func notThere(b *upload.Blob) error {
	return upload.Errorf(upload.Conflict, "", "", "The blob is %s in store %q under %q: not what was to be moved.", b.State, b.Store, b.ObjectKey)
}

// SaveMove keeps the checkpoint of a move; see meta.Mover.
func (db *DB) SaveMove(ctx context.Context, fence meta.Fence, id string, checkpoint []byte) error {
	return db.ofMove(ctx, "SaveMove", fence, id, `UPDATE moves SET checkpoint = ? WHERE id = ? AND state = 'copying'`, checkpoint, id)
}

// Abandon gives up a move; see meta.Mover.
func (db *DB) Abandon(ctx context.Context, fence meta.Fence, id string) error {
	return db.ofMove(ctx, "Abandon", fence, id, `UPDATE moves SET state = 'deleting' WHERE id = ? AND state = 'copying'`, id)
}

func (db *DB) ofMove(ctx context.Context, op string, fence meta.Fence, id, update string, args ...any) error {
	return act(ctx, db, op, id, func(ctx context.Context, s *session) error {
		if err := s.behind(ctx, fence); err != nil {
			return err
		}
		n, err := s.exec(ctx, update, args...)
		if err == nil && n == 0 {
			err = upload.Errorf(upload.Conflict, "", "", "The move is not under way any more.")
		}
		return err
	})
}

// Switch makes the new place the blob's; see meta.Mover.
func (db *DB) Switch(ctx context.Context, fence meta.Fence, id string, now time.Time) error {
	return act(ctx, db, "Switch", id, func(ctx context.Context, s *session) error {
		m, b, err := s.moving(ctx, fence, id)
		switch {
		case err != nil:
			return err
		case m.State == meta.MoveSwitched && b.Store == m.To.Store && b.ObjectKey == m.To.Key:
			return nil
		case m.State != meta.MoveCopying || b.Store != m.From.Store || b.ObjectKey != m.From.Key || !wanted(b.State):
			return notThere(&b)
		}
		// On condition of its state: Abandon does not lock the blob.
		n, err := s.exec(ctx, `UPDATE moves SET state = 'switched', switched_at = ?, checkpoint = NULL WHERE id = ? AND state = 'copying'`, at(now), id)
		if err != nil {
			return err
		}
		if n == 0 {
			return notThere(&b)
		}
		return s.place(ctx, b.ID, m.To, now)
	})
}

// wanted reports whether a blob in a store in this state has, as far as is known, its bytes, and may need them.
func wanted(state upload.BlobState) bool { return offered(state) || state == upload.BlobStranded }

// place says where a blob is. Its transfer, should the object get lost, goes there again.
func (s *session) place(ctx context.Context, blobID string, to meta.Place, now time.Time) error {
	if _, err := s.exec(ctx, `UPDATE blobs SET store = ?, object_key = ?, verified_at = ?, updated_at = ? WHERE id = ?`,
		to.Store, to.Key, at(now), at(now), blobID); err != nil {
		return err
	}
	_, err := s.exec(ctx, `UPDATE transfers SET store = ? WHERE blob_id = ?`, to.Store, blobID)
	return err
}

// SwitchBack makes the old place the blob's again; see meta.Mover.
func (db *DB) SwitchBack(ctx context.Context, fence meta.Fence, id string, now time.Time) error {
	return act(ctx, db, "SwitchBack", id, func(ctx context.Context, s *session) error {
		m, b, err := s.moving(ctx, fence, id)
		switch {
		case err != nil:
			return err
		case m.State == meta.MoveDeleting && m.SwitchedAt.IsZero() && b.Store == m.From.Store && b.ObjectKey == m.From.Key:
			return nil
		case m.State != meta.MoveSwitched || b.Store != m.To.Store || b.ObjectKey != m.To.Key || !wanted(b.State):
			return notThere(&b)
		}
		// On condition of its state: Leftovers does not lock the blob.
		n, err := s.exec(ctx, `UPDATE moves SET state = 'deleting', switched_at = NULL WHERE id = ? AND state = 'switched'`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return upload.Errorf(upload.Conflict, "", "", "The old object is being deleted.")
		}
		return s.place(ctx, b.ID, m.From, now)
	})
}

// Leftovers returns moves whose garbage may be deleted; see meta.Mover.
func (db *DB) Leftovers(ctx context.Context, fence meta.Fence, switchedBefore time.Time, after string, limit int) ([]meta.Move, error) {
	return write(ctx, db, "Leftovers", "", func(ctx context.Context, s *session) ([]meta.Move, error) {
		if err := s.behind(ctx, fence); err != nil {
			return nil, err
		}
		ids, err := rows(ctx, s, scanString, `SELECT m.id FROM moves m WHERE m.state = 'switched' AND m.switched_at < ?
			ORDER BY m.switched_at LIMIT ?`, at(switchedBefore), limit)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if _, err := s.exec(ctx, `UPDATE moves SET state = 'deleting' WHERE id = ? AND state = 'switched'`, id); err != nil {
				return nil, err
			}
		}
		return rows(ctx, s, scanMove, moveQuery+` WHERE m.state = 'deleting' AND m.id > ? ORDER BY m.id LIMIT ?`, after, limit)
	})
}

// ForgetMove ends a move; see meta.Mover.
func (db *DB) ForgetMove(ctx context.Context, id string) error {
	return act(ctx, db, "ForgetMove", id, func(ctx context.Context, s *session) error {
		n, err := s.exec(ctx, `DELETE FROM moves WHERE id = ? AND state = 'deleting'`, id)
		if err != nil || n > 0 {
			return err
		}
		var one int
		if err = row(ctx, s, []any{&one}, `SELECT 1 FROM moves m WHERE m.id = ?`, id); errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err == nil {
			err = upload.Errorf(upload.Conflict, "", "", "The move's objects are needed still.")
		}
		return err
	})
}

// ObjectLost records that a blob's object is gone or wrong; see meta.Mover.
func (db *DB) ObjectLost(ctx context.Context, blobID string, place meta.Place, reason string, now time.Time) error {
	return act(ctx, db, "ObjectLost", blobID, func(ctx context.Context, s *session) error {
		b, err := s.mover(ctx, meta.Fence{}, blobID)
		switch {
		case err != nil:
			return err
		case b.Store != place.Store || b.ObjectKey != place.Key || !wanted(b.State):
			return notThere(&b)
		case b.Node != "":
			return unstore(ctx, s, blobID, reason, now)
		}
		return lose(ctx, s, blobID, reason, now)
	})
}
