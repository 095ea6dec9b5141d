package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// A transfer's due_at is the one column that says when the relay has to look at it: at once (0: no
// clock can be wrong about it) when it is made, at next_at when it is to be tried again, at the end
// of its lease while it is worked on, a while later when it was published, and never (NULL) when it
// is final.

const dueQuery = `SELECT t.id FROM transfers t WHERE t.node = ? AND t.due_at <= ? ORDER BY t.due_at, t.id LIMIT ?`

// TakeDue returns transfers whose time has come; see meta.Outbox.
func (db *DB) TakeDue(ctx context.Context, node string, now time.Time, republish time.Duration, limit int) ([]string, error) {
	// Mostly there is nothing to do, and then the writer is not bothered.
	ids, err := rows(ctx, db.reader, scanString, dueQuery, node, at(now), limit)
	if err != nil || len(ids) == 0 {
		return nil, db.failure("meta.TakeDue", "", err)
	}
	return write(ctx, db, "TakeDue", "", func(ctx context.Context, s *session) ([]string, error) {
		ids, err := rows(ctx, s, scanString, dueQuery, node, at(now), limit)
		if err != nil {
			return nil, err
		}
		taken := ids[:0]
		for _, id := range ids {
			n, err := s.exec(ctx, `UPDATE transfers SET due_at = ? WHERE id = ? AND due_at <= ?`, at(now.Add(republish)), id, at(now))
			if err != nil {
				return nil, err
			}
			if n > 0 { // nobody else took it
				taken = append(taken, id)
			}
		}
		return taken, nil
	})
}

// Lease gives owner the transfer; see meta.Outbox.
func (db *DB) Lease(ctx context.Context, id, owner string, now, until time.Time) (meta.Job, error) {
	return write(ctx, db, "Lease", id, func(ctx context.Context, s *session) (job meta.Job, err error) {
		n, err := s.exec(ctx, `UPDATE transfers SET state = 'running', bytes = 0, attempts = attempts + 1, lease_owner = ?,
			lease_epoch = lease_epoch + 1, lease_until = ?, due_at = ?, updated_at = ?
			WHERE id = ? AND (state = 'queued' OR (state = 'retrying' AND next_at <= ?)
			OR (state IN ('running', 'verifying') AND lease_until <= ?))`,
			owner, at(until), at(until), at(now), id, at(now), at(now))
		if err != nil {
			return job, err
		}
		err = row(ctx, s, scanJob(&job), jobQuery+` WHERE t.id = ?`, id)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return job, noTransfer()
		case err == nil && n == 0:
			return job, upload.Errorf(upload.Conflict, "", "", "The transfer is %s and cannot be worked on now.", job.Transfer.State)
		}
		return job, err
	})
}

func noTransfer() error {
	return upload.Errorf(upload.NotFound, "", "", "There is no such transfer. Look at the listing for those there are.")
}

// fenced changes a transfer that the lease with this epoch still holds, and reports whether it does.
// All writing under a lease begins with it.
func (s *session) fenced(ctx context.Context, id string, epoch int64, set string, args ...any) (bool, error) {
	n, err := s.exec(ctx, `UPDATE transfers SET `+set+` WHERE id = ? AND lease_epoch = ? AND state IN ('running', 'verifying')`,
		append(args, id, epoch)...)
	return n > 0, err
}

// held is fenced where a lost lease is an error.
func (s *session) held(ctx context.Context, id string, epoch int64, set string, args ...any) error {
	ok, err := s.fenced(ctx, id, epoch, set, args...)
	if err == nil && !ok {
		err = leaseLost()
	}
	return err
}

func leaseLost() error {
	return upload.Errorf(upload.Conflict, "", "", "The lease was lost; nothing was changed.")
}

