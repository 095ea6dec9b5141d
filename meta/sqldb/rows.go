package sqldb

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// Columns of the tables, in the order of the scan functions below. Queries name blobs b, files f,
// transfers t and answers a.
const (
	blobColumns = `b.id, b.sha1, b.size, b.root, b.hint, b.crc32c, b.state, b.refs, b.node, b.staging, b.store,
		b.object_key, b.created_at, b.verified_at, b.condemned_at`
	transferColumns = `t.id, t.blob_id, t.node, t.store, t.state, t.bytes, b.size, t.attempts, t.next_at, t.last_error,
		t.lease_owner, t.lease_epoch, t.lease_until, t.created_at, t.updated_at`
	fileColumns = `f.id, f.owner, f.blob_id, f.name, f.path, f.content_type, f.metadata, f.size, f.created_at,
		f.updated_at, b.sha1, b.state, b.store, ` + transferColumns
	answerColumns = `a.upload_id, a.owner, a.idem_key, a.fingerprint, a.state, a.instant, a.file, a.want, a.got,
		a.created_at, a.expires_at`
)

func scanBlob(b *upload.Blob) []any {
	return []any{
		&b.ID, digest(b.SHA1[:]), &b.Size, digest(b.Root[:]), digest(b.Hint[:]), &b.CRC32C, &b.State, &b.Refs,
		(*text)(&b.Node), (*text)(&b.Staging), (*text)(&b.Store), (*text)(&b.ObjectKey),
		(*micros)(&b.CreatedAt), (*micros)(&b.VerifiedAt), (*micros)(&b.CondemnedAt),
	}
}

func scanTransfer(t *upload.Transfer) []any {
	return []any{
		&t.ID, &t.BlobID, &t.Node, &t.Store, &t.State, &t.Bytes, &t.Size, &t.Attempts, (*micros)(&t.NextAt),
		(*text)(&t.LastError), (*text)(&t.Lease.Owner), &t.Lease.Epoch, (*micros)(&t.Lease.Until),
		(*micros)(&t.CreatedAt), (*micros)(&t.UpdatedAt),
	}
}

func scanJob(j *meta.Job) []any { return append(scanBlob(&j.Blob), scanTransfer(&j.Transfer)...) }

func scanFile(f *upload.File) []any {
	return append([]any{
		&f.ID, &f.Owner, &f.BlobID, &f.Name, &f.Path, &f.ContentType, (*metadata)(&f.Metadata), &f.Size,
		(*micros)(&f.CreatedAt), (*micros)(&f.UpdatedAt), digest(f.SHA1[:]), (*lost)(&f.Lost), (*stored)(&f.Stored),
	}, scanTransfer(&f.Transfer)...)
}

func scanAnswer(a *meta.Answer) []any {
	return []any{
		&a.UploadID, &a.Owner, (*text)(&a.Key), (*text)(&a.Fingerprint), &a.State, &a.Instant,
		answerFile{&a.File},
		(*text)(&a.Want), (*text)(&a.Got), (*micros)(&a.CreatedAt), (*micros)(&a.ExpiresAt),
	}
}

func scanString(s *string) []any { return []any{s} }

// micros is a time in a column of microseconds; NULL is the zero time.
type micros time.Time

func (m *micros) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*m = micros{}
	case int64:
		*m = micros(fromMicros(v))
	default:
		return fmt.Errorf("a time is an integer, not %T", value)
	}
	return nil
}

// fromMicros is the time that at wrote.
func fromMicros(v int64) time.Time { return time.UnixMicro(v).UTC() }

// at is a time as an argument: what the columns keep of it.
func at(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// kept is a time as it will be read back.
func kept(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// text is a string in a column where NULL stands for "".
type text string

func (t *text) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*t = ""
	case string:
		*t = text(v)
	case []byte:
		*t = text(v)
	default:
		return fmt.Errorf("a text is not %T", value)
	}
	return nil
}

// orNull is a string as an argument: NULL for "".
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// why is the text of an error as an argument. It may have anything in it, and servers take only text.
func why(reason string) any {
	return orNull(strings.ReplaceAll(strings.ToValidUTF8(reason, "\uFFFD"), "\x00", "\uFFFD"))
}

// digest scans a column of bytes into what it is a slice of; NULL is all zeros.
type digest []byte

