package client

import (
	"time"

	"gantry/upload"
)

// Upload is an upload as the server shows it.
type Upload struct {
	ID             string            `json:"id"`
	State          upload.State      `json:"state"`
	Name           string            `json:"name,omitempty"`
	Path           string            `json:"path,omitempty"`
	ContentType    string            `json:"content_type,omitempty"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	Size           *int64            `json:"size"` // nil: given at complete
	ChunkSize      int64             `json:"chunk_size,omitempty"`
	ChunkCount     *int              `json:"chunk_count"`
	ReceivedChunks int               `json:"received_chunks"`
	ReceivedBytes  int64             `json:"received_bytes"`
	HashedBytes    int64             `json:"hashed_bytes"`
	Missing        []upload.Range    `json:"missing,omitempty"`
	CreatedAt      time.Time         `json:"created_at,omitzero"`
	UpdatedAt      time.Time         `json:"updated_at,omitzero"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero"`

	Known     Known      `json:"known,omitempty"`     // answer to init
	Challenge *Challenge `json:"challenge,omitempty"` // answer to init with a SHA-1

	// Direct is there if the chunks go to the server's store and not to the server; with URLs in the answer to init.
	Direct *DirectURLs `json:"direct,omitempty"`

	Instant bool  `json:"instant,omitempty"` // state "complete"
	File    *File `json:"file,omitempty"`    // state "complete"
}

// DirectURLs is where chunks of a direct upload go.
type DirectURLs struct {
	URLs      []ChunkURL `json:"urls,omitempty"`
	ExpiresAt time.Time  `json:"expires_at,omitzero"`
}

// ChunkURL is where one chunk goes, with a PUT that has nothing in it that says who we are.
type ChunkURL struct {
	Index int    `json:"index"`
	URL   string `json:"url"` // whoever has it can use it
}

// Known is what the server tells at init about content that it may have.
type Known string

// The answers to a hint.
const (
	KnownNo    Known = "no"    // send at once, hash beside
	KnownMaybe Known = "maybe" // hash first, then ask
)

// Challenge asks for certain leaves of the content.
type Challenge struct {
	ID        string    `json:"id"`
	Leaves    []int64   `json:"leaves"`
	LeafSize  int       `json:"leaf_size"`
	ExpiresAt time.Time `json:"expires_at"`
}

// InitRequest begins an upload.
type InitRequest struct {
	Name        string            `json:"name"`
	Path        string            `json:"path,omitempty"`
	Size        *int64            `json:"size,omitempty"` // nil: given at complete
	SHA1        *upload.SHA1      `json:"sha1,omitempty"`
	Hint        *upload.SHA1      `json:"hint,omitempty"` // SHA-1 of the first upload.HintLength bytes
	ChunkSize   int64             `json:"chunk_size,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Replaces    string            `json:"replaces,omitempty"`
	Direct      bool              `json:"direct,omitempty"` // the chunks can go to the server's store
}

// InstantAnswer is one step of an instant upload.
type InstantAnswer struct {
	Status    string     `json:"status"` // "challenge", "complete" or "continue"
	Challenge *Challenge `json:"challenge,omitempty"`
	Instant   bool       `json:"instant,omitempty"`
	File      *File      `json:"file,omitempty"`
}

// The values of InstantAnswer.Status.
const (
	InstantChallenge = "challenge" // prove that you have the content
	InstantComplete  = "complete"  // the upload is complete
	InstantContinue  = "continue"  // send the chunks
)

// File is a finished file.
type File struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Path        string            `json:"path"`
	Size        int64             `json:"size"`
	SHA1        upload.SHA1       `json:"sha1,omitzero"` // zero: the server has not read the bytes yet
	ContentType string            `json:"content_type"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	Location    string            `json:"location"` // "staging", "store" or "lost"
	Transfer    *Transfer         `json:"transfer"` // nil: the content needed none
}

// FullName is the file's name with its path before it.
func (f *File) FullName() string {
	if f.Path == "" {
		return f.Name
	}
	return f.Path + "/" + f.Name
}

// Transfer is the way of a file's bytes to the store.
type Transfer struct {
	ID        string               `json:"id"`
	State     upload.TransferState `json:"state"`
	Bytes     int64                `json:"bytes"`
	Size      int64                `json:"size"`
	Attempts  int                  `json:"attempts"`
	NextAt    time.Time            `json:"next_at,omitzero"`
	LastError string               `json:"last_error,omitempty"`
}

// FileRequest describes a file that is sent in one request.
type FileRequest struct {
	Name        string
	Path        string
	ContentType string
	Replaces    string
	SHA1        *upload.SHA1
	Key         string // Idempotency-Key
}

// FileQuery selects files. The zero value lists all, newest first.
type FileQuery struct {
	Name  string  // part of the name, any case
	Path  *string // exactly this path; "" are the files without one
	Sort  string  // created_at, name or size, with "-" before it for descending
	Limit int     // per page; 0: the server's default
}

// FileChange is what Update changes; nil leaves as it is.
type FileChange struct {
	Name     *string            `json:"name,omitempty"`
	Path     *string            `json:"path,omitempty"`
	Metadata *map[string]string `json:"metadata,omitempty"`
}

// page is one page of a listing.
type page[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"`
}