// ended is held for writes that end the lease. Repeated, they find their own work, done under the
// same epoch; same is the condition by which they know it.
func (s *session) ended(ctx context.Context, id string, epoch int64, set string, args []any, same string, sameArgs ...any) (again bool, err error) {
	ok, err := s.fenced(ctx, id, epoch, set+`, lease_owner = NULL, lease_until = NULL`, args...)
	if ok || err != nil {
		return false, err
	}
	var one int
	err = row(ctx, s, []any{&one}, `SELECT 1 FROM transfers t JOIN blobs b ON b.id = t.blob_id
		WHERE t.id = ? AND t.lease_epoch = ? AND `+same, append([]any{id, epoch}, sameArgs...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, leaseLost()
	}
	return true, err
}

// Renew prolongs a lease and records state and progress.
func (db *DB) Renew(ctx context.Context, id string, epoch int64, p meta.Progress) error {
	if p.State != upload.TransferRunning && p.State != upload.TransferVerifying {
		return upload.Errorf(upload.Invalid, "meta.Renew", id, "A transfer that is worked on is not %q.", p.State)
	}
	return act(ctx, db, "Renew", id, func(ctx context.Context, s *session) error {
		return s.held(ctx, id, epoch, `state = ?, bytes = ?, lease_until = ?, due_at = ?, updated_at = ?`,
			string(p.State), p.Bytes, at(p.Until), at(p.Until), at(p.Now))
	})
}

// Checkpoint returns how far the putting of the object got.
func (db *DB) Checkpoint(ctx context.Context, id, store string) (string, error) {
	var state string
	err := row(ctx, db.reader, []any{&state}, `SELECT c.state FROM checkpoints c WHERE c.transfer_id = ? AND c.store = ?`, id, store)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return state, db.failure("meta.Checkpoint", id, err)
}

// SaveCheckpoint keeps how far the putting of the object got.
func (db *DB) SaveCheckpoint(ctx context.Context, id string, epoch int64, store, state string) error {
	return act(ctx, db, "SaveCheckpoint", id, func(ctx context.Context, s *session) error {
		if err := s.held(ctx, id, epoch, `lease_epoch = lease_epoch`); err != nil {
			return err
		}
		if err := forgetCheckpoint(ctx, s, id); err != nil {
			return err
		}
		_, err := s.exec(ctx, `INSERT INTO checkpoints (transfer_id, store, state) VALUES (?, ?, ?)`, id, store, state)
		return err
	})
}

func forgetCheckpoint(ctx context.Context, s *session, id string) error {
	_, err := s.exec(ctx, `DELETE FROM checkpoints WHERE transfer_id = ?`, id)
	return err
}

// Redirect makes another store the transfer's.
func (db *DB) Redirect(ctx context.Context, id string, epoch int64, store string, now time.Time) error {
	return act(ctx, db, "Redirect", id, func(ctx context.Context, s *session) error {
		return s.held(ctx, id, epoch, `store = ?, updated_at = ?`, store, at(now))
	})
}

// Stored records the verified object and ends the transfer.
func (db *DB) Stored(ctx context.Context, id string, epoch int64, store, key string, now time.Time) error {
	return act(ctx, db, "Stored", id, func(ctx context.Context, s *session) error {
		again, err := s.ended(ctx, id, epoch, `state = 'stored', store = ?, due_at = NULL, next_at = NULL, last_error = NULL,
			bytes = (SELECT size FROM blobs WHERE blobs.id = transfers.blob_id), updated_at = ?`, []any{store, at(now)},
			`t.state = 'stored' AND b.store = ? AND b.object_key = ?`, store, key)
		if again || err != nil {
			return err
		}
		_, err = s.exec(ctx, `UPDATE blobs SET store = ?, object_key = ?, verified_at = ?, updated_at = ?
			WHERE id = (SELECT blob_id FROM transfers WHERE transfers.id = ?)`, store, key, at(now), at(now), id)
		return err
	})
}

// Retry records a failure and when to try again.
func (db *DB) Retry(ctx context.Context, id string, epoch int64, next time.Time, reason string, now time.Time) error {
	return act(ctx, db, "Retry", id, func(ctx context.Context, s *session) error {
		_, err := s.ended(ctx, id, epoch, `state = 'retrying', next_at = ?, due_at = ?, last_error = ?, updated_at = ?`,
			[]any{at(next), at(next), why(reason), at(now)}, `t.state = 'retrying' AND t.next_at = ?`, at(next))
		return err
	})
}

// Dead records a failure that trying again will not mend.
func (db *DB) Dead(ctx context.Context, id string, epoch int64, reason string, lost bool, now time.Time) error {
	return act(ctx, db, "Dead", id, func(ctx context.Context, s *session) error {
		again, err := s.ended(ctx, id, epoch, `state = 'dead', next_at = NULL, due_at = NULL, last_error = ?, updated_at = ?`,
			[]any{why(reason), at(now)}, `t.state = 'dead'`)
		if again || err != nil || !lost {
			return err
		}
		var blobID string
		if err := row(ctx, s, []any{&blobID}, `SELECT t.blob_id FROM transfers t WHERE t.id = ?`, id); err != nil {
			return err
		}
		return lose(ctx, s, blobID, reason, now)
	})
}

// RetryStore makes the transfers to a store due that wait to be tried again.
func (db *DB) RetryStore(ctx context.Context, node, store string, now time.Time) error {
	return act(ctx, db, "RetryStore", store, func(ctx context.Context, s *session) error {
		_, err := s.exec(ctx, `UPDATE transfers SET next_at = ?, due_at = 0 WHERE node = ? AND due_at > 0 AND store = ? AND state = 'retrying'`,
			at(now), node, store)
		return err
	})
}

// Transfer returns one transfer.
func (db *DB) Transfer(ctx context.Context, id string) (upload.Transfer, error) {
	var t upload.Transfer
	if err := row(ctx, db.reader, scanTransfer(&t), transferQuery+` WHERE t.id = ?`, id); err != nil {
		return upload.Transfer{}, db.missing("meta.Transfer", id, "transfer", err)
	}
	return t, nil
}

const transferQuery = `SELECT ` + transferColumns + ` FROM transfers t JOIN blobs b ON b.id = t.blob_id`

var allTransferStates = []upload.TransferState{
	upload.TransferQueued, upload.TransferRunning, upload.TransferVerifying, upload.TransferStored,
	upload.TransferRetrying, upload.TransferDead, upload.TransferCancelled,
}

// Transfers lists transfers, newest first.
func (db *DB) Transfers(ctx context.Context, states []upload.TransferState, limit int) ([]upload.Transfer, error) {
	if len(states) == 0 {
		states = allTransferStates
	}
	states = slices.Compact(slices.Sorted(slices.Values(states)))
	// State by state, so that an index gives the order: sorting a million stored ones takes seconds.
	all, err := fromCopy(ctx, db, "", func(r *reader) (all []upload.Transfer, err error) {
		for _, state := range states {
			some, err := rows(ctx, r, scanTransfer, transferQuery+` WHERE t.state = ? ORDER BY t.created_at DESC, t.id DESC LIMIT ?`,
				string(state), limit)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
		return all, nil
	})
	if err != nil {
		return nil, db.failure("meta.Transfers", "", err)
	}
	slices.SortFunc(all, func(a, b upload.Transfer) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	// One that changed its state between two queries is there twice, as it is now and as it was.
	all = slices.CompactFunc(all, func(a, b upload.Transfer) bool { return a.ID == b.ID })
	return all[:min(limit, len(all))], nil
}

// RetryTransfer makes a transfer due now; see meta.Outbox.
func (db *DB) RetryTransfer(ctx context.Context, id string, now time.Time) error {
	defer db.copies.changed("")
	return act(ctx, db, "RetryTransfer", id, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, transferRow, id); err != nil {
			return err
		}
		var job meta.Job
		err := row(ctx, s, scanJob(&job), jobQuery+` WHERE t.id = ?`, id)
		switch t := &job.Transfer; {
		case errors.Is(err, sql.ErrNoRows):
			return noTransfer()
		case err != nil:
			return err
		case t.State == upload.TransferQueued:
			return nil
		case t.State != upload.TransferRetrying && t.State != upload.TransferDead && t.State != upload.TransferCancelled:
			return upload.Errorf(upload.Conflict, "", "", "The transfer is %s: there is nothing to try again. Look at its state.", t.State)
		case !offered(job.Blob.State) || job.Blob.Node == "" && job.Blob.Store == "":
			return upload.Errorf(upload.Conflict, "", "", "The content is not there any more: there is nothing to transfer. Upload it again.")
		}
		return requeue(ctx, s, job.Blob.ID, "", now)
	})
}

// requeue makes a blob's transfer due at once, as if it were new. A worker that holds it loses its
// lease.
func requeue(ctx context.Context, s *session, blobID, reason string, now time.Time) error {
	_, err := s.exec(ctx, `UPDATE transfers SET state = 'queued', bytes = 0, attempts = 0, next_at = ?, due_at = 0,
		last_error = COALESCE(?, last_error), lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, updated_at = ?
		WHERE blob_id = ?`, at(now), why(reason), at(now), blobID)
	return err
}

// finish ends a blob's transfer unless it is stored, and takes the lease from a worker that holds it.
func finish(ctx context.Context, s *session, blobID string, state upload.TransferState, reason string, now time.Time) error {
	_, err := s.exec(ctx, `UPDATE transfers SET state = ?, next_at = NULL, due_at = NULL, last_error = COALESCE(?, last_error),
		lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, updated_at = ?
		WHERE blob_id = ? AND state <> 'stored' AND state <> ?`, string(state), why(reason), at(now), blobID, string(state))
	return err
}

// CancelTransfer stops a transfer; see meta.Outbox.
func (db *DB) CancelTransfer(ctx context.Context, id string, now time.Time) error {
	defer db.copies.changed("")
	return act(ctx, db, "CancelTransfer", id, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, transferRow, id); err != nil {
			return err
		}
		var blobID string
		var state upload.TransferState
		err := row(ctx, s, []any{&blobID, &state}, `SELECT t.blob_id, t.state FROM transfers t WHERE t.id = ?`, id)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return noTransfer()
		case err != nil:
			return err
		case state == upload.TransferStored:
			return upload.Errorf(upload.Conflict, "", "", "The transfer is done. Delete its files if they are not wanted.")
		}
		return finish(ctx, s, blobID, upload.TransferCancelled, "", now)
	})
}