func (d digest) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		clear(d)
	case []byte:
		if copy(d, v) != len(d) || len(v) != len(d) {
			return fmt.Errorf("a digest has %d bytes, not %d", len(d), len(v))
		}
	default:
		return fmt.Errorf("a digest is bytes, not %T", value)
	}
	return nil
}

// lost scans a blob's state into upload.File.Lost.
type lost bool

func (l *lost) Scan(value any) error {
	var state text
	err := state.Scan(value)
	*l = lost(upload.BlobState(state) == upload.BlobLost)
	return err
}

// stored scans a blob's store into upload.File.Stored.
type stored bool

func (s *stored) Scan(value any) error {
	*s = value != nil
	return nil
}

// metadata is a JSON object; NULL is none.
type metadata map[string]string

func (m *metadata) Scan(value any) error {
	*m = nil
	var raw text
	if err := raw.Scan(value); err != nil || raw == "" {
		return err
	}
	return json.Unmarshal([]byte(raw), m)
}

func metadataJSON(m map[string]string) (any, error) {
	if len(m) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(m)
	return string(b), err
}

// fileJSON is the file in a stored answer. Its names are in databases: only add to them.
type fileJSON struct {
	ID          string               `json:"id"`
	BlobID      string               `json:"blob"`
	Name        string               `json:"name"`
	Path        string               `json:"path,omitempty"`
	ContentType string               `json:"type,omitempty"`
	Metadata    map[string]string    `json:"metadata,omitempty"`
	Size        int64                `json:"size"`
	SHA1        upload.SHA1          `json:"sha1"`
	CreatedAt   int64                `json:"created"`
	UpdatedAt   int64                `json:"updated"`
	Stored      bool                 `json:"stored,omitempty"`
	Transfer    string               `json:"transfer"`
	Node        string               `json:"node"`
	Store       string               `json:"store"`
	State       upload.TransferState `json:"state"`
	Bytes       int64                `json:"bytes,omitempty"`
	Attempts    int                  `json:"attempts,omitempty"`
	QueuedAt    int64                `json:"queued"`
	NextAt      int64                `json:"next,omitempty"`
	ChangedAt   int64                `json:"changed"`
}

// answerFile is the column with the file of a stored answer; NULL is none. The owner is the answer's.
type answerFile struct{ file **upload.File }

func (a answerFile) Scan(value any) error {
	var raw text
	if err := raw.Scan(value); err != nil || raw == "" {
		return err
	}
	var j fileJSON
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		return err
	}
	*a.file = &upload.File{
		ID: j.ID, BlobID: j.BlobID, Name: j.Name, Path: j.Path, ContentType: j.ContentType, Metadata: j.Metadata,
		Size: j.Size, SHA1: j.SHA1, CreatedAt: fromMicros(j.CreatedAt), UpdatedAt: fromMicros(j.UpdatedAt),
		Stored: j.Stored,
		Transfer: upload.Transfer{
			ID: j.Transfer, BlobID: j.BlobID, Node: j.Node, Store: j.Store, State: j.State, Bytes: j.Bytes, Size: j.Size,
			Attempts: j.Attempts, CreatedAt: fromMicros(j.QueuedAt), UpdatedAt: fromMicros(j.ChangedAt),
		},
	}
	if j.NextAt != 0 {
		(*a.file).Transfer.NextAt = fromMicros(j.NextAt)
	}
	return nil
}

func answerFileJSON(f *upload.File) (any, error) {
	if f == nil {
		return nil, nil
	}
	next := int64(0)
	if !f.Transfer.NextAt.IsZero() {
		next = f.Transfer.NextAt.UnixMicro()
	}
	b, err := json.Marshal(fileJSON{
		ID: f.ID, BlobID: f.BlobID, Name: f.Name, Path: f.Path, ContentType: f.ContentType, Metadata: f.Metadata, Size: f.Size,
		SHA1: f.SHA1, CreatedAt: f.CreatedAt.UnixMicro(), UpdatedAt: f.UpdatedAt.UnixMicro(), Stored: f.Stored,
		Transfer: f.Transfer.ID, Node: f.Transfer.Node, Store: f.Transfer.Store, State: f.Transfer.State,
		Bytes: f.Transfer.Bytes, Attempts: f.Transfer.Attempts, QueuedAt: f.Transfer.CreatedAt.UnixMicro(),
		NextAt: next, ChangedAt: f.Transfer.UpdatedAt.UnixMicro(),
	})
	return string(b), err
}
