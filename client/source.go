package client

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Source is what Upload sends: a file, or a stream of unknown length.
type Source struct {
	name    string
	path    string // absolute; "" if uploads of it cannot be resumed by another process
	size    int64
	modTime time.Time
	ctime   int64 // see changeTime
	at      io.ReaderAt
	stream  io.Reader
	file    *os.File
}

// OpenFile opens a file for Upload. The caller closes. What is neither a regular file nor a directory
// (a pipe) becomes a stream.
func OpenFile(path string) (*Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &LocalError{Op: "open", Path: path, Err: err}
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	if err != nil {
		_ = f.Close() // nothing was read or written
		return nil, &LocalError{Op: "open", Path: path, Err: err}
	}
	if !info.Mode().IsRegular() {
		return &Source{name: filepath.Base(path), size: -1, stream: f, file: f}, nil
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		absolute = "" // the working directory is gone: it can be uploaded, not resumed
	}
	return &Source{
		name: filepath.Base(path), path: absolute, size: info.Size(), modTime: info.ModTime(), ctime: changeTime(info), at: f, file: f,
	}, nil
}

// Bytes is content in memory, or anywhere else where it does not change.
func Bytes(name string, content io.ReaderAt, size int64) *Source {
	return &Source{name: name, size: size, at: content}
}

// Stream is content of unknown length that can be read once: its chunks are kept in memory until the
// server has them, and its upload cannot be resumed.
func Stream(name string, r io.Reader) *Source { return &Source{name: name, size: -1, stream: r} }

// Name is the file's base name.
func (s *Source) Name() string { return s.name }

// Size is the length in bytes, -1 if it is not known.
func (s *Source) Size() int64 { return s.size }

// Resumable reports whether another process can go on with an upload of this.
func (s *Source) Resumable() bool { return s.path != "" }

// ReadAt reads content that is not a stream. Once the upload has begun it is not to be used by the
// caller.
func (s *Source) ReadAt(p []byte, off int64) (int, error) {
	if s.at == nil {
		return 0, &LocalError{Op: "read", Path: s.name, Err: errors.ErrUnsupported}
	}
	return s.at.ReadAt(p, off)
}

// Close closes the file.
func (s *Source) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// changed reports ErrChanged if the file was written to since it was opened. A file that was replaced
// by another of the same name is still what it was here.
func (s *Source) changed() error {
	if s.file == nil || s.stream != nil {
		return nil
	}
	info, err := s.file.Stat()
	if err != nil {
		return &LocalError{Op: "read", Path: s.path, Err: err}
	}
	if info.Size() != s.size || !info.ModTime().Equal(s.modTime) {
		return &LocalError{Op: "upload", Path: s.path, Err: ErrChanged}
	}
	return nil
}

// readFull reads exactly len(p) bytes at off; a file that is shorter than it was is ErrChanged.
func (s *Source) readFull(p []byte, off int64) error {
	n, err := s.at.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = ErrChanged
	}
	return &LocalError{Op: "read", Path: s.path, Err: err}
}
