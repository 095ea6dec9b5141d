// Package faultfs wraps a file system so that chosen operations fail, and so that a test can look at
// the world between any two of them.
package faultfs

import (
	"errors"
	"io/fs"
	"sync/atomic"

	"gantry/internal/vfs"
)

// Kind is a kind of operation.
type Kind string

// The kinds of operations.
const (
	Open     Kind = "open"
	Mkdir    Kind = "mkdir"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
	ReadDir  Kind = "readdir"
	Stat     Kind = "stat"
	SyncDir  Kind = "syncdir"
	Space    Kind = "space"
	Link     Kind = "link"
	Read     Kind = "read"
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
	Close    Kind = "close"
)

// Op is one operation that is about to happen.
type Op struct {
	Kind Kind
	Name string
	N    int64 // 1, 2, … over all operations of the file system
}

// Hook sees each operation before it happens and may make it fail. It may be called from many
// goroutines at once.
type Hook func(Op) error

// FailNth is a hook that fails the nth (1, 2, …) operation that matches, and no other.
func FailNth(n int, err error, match func(Op) bool) Hook {
	var count atomic.Int64
	return func(op Op) error {
		if match(op) && count.Add(1) == int64(n) {
			return err
		}
		return nil
	}
}

// ShortWrite is an error for a write that puts only Bytes bytes down before it fails with Err.
type ShortWrite struct {
	Bytes int
	Err   error
}

func (e *ShortWrite) Error() string { return "short write: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ShortWrite) Unwrap() error { return e.Err }

// FS is a file system whose operations may fail.
type FS struct {
	inner vfs.FS
	hook  atomic.Pointer[Hook]
	n     atomic.Int64
}

// New wraps inner; a nil hook lets everything pass.
func New(inner vfs.FS, hook Hook) *FS {
	f := &FS{inner: inner}
	f.SetHook(hook)
	return f
}

// SetHook replaces the hook; nil lets everything pass.
func (f *FS) SetHook(hook Hook) {
	if hook == nil {
		hook = func(Op) error { return nil }
	}
	f.hook.Store(&hook)
}

func (f *FS) before(kind Kind, name string) error {
	return (*f.hook.Load())(Op{Kind: kind, Name: name, N: f.n.Add(1)})
}

// OpenFile is part of vfs.FS.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	if err := f.before(Open, name); err != nil {
		return nil, err
	}
	inner, err := f.inner.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &file{File: inner, fs: f, name: name}, nil
}

// Mkdir is part of vfs.FS.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.before(Mkdir, name); err != nil {
		return err
	}
	return f.inner.Mkdir(name, perm)
}

// Rename is part of vfs.FS. The hook sees the new name.
func (f *FS) Rename(oldName, newName string) error {
	if err := f.before(Rename, newName); err != nil {
		return err
	}
	return f.inner.Rename(oldName, newName)
}

// Remove is part of vfs.FS.
func (f *FS) Remove(name string) error {
	if err := f.before(Remove, name); err != nil {
		return err
	}
	return f.inner.Remove(name)
}

// ReadDir is part of vfs.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.before(ReadDir, name); err != nil {
		return nil, err
	}
	return f.inner.ReadDir(name)
}

// Stat is part of vfs.FS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if err := f.before(Stat, name); err != nil {
		return nil, err
	}
	return f.inner.Stat(name)
}

// SyncDir is part of vfs.FS.
func (f *FS) SyncDir(name string) error {
	if err := f.before(SyncDir, name); err != nil {
		return err
	}
	return f.inner.SyncDir(name)
}

// Space is part of vfs.FS.
func (f *FS) Space() (total, free int64, err error) {
	if err := f.before(Space, "."); err != nil {
		return 0, 0, err
	}
	return f.inner.Space()
}

// LinkFrom is part of vfs.Linker, if the inner file system is one.
func (f *FS) LinkFrom(src vfs.File, newName string) error {
	if err := f.before(Link, newName); err != nil {
		return err
	}
	linker, ok := f.inner.(vfs.Linker)
	if !ok {
		return &fs.PathError{Op: "link", Path: newName, Err: errors.ErrUnsupported}
	}
	if wrapped, ok := src.(*file); ok {
		src = wrapped.File
	}
	return linker.LinkFrom(src, newName)
}

type file struct {
	vfs.File
	fs   *FS
	name string
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.before(Read, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.before(Write, f.name)
	if err == nil {
		return f.File.WriteAt(p, off)
	}
	if short, ok := errors.AsType[*ShortWrite](err); ok {
		n, writeErr := f.File.WriteAt(p[:min(short.Bytes, len(p))], off)
		return n, errors.Join(err, writeErr)
	}
	return 0, err
}

func (f *file) Truncate(size int64) error {
	if err := f.fs.before(Truncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Sync fails the way Linux fails, if the inner file can: see memfs.
func (f *file) Sync() error {
	err := f.fs.before(Sync, f.name)
	if err == nil {
		return f.File.Sync()
	}
	if loser, ok := f.File.(interface{ LoseDirty() }); ok {
		loser.LoseDirty()
	}
	return err
}

func (f *file) Stat() (fs.FileInfo, error) {
	if err := f.fs.before(Stat, f.name); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

// Close always closes, as the systems do.
func (f *file) Close() error {
	err := f.fs.before(Close, f.name)
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}