// Backlog counts the transfers that are not final.
func (db *DB) Backlog(ctx context.Context, _ time.Time) (meta.Backlog, error) {
	b, err := fromCopy(ctx, db, "", func(r *reader) (b meta.Backlog, err error) {
		err = row(ctx, r, []any{&b.Waiting, (*micros)(&b.Oldest), &b.Dead}, `SELECT COUNT(*), MIN(t.created_at),
			(SELECT COUNT(*) FROM transfers d WHERE d.state = 'dead')
			FROM transfers t WHERE t.state IN ('queued', 'running', 'verifying', 'retrying')`)
		return b, err
	})
	return b, db.failure("meta.Backlog", "", err)
}

// Droppable returns blobs whose staging copy is not needed any more; see meta.Outbox.
func (db *DB) Droppable(ctx context.Context, node string, verifiedBefore time.Time, limit int) ([]upload.Blob, error) {
	blobs, err := rows(ctx, db.reader, scanBlob, blobQuery+` WHERE b.node = ? AND b.verified_at < ? AND b.store IS NOT NULL
		AND b.state IN ('live', 'condemned') ORDER BY b.verified_at LIMIT ?`, node, at(verifiedBefore), limit)
	if err != nil || len(blobs) == limit {
		return blobs, db.failure("meta.Droppable", "", err)
	}
	deleting, err := rows(ctx, db.reader, scanBlob, blobQuery+` WHERE `+onNode+` AND b.state = 'deleting' LIMIT ?`, node+"-", node+".", limit-len(blobs))
	return append(blobs, deleting...), db.failure("meta.Droppable", "", err)
}

// StagingDropped records that the staging copy is gone.
func (db *DB) StagingDropped(ctx context.Context, blobID string) error {
	return act(ctx, db, "StagingDropped", blobID, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, blobRow, blobID); err != nil {
			return err
		}
		var store string
		err := row(ctx, s, []any{(*text)(&store)}, `SELECT b.store FROM blobs b WHERE b.id = ?`, blobID)
		if errors.Is(err, sql.ErrNoRows) {
			return noBlob()
		}
		if err != nil {
			return err
		}
		if _, err := s.exec(ctx, `UPDATE blobs SET node = NULL, staging = NULL WHERE id = ?`, blobID); err != nil || store != "" {
			return err
		}
		// Since the caller saw it as droppable it was found to be in no store (Unstore).
		return lose(ctx, s, blobID, "the staging copy was deleted, and no store has the content", db.now())
	})
}

func noBlob() error { return upload.Errorf(upload.NotFound, "", "", "There is no such blob.") }
