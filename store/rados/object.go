//go:build ceph

package rados

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ceph "github.com/ceph/go-ceph/rados"

	"gantry/store"
	"gantry/upload"
)

// attribute is what a head has. It is an attribute and not omap, which pools with erasure codes do not have, and not
// the object's bytes, which cost a disk block or several.
const attribute = "gantry"

// head is an object as its attribute tells.
type head struct {
	Size       int64  `json:"size"`
	Object     int64  `json:"object"`     // the size of all data objects but the last, bytes
	Generation string `json:"generation"` // 64 bits at random, in hex
	CRC32C     uint32 `json:"crc32c"`     // of the whole, as it was sent
	Unix       int64  `json:"unix"`       // when it was written, seconds
}

// objects is how many data objects there are.
func (h head) objects() int64 { return (h.Size + h.Object - 1) / h.Object }

// length is that of one data object.
func (h head) length(i int64) int64 { return min(h.Object, h.Size-i*h.Object) }

// name is that of one data object.
func (h head) name(key string, i int64) string {
	return fmt.Sprintf("%s.%s.%08x", key, h.Generation, i)
}

// keyOf takes the name of a data object apart.
func keyOf(name string) (key, generation string, ok bool) {
	key, ok = strings.CutSuffix(name, name[max(strings.LastIndexByte(name, '.'), 0):])
	at := strings.LastIndexByte(key, '.')
	if !ok || at < 0 {
		return "", "", false
	}
	return key[:at], key[at+1:], true
}

// head reads an object's head.
func (c *cluster) head(key string) (head, error) {
	var text [512]byte
	n, err := c.heads.GetXattr(key, attribute, text[:])
	if err != nil {
		return head{}, err
	}
	var h head
	if err := json.Unmarshal(text[:n], &h); err != nil || h.Size < 0 || h.Object <= 0 || h.Generation == "" {
		return head{}, upload.Errorf(upload.DigestMismatch, "rados", key, "The object's head is damaged.")
	}
	return h, nil
}

// head returns the connection and an object's head.
func (s *Store) head(ctx context.Context, op, key string) (*cluster, head, error) {
	if err := store.CheckKey("rados", key); err != nil {
		return nil, head{}, err
	}
	c, err := s.cluster(ctx)
	if err != nil {
		return nil, head{}, s.classify(op, key, err)
	}
	h, err := call(ctx, s, func() (head, error) { return c.head(key) })
	err = s.classify(op, key, err)
	if errors.Is(err, upload.NotFound) {
		if gone := s.there(ctx, c); gone != nil {
			err = gone
		}
	}
	return c, h, err
}

// Size returns an object's length.
func (s *Store) Size(ctx context.Context, key string) (int64, error) {
	_, h, err := s.head(ctx, "rados.Size", key)
	return h.Size, err
}

// Delete removes the head, and with it the object, and then the data. What is left if that fails is Clean's.
func (s *Store) Delete(ctx context.Context, key string) error {
	const op = "rados.Delete"
	c, h, err := s.head(ctx, op, key)
	if errors.Is(err, upload.NotFound) {
		return nil
	}
	if err != nil && !errors.Is(err, upload.DigestMismatch) {
		return err
	}
	if err := s.remove(ctx, c.heads, key); err != nil {
		return s.classify(op, key, err)
	}
	return s.classify(op, key, s.removeData(ctx, c, key, h))
}

// remove deletes an object of librados, if it is there.
func (s *Store) remove(ctx context.Context, io *ceph.IOContext, name string) error {
	_, err := call(ctx, s, none(func() error { return io.Delete(name) }))
	if errors.Is(err, ceph.ErrNotFound) {
		return nil
	}
	return err
}

// removeData deletes the data objects of one generation. There are none of the zero head.
func (s *Store) removeData(ctx context.Context, c *cluster, key string, h head) error {
	if h.Size == 0 {
		return nil
	}
	return s.each(ctx, h.objects(), func(ctx context.Context, i int64) error { return s.remove(ctx, c.data, h.name(key, i)) })
}
