package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// The rows that are locked before they are read; see dialect.go.
const (
	nodeRow  = `SELECT n.id FROM nodes n WHERE n.id = ?`
	leaseRow = `SELECT l.name FROM leases l WHERE l.name = ?`
)

// onNode finds the blobs whose staging data is on a node, by an index that is there anyway: the ids of
// uploads begin with "<node>-", and "." comes after "-".
const onNode = `staging >= ? AND staging < ?`

// Join registers a node that starts; see meta.Nodes.
func (db *DB) Join(ctx context.Context, id, address string, now time.Time) (int64, error) {
	return write(ctx, db, "Join", id, func(ctx context.Context, s *session) (int64, error) {
		if err := s.lock(ctx, nodeRow, id); err != nil {
			return 0, err
		}
		var epoch int64
		var forgotten micros
		err := row(ctx, s, []any{&epoch, &forgotten}, `SELECT n.epoch, n.forgotten_at FROM nodes n WHERE n.id = ?`, id)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			_, err := s.exec(ctx, `INSERT INTO nodes (id, address, epoch, beats, seen_at, stranded) VALUES (?, ?, 1, 0, ?, 0)`, id, address, at(now))
			return 1, err
		case err != nil:
			return 0, err
		case !time.Time(forgotten).IsZero():
			return 0, upload.Errorf(upload.Gone, "", "",
				"This node was given up at %s: what it had was declared lost. Start it with an empty data directory.", time.Time(forgotten).Format(time.RFC3339))
		}
		epoch++
		if _, err := s.exec(ctx, `UPDATE nodes SET address = ?, epoch = ?, beats = beats + 1, seen_at = ?, left_at = NULL, stranded = 0 WHERE id = ?`,
			address, epoch, at(now), id); err != nil {
			return 0, err
		}
		return epoch, s.unstrand(ctx, id, now)
	})
}

// Beat tells that a node is alive; see meta.Nodes.
func (db *DB) Beat(ctx context.Context, id string, epoch int64, now time.Time) error {
	return act(ctx, db, "Beat", id, func(ctx context.Context, s *session) error {
		if err := s.ofNode(ctx, id, epoch, now, `UPDATE nodes SET beats = beats + 1, seen_at = ?, left_at = NULL`); err != nil {
			return err
		}
		var stranded int64
		err := row(ctx, s, []any{&stranded}, `SELECT n.stranded FROM nodes n WHERE n.id = ?`, id)
		if err != nil || stranded == 0 {
			return err
		}
		if _, err := s.exec(ctx, `UPDATE nodes SET stranded = 0 WHERE id = ?`, id); err != nil {
			return err
		}
		return s.unstrand(ctx, id, now)
	})
}

// unstrand makes what was stranded on a node live again.
func (s *session) unstrand(ctx context.Context, id string, now time.Time) error {
	_, err := s.exec(ctx, `UPDATE blobs SET state = 'live', updated_at = ? WHERE `+onNode+` AND state = 'stranded'`, at(now), id+"-", id+".")
	return err
}

// Leave tells that a node stops in order; see meta.Nodes.
func (db *DB) Leave(ctx context.Context, id string, epoch int64, now time.Time) error {
	return act(ctx, db, "Leave", id, func(ctx context.Context, s *session) error {
		return s.ofNode(ctx, id, epoch, now, `UPDATE nodes SET left_at = ?`)
	})
}

// ofNode changes the row of a node that this process still is.
func (s *session) ofNode(ctx context.Context, id string, epoch int64, now time.Time, update string) error {
	n, err := s.exec(ctx, update+` WHERE id = ? AND epoch = ? AND forgotten_at IS NULL`, at(now), id, epoch)
	if err == nil && n == 0 {
		err = upload.Errorf(upload.Conflict, "", "",
			"Another process has started as this node, or it was given up. Look for a second server on a copy of its directory.")
	}
	return err
}

// Nodes lists all nodes.
func (db *DB) Nodes(ctx context.Context) ([]meta.Node, error) {
	nodes, err := rows(ctx, db.reader, scanNode, `SELECT n.id, n.address, n.epoch, n.beats, n.seen_at, n.left_at, n.forgotten_at,
		n.stranded FROM nodes n ORDER BY n.id`)
	return nodes, db.failure("meta.Nodes", "", err)
}

func scanNode(n *meta.Node) []any {
	return []any{&n.ID, &n.Address, &n.Epoch, &n.Beats, (*micros)(&n.SeenAt), (*given)(&n.Left), (*given)(&n.Forgotten), &n.Stranded}
}

// given scans a column into whether it has a value.
type given bool

func (g *given) Scan(value any) error {
	*g = value != nil
	return nil
}

// Strand marks blobs that cannot be reached; see meta.Nodes.
func (db *DB) Strand(ctx context.Context, fence meta.Fence, node meta.Node, now time.Time) (int64, error) {
	return write(ctx, db, "Strand", node.ID, func(ctx context.Context, s *session) (int64, error) {
		if err := s.behind(ctx, fence); err != nil {
			return 0, err
		}
		if err := s.lock(ctx, nodeRow, node.ID); err != nil {
			return 0, err
		}
		var epoch, beats int64
		err := row(ctx, s, []any{&epoch, &beats}, `SELECT n.epoch, n.beats FROM nodes n WHERE n.id = ?`, node.ID)
		if errors.Is(err, sql.ErrNoRows) || err == nil && (epoch != node.Epoch || beats != node.Beats) {
			return 0, nil // it is back
		}
		if err != nil {
			return 0, err
		}
		n, err := s.exec(ctx, `UPDATE blobs SET state = 'stranded', updated_at = ? WHERE `+onNode+` AND store IS NULL AND state = 'live'`,
			at(now), node.ID+"-", node.ID+".")
		if err != nil || n == 0 {
			return n, err
		}
		_, err = s.exec(ctx, `UPDATE nodes SET stranded = stranded + ? WHERE id = ?`, n, node.ID)
		return n, err
	})
}

