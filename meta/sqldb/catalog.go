package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"gantry/meta"
	"gantry/upload"
)

const (
	blobQuery = `SELECT ` + blobColumns + ` FROM blobs b`
	fileQuery = fileColumnsOf + `files f` + joinedToFiles
	jobQuery  = `SELECT ` + blobColumns + `, ` + transferColumns + ` FROM transfers t JOIN blobs b ON b.id = t.blob_id`

	fileColumnsOf = `SELECT ` + fileColumns + ` FROM `
	joinedToFiles = ` JOIN blobs b ON b.id = f.blob_id JOIN transfers t ON t.blob_id = b.id`

	answerByID  = `SELECT ` + answerColumns + ` FROM answers a WHERE a.upload_id = ?`
	answerByKey = `SELECT ` + answerColumns + ` FROM answers a WHERE a.owner = ? AND a.idem_key = ?`
)

// Answer returns how an upload ended; see meta.Catalog.
func (db *DB) Answer(ctx context.Context, uploadID string) (meta.Answer, error) {
	return db.answer(ctx, "meta.Answer", uploadID, answerByID, uploadID)
}

// AnswerByKey is Answer by Idempotency-Key.
func (db *DB) AnswerByKey(ctx context.Context, owner, key string) (meta.Answer, error) {
	return db.answer(ctx, "meta.AnswerByKey", "", answerByKey, owner, key)
}

func (db *DB) answer(ctx context.Context, op, id, query string, args ...any) (meta.Answer, error) {
	var a meta.Answer
	err := row(ctx, db.reader, scanAnswer(&a), query, args...)
	if err == nil && !db.now().Before(a.ExpiresAt) {
		err = sql.ErrNoRows
	}
	if err != nil {
		return meta.Answer{}, db.missing(op, id, "answer", err)
	}
	return ownedAnswer(a), nil
}

// missing is failure with a sentence for what is not there.
func (db *DB) missing(op, id, what string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return upload.Errorf(upload.NotFound, op, id, "There is no such %s. Look at the listing for what there is.", what)
	}
	return db.failure(op, id, err)
}

// In scope "user" content is found by those who have a file of it and, while it is condemned, by the
// owner of its last file. The two queries differ in that only.
const (
	contentQuery    = `SELECT ` + blobColumns + `, 1 FROM blobs b WHERE b.sha1 = ? AND b.size = ? AND b.root IS NOT NULL LIMIT 2`
	ownContent      = `(EXISTS (SELECT 1 FROM files f WHERE f.blob_id = b.id AND f.owner = ?) OR (b.refs = 0 AND b.last_owner = ?))`
	ownContentQuery = `SELECT ` + blobColumns + `, ` + ownContent + ` FROM blobs b WHERE b.sha1 = ? AND b.size = ? AND b.root IS NOT NULL LIMIT 2`
	hintCondition   = ` FROM blobs b WHERE b.hint = ? AND b.size = ? AND b.root IS NOT NULL AND b.state IN ('live', 'condemned')`
	hintQuery       = `SELECT b.id` + hintCondition + ` LIMIT 1`
	ownHintQuery    = `SELECT b.id` + hintCondition + ` AND ` + ownContent + ` LIMIT 1`
)

// content is a blob, and whether the one who asks may be told of it.
type content struct {
	blob  upload.Blob
	known bool
}

// FindContent returns the blob that an instant upload may refer to; see meta.Catalog.
func (db *DB) FindContent(ctx context.Context, scope meta.Scope, owner string, sha1 upload.SHA1, size int64) (upload.Blob, error) {
	const op = "meta.FindContent"
	query, args := contentQuery, []any{sha1[:], size}
	switch scope {
	case meta.ScopeGlobal:
	case meta.ScopeUser:
		query, args = ownContentQuery, []any{owner, owner, sha1[:], size}
	default:
		return upload.Blob{}, db.missing(op, "", "content", sql.ErrNoRows)
	}
	found, err := rows(ctx, db.reader, func(c *content) []any { return append(scanBlob(&c.blob), &c.known) }, query, args...)
	if err != nil {
		return upload.Blob{}, db.failure(op, "", err)
	}
	// Two roots, whatever has become of the one: a SHA-1 collision, and who asks may mean either.
	if len(found) != 1 || !found[0].known || !offered(found[0].blob.State) {
		return upload.Blob{}, db.missing(op, "", "content", sql.ErrNoRows)
	}
	return found[0].blob, nil
}

