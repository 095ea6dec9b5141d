package client

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gantry/upload"
)

// State is what has to be known to go on with an upload in another process. Which chunks are there
// only the server knows.
type State struct {
	// What the upload is of; a file that has changed since is another upload.
	Server  string    `json:"server"`
	File    string    `json:"file"` // absolute
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mod_time"`
	Name    string    `json:"name"`
	Path    string    `json:"path,omitempty"`
	Replace string    `json:"replaces,omitempty"`

	Key      string `json:"key"`                 // Idempotency-Key of init
	UploadID string `json:"upload_id,omitempty"` // empty: init was not answered
	Known    Known  `json:"known,omitempty"`
	Asked    bool   `json:"asked,omitempty"` // instant upload was asked for and refused
	// What was hashed before. It is worth nothing once the file may have been changed with its times set
	// back: then a mixture of the old and the new would have the digest that was computed here.
	ChangeTime int64       `json:"change_time,omitempty"`
	Hashed     int64       `json:"hashed,omitempty"`
	SHA1Hash   []byte      `json:"sha1_state,omitempty"` // of crypto/sha1 after Hashed bytes
	SHA1       upload.SHA1 `json:"sha1,omitzero"`        // once all is hashed
}

// ID names the upload that the state is of.
func (s *State) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d %q %q %q",
		s.Server, s.File, s.Size, s.ModTime.UnixNano(), s.Name, s.Path, s.Replace))
	return hex.EncodeToString(sum[:16])
}

// StateStore remembers unfinished uploads. It is safe for concurrent use.
type StateStore interface {
	// Load returns the state with this id, nil if there is none.
	Load(id string) (*State, error)
	// Save keeps a state, replacing an older one as a whole.
	Save(id string, s *State) error
	// Delete forgets a state; it is no error if there is none.
	Delete(id string) error
}

// staleAfter is when a state is forgotten that nobody came back for: longer than any server keeps
// an unfinished upload.
const staleAfter = 60 * 24 * time.Hour

// FileStates keeps states as files in one directory.
type FileStates struct{ dir string }

// NewFileStates uses dir, which is made when it is needed. States nobody came back for are deleted.
func NewFileStates(dir string) *FileStates {
	s := &FileStates{dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return s // not there yet
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name())) // next time, then
		}
	}
	return s
}

func (s *FileStates) file(id string) string { return filepath.Join(s.dir, id+".json") }

// Load returns the state with this id, nil if there is none or it cannot be understood.
func (s *FileStates) Load(id string) (*State, error) {
	b, err := os.ReadFile(s.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &LocalError{Op: "read", Path: s.file(id), Err: err}
	}
	var state State
	if json.Unmarshal(b, &state) != nil || state.ID() != id {
		return nil, nil // damaged, or of another version: begin anew
	}
	return &state, nil
}

// Save keeps a state; a crash leaves the old one or the new one.
func (s *FileStates) Save(id string, state *State) error {
	b, err := json.MarshalIndent(state, "", "\t")
	if err != nil {
		return upload.Wrap(upload.Internal, "client.FileStates.Save", id, err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return &LocalError{Op: "create", Path: s.dir, Err: err}
	}
	return writeFileAtomic(s.file(id), b)
}

// Delete forgets a state.
func (s *FileStates) Delete(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &LocalError{Op: "delete", Path: s.file(id), Err: err}
	}
	return nil
}

// writeFileAtomic replaces path as a whole, readable for its owner only.
func writeFileAtomic(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return &LocalError{Op: "write", Path: path, Err: err}
	}
	_, err = f.Write(b)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // best effort: the write has failed already
		return &LocalError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// newKey is an Idempotency-Key that nobody else has.
func newKey() string { return rand.Text() }
