package sqldb

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// SetRoot records the blob's root and joins it with a blob of the same identity; see meta.Outbox.
func (db *DB) SetRoot(ctx context.Context, id string, epoch int64, root upload.Root, now time.Time) (meta.RootResult, error) {
	if root.IsZero() {
		return meta.RootResult{}, upload.Errorf(upload.Invalid, "meta.SetRoot", id, "A root is not zero.")
	}
	return write(ctx, db, "SetRoot", id, func(ctx context.Context, s *session) (result meta.RootResult, err error) {
		if err := s.held(ctx, id, epoch, `updated_at = ?`, at(now)); err != nil {
			return result, err
		}
		var mine candidate
		if err := row(ctx, s, scanCandidate(&mine), candidateQuery+` WHERE t.id = ?`, id); err != nil {
			return result, err
		}
		if err := s.lock(ctx, twinRows, mine.sha1[:], mine.size); err != nil {
			return result, err
		}
		if !mine.root.IsZero() && mine.root != root {
			return result, &upload.Error{
				Kind: upload.DigestMismatch, Want: mine.root.String(), Got: root.String(),
				Detail: "The content is not what it was when it was read before.",
			}
		}
		same, err := rows(ctx, s, scanCandidate, candidateQuery+` WHERE b.sha1 = ? AND b.size = ? AND b.root IS NOT NULL AND b.id <> ?`,
			mine.sha1[:], mine.size, mine.id)
		if err != nil {
			return result, err
		}
		var twin *candidate
		for i := range same {
			if same[i].root == root {
				twin = &same[i]
				continue
			}
			result.Collision = true
			if err := auditCollision(ctx, s, &same[i], &mine, root, now); err != nil {
				return result, err
			}
		}
		if twin != nil && survivor(&mine, twin) == twin {
			result.JoinedTo = twin.id
			return result, join(ctx, s, mine.id, twin.id, now)
		}
		if twin != nil { // gives its root up before the other takes it
			if err := join(ctx, s, twin.id, mine.id, now); err != nil {
				return result, err
			}
		}
		_, err = s.exec(ctx, `UPDATE blobs SET root = ?, updated_at = ? WHERE id = ?`, root[:], at(now), mine.id)
		return result, err
	})
}

// candidate is a blob that may turn out to be the same as another, with the state of its transfer.
type candidate struct {
	id        string
	sha1      upload.SHA1
	size      int64
	root      upload.Root
	state     upload.BlobState
	store     string
	createdAt int64
	transfer  upload.TransferState
}

const candidateQuery = `SELECT b.id, b.sha1, b.size, b.root, b.state, b.store, b.created_at, t.state
	FROM blobs b JOIN transfers t ON t.blob_id = b.id`

func scanCandidate(c *candidate) []any {
	return []any{&c.id, digest(c.sha1[:]), &c.size, digest(c.root[:]), &c.state, (*text)(&c.store), &c.createdAt, &c.transfer}
}

// survivor decides which of two blobs with the same content remains: one whose bytes are there before
// one whose are not, one in a store before one in staging, one whose transfer goes on before one that
// was given up, and then the older.
func survivor(a, b *candidate) *candidate {
	rank := func(c *candidate) int {
		switch {
		case !offered(c.state):
			return 3
		case c.store != "":
			return 0
		case !c.transfer.Final():
			return 1
		}
		return 2
	}
	if cmp.Or(rank(a)-rank(b), cmp.Compare(a.createdAt, b.createdAt), cmp.Compare(a.id, b.id)) < 0 {
		return a
	}
	return b
}

// join moves the files of from to into. from is condemned for good: without a root nothing finds it.
func join(ctx context.Context, s *session, from, into string, now time.Time) error {
	moved, err := s.exec(ctx, `UPDATE files SET blob_id = ? WHERE blob_id = ?`, into, from)
	if err != nil {
		return err
	}
	if _, err := s.exec(ctx, `UPDATE blobs SET root = NULL, refs = refs - ?, state = 'condemned', condemned_at = ?, last_owner = NULL,
		updated_at = ? WHERE id = ?`, moved, at(now), at(now), from); err != nil {
		return err
	}
	if err := finish(ctx, s, from, upload.TransferCancelled, "the content is that of blob "+into, now); err != nil {
		return err
	}
	if moved == 0 {
		return nil
	}
	_, err = s.exec(ctx, `UPDATE blobs SET refs = refs + ?, state = 'live', condemned_at = NULL, last_owner = NULL, updated_at = ?
		WHERE id = ?`, moved, at(now), into)
	if err != nil {
		return err
	}
	return touch(ctx, s, into, now)
}

// auditCollision records two contents with one SHA-1, once for a pair of roots.
func auditCollision(ctx context.Context, s *session, a, b *candidate, rootB upload.Root, now time.Time) error {
	roots := []string{a.root.String(), rootB.String()}
	slices.Sort(roots)
	pair := sha256.Sum256([]byte(roots[0] + roots[1]))
	id := "collision-" + hex.EncodeToString(pair[:16])
	var one int
	err := row(ctx, s, []any{&one}, `SELECT 1 FROM audit WHERE id = ?`, id)
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return audit(ctx, s, id, now, "sha1_collision", map[string]any{
		"sha1": b.sha1, "size": b.size, "roots": roots, "blobs": []string{a.id, b.id},
	})
}

// audit records what an operator may have to look into.
func audit(ctx context.Context, s *session, id string, now time.Time, kind string, detail map[string]any) error {
	text, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, `INSERT INTO audit (id, at, kind, detail) VALUES (?, ?, ?, ?)`, id, at(now), kind, string(text))
	return err
}

// lose records that a blob's bytes are gone or wrong. It keeps its files, and its identity so that the
// same content arriving again heals it; without files it is only garbage.
func lose(ctx context.Context, s *session, blobID, reason string, now time.Time) error {
	if err := s.lock(ctx, blobRow, blobID); err != nil { // or it is revived between the two that follow
		return err
	}
	n, err := s.exec(ctx, `UPDATE blobs SET state = 'lost', updated_at = ? WHERE id = ? AND state IN ('live', 'stranded')`, at(now), blobID)
	if err != nil {
		return err
	}
	if n == 0 {
		_, err := s.exec(ctx, `UPDATE blobs SET root = NULL, updated_at = ? WHERE id = ? AND state = 'condemned'`, at(now), blobID)
		if err != nil {
			return err
		}
	}
	if err := finish(ctx, s, blobID, upload.TransferDead, reason, now); err != nil || n == 0 {
		return err
	}
	if err := touch(ctx, s, blobID, now); err != nil {
		return err
	}
	return audit(ctx, s, upload.NewID(now), now, "blob_lost", map[string]any{"blob": blobID, "reason": reason})
}
