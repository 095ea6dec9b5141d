//go:build !ceph

package rados

import (
	"gantry/store"
	"gantry/upload"
)

// Store is what it is with the tag ceph. Without, there is none.
type Store struct{ store.Store }

// New fails.
func New(Options) (*Store, error) {
	return nil, upload.Errorf(upload.Invalid, "rados.New", "", "This program was built without Ceph. Use one that was built with `make build-ceph`, or the image for Ceph.")
}

// Close does nothing.
func (*Store) Close() error { return nil }
