package server

import (
	"time"

	"gantry/server/ingest"
	"gantry/upload"
)

// uploadJSON is an open upload.
type uploadJSON struct {
	ID             string            `json:"id"`
	State          upload.State      `json:"state"`
	Name           string            `json:"name"`
	Path           string            `json:"path"`
	ContentType    string            `json:"content_type"`
	Metadata       map[string]string `json:"metadata"`
	Size           *int64            `json:"size"` // null: not known yet
	ChunkSize      int64             `json:"chunk_size"`
	ChunkCount     *int              `json:"chunk_count"` // null: not known yet
	ReceivedChunks int               `json:"received_chunks"`
	ReceivedBytes  int64             `json:"received_bytes"`
	HashedBytes    int64             `json:"hashed_bytes"`
	Missing        []upload.Range    `json:"missing"`
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`
	ExpiresAt      time.Time         `json:"expires_at"`

	// Of a direct upload: its URLs in the answer to init, and an empty object otherwise.
	Direct *urlsJSON `json:"direct,omitempty"`

	// In the answer to init only.
	Known     ingest.Known      `json:"known,omitempty"`
	Challenge *upload.Challenge `json:"challenge,omitempty"`
}

// urlsJSON is where chunks of a direct upload go.
type urlsJSON struct {
	URLs      []urlJSON `json:"urls,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

type urlJSON struct {
	Index int    `json:"index"`
	URL   string `json:"url"`
}

func viewURLs(u *ingest.URLs) urlsJSON {
	v := urlsJSON{URLs: make([]urlJSON, len(u.Parts)), ExpiresAt: u.ExpiresAt.UTC()}
	for i, part := range u.Parts {
		v.URLs[i] = urlJSON(part)
	}
	return v
}

func viewUpload(s *ingest.Status) uploadJSON {
	u := &s.Upload
	v := uploadJSON{
		ID: s.ID, State: s.State, Name: u.Name, Path: u.Path, ContentType: u.ContentType, Metadata: orEmpty(u.Metadata),
		ChunkSize: u.ChunkSize, ReceivedChunks: u.Received.Len(), ReceivedBytes: u.ReceivedBytes, HashedBytes: u.HashedBytes,
		Missing: u.Missing(), CreatedAt: u.CreatedAt.UTC(), UpdatedAt: u.UpdatedAt.UTC(), ExpiresAt: s.ExpiresAt.UTC(),
	}
	if u.Size >= 0 {
		count := u.Layout().Count()
		v.Size, v.ChunkCount = &u.Size, &count
	}
	if s.Direct {
		v.Direct = &urlsJSON{}
	}
	return v
}

// completeJSON is an upload that has become a file.
type completeJSON struct {
	ID      string       `json:"id"`
	State   upload.State `json:"state"`
	Instant bool         `json:"instant"`
	File    fileJSON     `json:"file"`
}

// viewStatus is an upload in whatever state; one that ended without a file is upload.Gone.
func viewStatus(s *ingest.Status) (any, error) {
	switch {
	case s.State == upload.Open:
		return viewUpload(s), nil
	case s.State == upload.Complete && s.Answer.File != nil:
		return completeJSON{s.ID, s.State, s.Answer.Instant, viewFile(s.Answer.File)}, nil
	}
	return nil, withState{&upload.Error{
		Op: "server.status", Kind: upload.Gone, ID: s.ID, Want: s.Answer.Want, Got: s.Answer.Got,
		Detail: "The upload is " + string(s.State) + ". Begin a new one.",
	}, s.State}
}

// instantJSON is the answer to a request for instant upload.
type instantJSON struct {
	Status    string            `json:"status"` // challenge, complete, continue
	Challenge *upload.Challenge `json:"challenge,omitempty"`
	Instant   *bool             `json:"instant,omitempty"`
	File      *fileJSON         `json:"file,omitempty"`
}

// fileJSON is a file.
type fileJSON struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Path        string            `json:"path"`
	Size        int64             `json:"size"`
	SHA1        *upload.SHA1      `json:"sha1"` // null: not known yet
	ContentType string            `json:"content_type"`
	Metadata    map[string]string `json:"metadata"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	Location    string            `json:"location"` // staging, store, lost
	Transfer    *transferJSON     `json:"transfer"` // null: none is needed
}

func viewFile(f *upload.File) fileJSON {
	v := fileJSON{
		ID: f.ID, Name: f.Name, Path: f.Path, Size: f.Size, ContentType: f.ContentType,
		Metadata: orEmpty(f.Metadata), CreatedAt: f.CreatedAt.UTC(), UpdatedAt: f.UpdatedAt.UTC(), Location: "staging",
	}
	if !f.SHA1.IsZero() {
		v.SHA1 = &f.SHA1
	}
	switch {
	case f.Lost:
		v.Location = "lost"
	case f.Stored:
		v.Location = "store"
	}
	if f.Transfer.ID != "" {
		t := viewTransfer(&f.Transfer)
		v.Transfer = &t
	}
	return v
}

// transferJSON is where a transfer stands.
type transferJSON struct {
	ID        string               `json:"id"`
	State     upload.TransferState `json:"state"`
	Bytes     int64                `json:"bytes"`
	Size      int64                `json:"size"`
	Attempts  int                  `json:"attempts"`
	NextAt    *time.Time           `json:"next_at,omitempty"`
	LastError string               `json:"last_error,omitempty"`
}

func viewTransfer(t *upload.Transfer) transferJSON {
	v := transferJSON{ID: t.ID, State: t.State, Bytes: t.Bytes, Size: t.Size, Attempts: t.Attempts, LastError: t.LastError}
	if t.State == upload.TransferRetrying && !t.NextAt.IsZero() {
		next := t.NextAt.UTC()
		v.NextAt = &next
	}
	return v
}

// listJSON is one page of a listing.
type listJSON[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"` // null: the last page
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
