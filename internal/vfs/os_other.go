//go:build !linux

package vfs

import (
	"errors"
	"math"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

func flushRange(*os.File, int64, int64) {}

func space(*os.File) (total, free int64, err error) { return math.MaxInt64, math.MaxInt64, nil }

func linkFile(_, _ *os.File, _ string) error { return errors.ErrUnsupported }
