package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// control runs a system call on the descriptor of an open file, again when a signal interrupts it.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = conn.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); !errors.Is(callErr, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return callErr
}

// syncData is fdatasync: content and length, but no journal commit for a changed mtime alone.
func syncData(f *os.File) error {
	if err := control(f, unix.Fdatasync); err != nil {
		return &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

// flushRange begins write-back so that the sync to come is short. It is a hint: failures are of no
// interest, that sync will tell.
func flushRange(f *os.File, off, n int64) {
	_ = control(f, func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

func space(dir *os.File) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := control(dir, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir.Name(), Err: err}
	}
	size := uint64(st.Bsize)
	return clampSpace(st.Blocks, size), clampSpace(st.Bavail, size), nil
}

func linkFile(src, dir *os.File, name string) error {
	return control(src, func(srcFD int) error {
		return control(dir, func(dirFD int) error {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", srcFD), dirFD, name, unix.AT_SYMLINK_FOLLOW)
		})
	})
}
