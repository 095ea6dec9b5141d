package client

import (
	"io/fs"
	"syscall"
)

// changeTime is when a file's content, name or rights were last changed, Unix nanoseconds. Unlike the
// modification time nobody can set it. 0: not known.
func changeTime(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ctim.Nano()
	}
	return 0
}
