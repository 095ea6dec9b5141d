//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package vfs

import (
	"errors"
	"os"
)

func tryLock(*os.File) error { return errors.ErrUnsupported }