// forgetBlobs is how many blobs one transaction gives up.
const forgetBlobs = 200

// Forget gives a node up; see meta.Nodes.
func (db *DB) Forget(ctx context.Context, id string, now time.Time) (int64, error) {
	err := act(ctx, db, "Forget", id, func(ctx context.Context, s *session) error {
		n, err := s.exec(ctx, `UPDATE nodes SET forgotten_at = COALESCE(forgotten_at, ?), stranded = 0 WHERE id = ?`, at(now), id)
		if err == nil && n == 0 {
			err = upload.Errorf(upload.NotFound, "", "", "There is no such node. Look at the list of nodes.")
		}
		if err != nil {
			return err
		}
		return passOn(ctx, s, id)
	})
	if err != nil {
		return 0, err
	}
	var lost int64
	for {
		// In steps: whatever is cut short goes on when it is repeated, as a blob that was dealt with is not
		// on the node any more.
		n, more, err := db.forgetSome(ctx, id, now)
		if lost += n; err != nil || !more {
			return lost, err
		}
	}
}

func (db *DB) forgetSome(ctx context.Context, id string, now time.Time) (lost int64, more bool, err error) {
	type result struct {
		lost int64
		more bool
	}
	r, err := write(ctx, db, "Forget", id, func(ctx context.Context, s *session) (result, error) {
		blobs, err := rows(ctx, s, scanBlob, blobQuery+` WHERE `+onNode+` ORDER BY b.staging LIMIT ?`, id+"-", id+".", forgetBlobs)
		r := result{more: len(blobs) == forgetBlobs}
		if err != nil {
			return r, err
		}
		for i := range blobs {
			b := &blobs[i]
			if err := s.lock(ctx, blobRow, b.ID); err != nil {
				return r, err
			}
			if err := row(ctx, s, scanBlob(b), blobQuery+` WHERE b.id = ?`, b.ID); errors.Is(err, sql.ErrNoRows) {
				continue // deleted meanwhile
			} else if err != nil {
				return r, err
			}
			if b.Store == "" {
				if err := lose(ctx, s, b.ID, "The node that had the only copy was given up.", now); err != nil {
					return r, err
				}
				if b.State == upload.BlobLive || b.State == upload.BlobStranded {
					r.lost++
				}
			}
			if _, err := s.exec(ctx, `UPDATE blobs SET node = NULL, staging = NULL, updated_at = ? WHERE id = ?`, at(now), b.ID); err != nil {
				return r, err
			}
		}
		return r, nil
	})
	return r.lost, r.more, err
}

// AcquireLease gives owner a lease; see meta.Leases.
func (db *DB) AcquireLease(ctx context.Context, name, owner string, now, until time.Time) (upload.Lease, error) {
	return write(ctx, db, "AcquireLease", name, func(ctx context.Context, s *session) (upload.Lease, error) {
		if err := s.lock(ctx, leaseRow, name); err != nil {
			return upload.Lease{}, err
		}
		held := upload.Lease{}
		err := row(ctx, s, []any{&held.Owner, &held.Epoch, (*micros)(&held.Until)},
			`SELECT l.owner, l.epoch, l.lease_until FROM leases l WHERE l.name = ?`, name)
		mine := upload.Lease{Owner: owner, Epoch: held.Epoch, Until: kept(until)}
		switch {
		case errors.Is(err, sql.ErrNoRows):
			mine.Epoch = 1
			_, err := s.exec(ctx, `INSERT INTO leases (name, owner, epoch, lease_until) VALUES (?, ?, 1, ?)`, name, owner, at(until))
			return mine, err
		case err != nil:
			return upload.Lease{}, err
		case held.Owner != owner && now.Before(held.Until):
			return upload.Lease{}, upload.Errorf(upload.Conflict, "", "", "Another node has the lease %q.", name)
		case held.Owner != owner || !now.Before(held.Until):
			mine.Epoch++
		}
		_, err = s.exec(ctx, `UPDATE leases SET owner = ?, epoch = ?, lease_until = ? WHERE name = ?`, owner, mine.Epoch, at(until), name)
		return mine, err
	})
}

// ReleaseLease lets others have a lease; see meta.Leases.
func (db *DB) ReleaseLease(ctx context.Context, name, owner string) error {
	return act(ctx, db, "ReleaseLease", name, func(ctx context.Context, s *session) error {
		_, err := s.exec(ctx, `UPDATE leases SET lease_until = 0 WHERE name = ? AND owner = ?`, name, owner)
		return err
	})
}

// behind refuses to go on when a lease has another epoch than the writer believes.
func (s *session) behind(ctx context.Context, f meta.Fence) error {
	if f == (meta.Fence{}) {
		return nil
	}
	if err := s.lock(ctx, leaseRow, f.Lease); err != nil {
		return err
	}
	var epoch int64
	err := row(ctx, s, []any{&epoch}, `SELECT l.epoch FROM leases l WHERE l.name = ?`, f.Lease)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if epoch != f.Epoch {
		return upload.Errorf(upload.Conflict, "", "", "Another node has the lease %q by now.", f.Lease)
	}
	return nil
}
