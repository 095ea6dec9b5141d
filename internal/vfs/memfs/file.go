package memfs

import (
	"io"
	"io/fs"
	"syscall"
	"time"
)

// file is an open file.
type file struct {
	fs       *FS
	node     *inode
	name     string
	writable bool
	closed   bool // under fs.mu
}

// ReadAt is part of vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	switch {
	case f.closed:
		return 0, pathError("read", f.name, fs.ErrClosed)
	case off < 0:
		return 0, pathError("read", f.name, fs.ErrInvalid)
	case off >= int64(len(f.node.data)):
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt is part of vfs.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.canWrite("write"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	end := off + int64(len(p))
	if end > int64(len(f.node.data)) && f.fs.free <= 0 {
		return 0, pathError("write", f.name, syscall.ENOSPC)
	}
	f.node.grow(end)
	copy(f.node.data[off:], p)
	f.node.touch(off, end, f.fs.now())
	return len(p), nil
}

func (f *file) canWrite(op string) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case !f.writable:
		return pathError(op, f.name, fs.ErrPermission)
	}
	return nil
}

// grow makes the file at least size bytes long.
func (n *inode) grow(size int64) {
	if missing := size - int64(len(n.data)); missing > 0 {
		n.data = append(n.data, make([]byte, missing)...)
	}
}

// touch marks the sectors of a range as written.
func (n *inode) touch(off, end int64, now time.Time) {
	if n.dirty == nil {
		n.dirty = map[int64]struct{}{}
	}
	for sector := off / sectorSize; sector*sectorSize < end; sector++ {
		n.dirty[sector] = struct{}{}
	}
	n.mtime = now
}

func (n *inode) truncate(size int64, now time.Time) {
	if old := int64(len(n.data)); size < old {
		clear(n.data[size:]) // a later growth must find zeros, as append may reuse the array
		n.data = n.data[:size]
		n.touch(size, old, now)
		return
	}
	n.grow(size)
	n.mtime = now
}

// Truncate is part of vfs.File.
func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.canWrite("truncate"); err != nil {
		return err
	}
	f.node.truncate(size, f.fs.now())
	return nil
}

// Sync is part of vfs.File: it puts what was written since the last one on the disk.
func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("sync", f.name, fs.ErrClosed)
	}
	n, size := f.node, len(f.node.data)
	if size > len(n.synced) {
		n.synced = append(n.synced, make([]byte, size-len(n.synced))...)
	}
	clear(n.synced[size:])
	n.synced = n.synced[:size]
	for sector := range n.dirty {
		if from := sector * sectorSize; from < int64(size) {
			to := min(from+sectorSize, int64(size))
			copy(n.synced[from:to], n.data[from:to])
		}
	}
	n.dirty = nil
	return nil
}

// LoseDirty is what a failed sync does on Linux: nothing that was written since the last good one
// reached the disk, yet it counts as clean, so that the next sync succeeds without writing it. Reads
// still find it until the process and the cache are gone.
func (f *file) LoseDirty() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.dirty = nil
}

// Flush is part of vfs.File: nothing is promised, so nothing is done.
func (f *file) Flush(int64, int64) {}

// Stat is part of vfs.File.
func (f *file) Stat() (fs.FileInfo, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return nil, pathError("stat", f.name, fs.ErrClosed)
	}
	return f.node.info(f.name), nil
}

// Close is part of vfs.File.
func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// info describes an inode under a name, as it is now. Callers hold FS.mu.
func (n *inode) info(name string) fs.FileInfo {
	return fileInfo{name: name, size: int64(len(n.data)), dir: n.dir, mtime: n.mtime}
}

type fileInfo struct {
	name  string
	size  int64
	dir   bool
	mtime time.Time
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) ModTime() time.Time { return i.mtime }
func (i fileInfo) IsDir() bool        { return i.dir }
func (i fileInfo) Sys() any           { return nil }
func (i fileInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
