//go:build ceph

package rados

import (
	"context"
	"fmt"

	"gantry/store"
	"gantry/upload"
)

// Verify has the OSDs compute the checksums of what they have, and combines them.
func (s *Store) Verify(ctx context.Context, key string, want store.Digests) error {
	const op = "rados.Verify"
	c, h, err := s.head(ctx, op, key)
	if err != nil {
		return err
	}
	if h.Size != want.Size {
		return store.Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", h.Size))
	}
	sums := make([]uint32, h.objects())
	err = s.each(ctx, h.objects(), func(ctx context.Context, i int64) error {
		got, err := call(ctx, s, func() (sum, error) { return sumOf(c.data, h.name(key, i)) })
		switch {
		case lost(err):
			return store.Mismatch(op, key, "all its data", fmt.Sprintf("data object %d of %d missing or unreadable", i, len(sums)))
		case err == nil && got.size != h.length(i):
			return store.Mismatch(op, key, fmt.Sprintf("%d bytes in data object %d", h.length(i), i), fmt.Sprintf("%d bytes", got.size))
		}
		sums[i] = got.crc32c
		return err
	})
	if err != nil {
		return s.classify(op, key, err)
	}
	if crc := h.combine(sums); crc != want.CRC32C {
		return store.Mismatch(op, key, fmt.Sprintf("crc32c %08x", want.CRC32C), fmt.Sprintf("crc32c %08x", crc))
	}
	return nil
}

// combine makes the checksum of the whole of those of the data objects.
func (h head) combine(sums []uint32) uint32 {
	var crc uint32
	for i, s := range sums {
		crc = upload.CombineCRC32C(crc, s, h.length(int64(i)))
	}
	return crc
}
