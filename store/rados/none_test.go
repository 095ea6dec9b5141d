//go:build !ceph

package rados

import (
	"errors"
	"testing"

	"gantry/upload"
)

// A program without Ceph says so.
func TestNone(t *testing.T) {
	s, err := New(Options{Pool: "gantry"})
	if !errors.Is(err, upload.Invalid) {
		t.Errorf("New: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