// offered reports whether the bytes of a blob in this state are there and stay.
func offered(state upload.BlobState) bool {
	return state == upload.BlobLive || state == upload.BlobCondemned
}

// KnowsHint reports whether FindContent might succeed; see meta.Catalog.
func (db *DB) KnowsHint(ctx context.Context, scope meta.Scope, owner string, hint upload.SHA1, size int64) (bool, error) {
	query, args := hintQuery, []any{hint[:], size}
	switch scope {
	case meta.ScopeGlobal:
	case meta.ScopeUser:
		query, args = ownHintQuery, []any{hint[:], size, owner, owner}
	default:
		return false, nil
	}
	var id string
	err := row(ctx, db.reader, []any{&id}, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, db.failure("meta.KnowsHint", "", err)
}

// File returns one file with its transfer.
func (db *DB) File(ctx context.Context, owner, id string) (upload.File, error) {
	const op = "meta.File"
	f, found, err := ownFile(ctx, db.reader, owner, id)
	if err == nil && !found {
		err = sql.ErrNoRows
	}
	if err != nil {
		return upload.File{}, db.missing(op, id, "file", err)
	}
	return f, nil
}

// ownFile looks for a file of owner.
func ownFile(ctx context.Context, p preparer, owner, id string) (upload.File, bool, error) {
	var f upload.File
	err := row(ctx, p, scanFile(&f), fileQuery+` WHERE f.id = ? AND f.owner = ?`, id, owner)
	if errors.Is(err, sql.ErrNoRows) {
		return upload.File{}, false, nil
	}
	return f, err == nil, err
}

// Files lists an owner's files; see meta.FileQuery.
func (db *DB) Files(ctx context.Context, q meta.FileQuery) ([]upload.File, error) {
	query, args, err := db.filesQuery(&q)
	if err != nil {
		return nil, upload.Wrap(upload.Invalid, "meta.Files", "", err)
	}
	files, err := fromCopy(ctx, db, q.Owner, func(r *reader) ([]upload.File, error) {
		return rows(ctx, r, scanFile, query, args...)
	})
	return files, db.failure("meta.Files", "", err)
}

// filesQuery has few forms, so that each can stay prepared: everything variable is an argument.
func (db *DB) filesQuery(q *meta.FileQuery) (string, []any, error) {
	var column, index string
	var after any
	last := q.After
	if last == nil {
		last = &upload.File{}
	}
	switch q.Sort {
	case meta.ByCreated, "":
		column, index, after = "f.created_at", "files_created", at(last.CreatedAt)
	case meta.ByName:
		column, index, after = "f.name_folded", "files_name", fold(last.Name)
	case meta.BySize:
		column, index, after = "f.size", "files_size", last.Size
	default:
		return "", nil, upload.Errorf(upload.Invalid, "", "", "Files cannot be sorted by %q.", q.Sort)
	}
	var b strings.Builder
	b.WriteString(` WHERE f.owner = ?`)
	args := []any{q.Owner}
	if q.Path != nil {
		b.WriteString(` AND f.path = ?`)
		args = append(args, *q.Path)
	}
	if q.Name != "" {
		b.WriteString(` AND f.name_folded LIKE ? ESCAPE '!'`)
		args = append(args, "%"+escapeLike.Replace(fold(q.Name))+"%")
	}
	compare, order := "<", " DESC"
	if !q.Desc {
		compare, order = ">", " ASC"
	}
	if q.After != nil {
		// MySQL finds no place in an index for a pair, so it is told where the first of the two begins.
		b.WriteString(` AND ` + column + ` ` + compare + `= ? AND (` + column + `, f.id) ` + compare + ` (?, ?)`)
		args = append(args, after, after, q.After.ID)
	}
	where, sorted := b.String(), ` ORDER BY `+column+order+`, f.id`+order
	args = append(args, q.Limit)
	if db.dialect.pageFirst {
		return fileColumnsOf + `(SELECT f.id FROM files f` + fmt.Sprintf(db.dialect.byIndex, index) + where + sorted + ` LIMIT ?) p JOIN files f ON f.id = p.id` + joinedToFiles + sorted, args, nil
	}
	return fileQuery + where + sorted + ` LIMIT ?`, args, nil
}

var escapeLike = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// UpdateFile changes what is not nil in c and returns the file.
func (db *DB) UpdateFile(ctx context.Context, owner, id string, c meta.FileChange) (upload.File, error) {
	defer db.copies.changed(owner)
	return write(ctx, db, "UpdateFile", id, func(ctx context.Context, s *session) (upload.File, error) {
		if err := s.lock(ctx, fileRow, id); err != nil {
			return upload.File{}, err
		}
		f, found, err := ownFile(ctx, s, owner, id)
		if err != nil {
			return f, err
		}
		if !found {
			return f, noFile()
		}
		if c.Name != nil {
			f.Name = *c.Name
		}
		if c.Path != nil {
			f.Path = *c.Path
		}
		if c.Metadata != nil {
			f.Metadata = *c.Metadata
		}
		f.UpdatedAt = kept(c.Now)
		meta, err := metadataJSON(f.Metadata)
		if err != nil {
			return f, err
		}
		_, err = s.exec(ctx, `UPDATE files SET name = ?, name_folded = ?, path = ?, metadata = ?, updated_at = ? WHERE id = ?`,
			f.Name, fold(f.Name), f.Path, meta, at(f.UpdatedAt), id)
		return f, err
	})
}

func noFile() error {
	return upload.Errorf(upload.NotFound, "", "", "There is no such file, or it is not yours. Look at the listing for what there is.")
}

// DeleteFile drops the reference. A blob without references is condemned at now.
func (db *DB) DeleteFile(ctx context.Context, owner, id string, now time.Time) error {
	defer db.copies.changed(owner)
	return act(ctx, db, "DeleteFile", id, func(ctx context.Context, s *session) error {
		if err := s.lock(ctx, fileRow, id); err != nil { // or it moves to another blob
			return err
		}
		var blobID string
		err := row(ctx, s, []any{&blobID}, `SELECT f.blob_id FROM files f WHERE f.id = ? AND f.owner = ?`, id, owner)
		if errors.Is(err, sql.ErrNoRows) {
			return noFile()
		}
		if err != nil {
			return err
		}
		if _, err := s.exec(ctx, `DELETE FROM files WHERE id = ?`, id); err != nil {
			return err
		}
		if err := noteDeleted(ctx, s, owner, id, now); err != nil {
			return err
		}
		return dropRef(ctx, s, blobID, owner, now)
	})
}

// Blob returns a blob by id.
func (db *DB) Blob(ctx context.Context, id string) (upload.Blob, error) {
	var b upload.Blob
	if err := row(ctx, db.reader, scanBlob(&b), blobQuery+` WHERE b.id = ?`, id); err != nil {
		return upload.Blob{}, db.missing("meta.Blob", id, "blob", err)
	}
	return b, nil
}

// jobOfBlob returns a blob that is known to be there, with its transfer.
func jobOfBlob(ctx context.Context, p preparer, blobID string) (job meta.Job, err error) {
	err = row(ctx, p, scanJob(&job), jobQuery+` WHERE t.blob_id = ?`, blobID)
	return job, err
}
