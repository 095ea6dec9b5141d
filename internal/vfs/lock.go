package vfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// errLocked is what tryLock returns when another process has the lock.
var errLocked = errors.New("locked")

// DirLock keeps other processes out of a data directory. The system lets go of it when the process
// ends, however it ends.
type DirLock struct{ file *os.File }

// LockDir takes a lock of a directory: the file of that name in it. The error says which process has it.
func LockDir(dir, lock string) (*DirLock, error) {
	name := filepath.Join(dir, lock)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("cannot lock %s: %w", name, err)
		}
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0) // io.EOF: the file is short
		return nil, fmt.Errorf("the directory %s is in use by process %s (file %s): stop that process, or give this one another directory",
			dir, cmp.Or(strings.TrimSpace(string(pid[:n])), "(unknown)"), lock)
	}
	// The number is for people only; the lock holds without it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &DirLock{f}, nil
}

// Close gives the directory free. The file stays: removing it would race with the next process.
func (l *DirLock) Close() error { return l.file.Close() }
