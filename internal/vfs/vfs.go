// Package vfs is the small part of a file system that staging and the local store stand on, so that
// tests can run them on one that forgets what was not synced, or fails at the Nth operation.
package vfs

import (
	"io"
	"io/fs"
	"os"
)

// FS is a directory tree. Names are slash-separated and relative; nothing outside the tree can be
// reached. Errors satisfy errors.Is with fs.ErrNotExist and fs.ErrExist where they apply.
type FS interface {
	// OpenFile is os.OpenFile. Creating a file is durable only after SyncDir of its directory.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Mkdir creates one directory; it is no error if it exists.
	Mkdir(name string, perm fs.FileMode) error
	// Rename replaces newName atomically; durable after SyncDir of both directories.
	Rename(oldName, newName string) error
	// Remove deletes a file or an empty directory; durable after SyncDir.
	Remove(name string) error
	// ReadDir lists a directory in the order of names.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Stat describes a name; it does not follow symbolic links.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Space is what the file system has in all and what is free to this process, in bytes.
	Space() (total, free int64, err error)
}

// Linker is implemented by file systems that can give a file of another tree a second name.
type Linker interface {
	// LinkFrom makes newName another name of src, a file opened from any tree. It fails where the
	// two are not on one file system; the caller then copies.
	LinkFrom(src File, newName string) error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	// Sync makes the content durable. After it failed nothing written since the last successful
	// Sync may be believed to be on disk, whatever a second Sync says.
	Sync() error
	// Flush begins to write a range back without waiting; it promises nothing.
	Flush(off, n int64)
}

// Flags of OpenFile that are used here.
const (
	ReadOnly  = os.O_RDONLY
	ReadWrite = os.O_RDWR
	Create    = os.O_CREATE
	Excl      = os.O_EXCL
	Trunc     = os.O_TRUNC
)
