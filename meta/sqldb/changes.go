package sqldb

import (
	"context"
	"fmt"
	"time"

	"gantry/meta"
)

const (
	changedFiles = `SELECT f.id, f.updated_at FROM files f WHERE f.owner = ? AND f.updated_at >= ? ORDER BY f.updated_at DESC LIMIT ?`
	deletedFiles = `SELECT d.id, d.deleted_at FROM deleted_files d WHERE d.owner = ? AND d.deleted_at >= ? ORDER BY d.deleted_at DESC LIMIT ?`
)

// changedTransfers goes through all transfers of the time: they have no owner. SQLite takes the tables of a CROSS JOIN in
// their order, and would go through all files of the owner otherwise.
func (d *dialect) changedTransfers() string {
	return `SELECT f.id, t.updated_at FROM transfers t` + fmt.Sprintf(d.byIndex, "transfers_updated") +
		` CROSS JOIN files f WHERE f.blob_id = t.blob_id AND f.owner = ? AND t.updated_at >= ? ORDER BY t.updated_at DESC LIMIT ?`
}

func scanChange(c *meta.Change) []any { return []any{&c.FileID, (*micros)(&c.At)} }

// Changes returns what happened to an owner's files; see meta.Changes.
func (db *DB) Changes(ctx context.Context, owner string, since time.Time, limit int) ([]meta.Change, error) {
	const op = "meta.Changes"
	var all []meta.Change
	for _, query := range []string{changedFiles, db.dialect.changedTransfers()} {
		some, err := rows(ctx, db.reader, scanChange, query, owner, at(since), limit)
		if err != nil {
			return nil, db.failure(op, "", err)
		}
		all = append(all, some...)
	}
	deleted, err := rows(ctx, db.reader, scanChange, deletedFiles, owner, at(since), limit)
	for i := range deleted {
		deleted[i].Deleted = true
	}
	return append(all, deleted...), db.failure(op, "", err)
}

// noteDeleted keeps for a while that a file was deleted: its row does not tell any more.
func noteDeleted(ctx context.Context, s *session, owner, id string, now time.Time) error {
	_, err := s.exec(ctx, `INSERT INTO deleted_files (id, owner, deleted_at) VALUES (?, ?, ?)`, id, owner, at(now))
	return err
}

// touch makes what happened to a blob a change of its files, where nothing else of them changes.
func touch(ctx context.Context, s *session, blobID string, now time.Time) error {
	_, err := s.exec(ctx, `UPDATE transfers SET updated_at = ? WHERE blob_id = ?`, at(now), blobID)
	return err
}

// ForgetDeleted forgets which files were deleted before a time.
func (db *DB) ForgetDeleted(ctx context.Context, before time.Time) error {
	const query = `SELECT d.id FROM deleted_files d WHERE d.deleted_at < ? LIMIT ?`
	for {
		ids, err := rows(ctx, db.reader, scanString, query, at(before), forgetStep)
		if err != nil || len(ids) == 0 {
			return db.failure("meta.ForgetDeleted", "", err)
		}
		err = act(ctx, db, "ForgetDeleted", "", func(ctx context.Context, s *session) error {
			for _, id := range ids {
				if _, err := s.exec(ctx, `DELETE FROM deleted_files WHERE id = ?`, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
