//go:build ceph

package rados

import (
	"context"
	"errors"
	"iter"
	"slices"
	"syscall"
	"time"

	ceph "github.com/ceph/go-ceph/rados"
	"golang.org/x/sync/errgroup"

	"gantry/store"
	"gantry/upload"
)

// entry is one object of a listing.
type entry struct {
	key string
	head
	err error
}

// entries lists the heads. The attribute of each is asked for by itself, many at a time.
func (s *Store) entries(ctx context.Context, c *cluster) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for names, err := range s.names(ctx, c.heads) {
			if err != nil {
				yield(entry{err: err})
				return
			}
			page := make([]entry, len(names))
			var group errgroup.Group
			group.SetLimit(atOnce)
			for i, key := range names {
				group.Go(func() error {
					h, err := call(ctx, s, func() (head, error) { return c.head(key) })
					page[i] = entry{key, h, err}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				yield(entry{err: err})
				return
			}
			for _, e := range page {
				if errno(e.err) != 0 && errors.Is(s.classify("", "", e.err), upload.NotFound) {
					continue // deleted meanwhile, or not the store's
				}
				if !yield(e) || e.err != nil {
					return
				}
			}
		}
	}
}

const (
	atOnce = 16   // small requests
	page   = 1000 // names
)

// names lists the names in a namespace, so many at a time.
func (s *Store) names(ctx context.Context, io *ceph.IOContext) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.enter(); err != nil { // the connection is to stay until the list is closed
			yield(nil, err)
			return
		}
		defer s.calls.Done()
		list, err := call(ctx, s, io.Iter)
		if err != nil {
			yield(nil, err)
			return
		}
		defer list.Close()
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			var names []string
			// It is waited for whatever ctx says, since the list must not be closed meanwhile.
			_, err := await(context.WithoutCancel(ctx), start(s, none(func() error {
				for more = list.Next(); more; more = list.Next() {
					if names = append(names, list.Value()); len(names) == page {
						break
					}
				}
				return list.Err()
			})))
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(names, nil) {
				return
			}
		}
	}
}

// List goes through the heads.
func (s *Store) List(ctx context.Context) iter.Seq2[store.Object, error] {
	const op = "rados.List"
	return func(yield func(store.Object, error) bool) {
		c, err := s.cluster(ctx)
		if err == nil {
			err = s.there(ctx, c)
		}
		if err != nil {
			yield(store.Object{}, s.classify(op, "", err))
			return
		}
		for e := range s.entries(ctx, c) {
			if !yield(store.Object{Key: e.key, Size: e.Size, Unix: e.Unix}, s.classify(op, e.key, e.err)) {
				return
			}
		}
	}
}

// abandoned is after how long a data object of no object's generation will not become one any more. It is longer
// than what a Put goes on with and the time that a Put takes.
const abandoned = 7 * 24 * time.Hour

// Clean deletes data objects that belong to no head and are so old that no Put, of any node, goes on with them.
func (s *Store) Clean(ctx context.Context) error {
	return s.classify("rados.Clean", "", s.clean(ctx, abandoned))
}

func (s *Store) clean(ctx context.Context, olderThan time.Duration) error {
	c, err := s.cluster(ctx)
	if err != nil {
		return err
	}
	var alive []string // 16 bytes each, and a pointer
	for e := range s.entries(ctx, c) {
		if e.err != nil {
			return e.err
		}
		alive = append(alive, e.Generation)
	}
	slices.Sort(alive)
	for names, err := range s.names(ctx, c.data) {
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(name string) bool {
			_, generation, ok := keyOf(name)
			_, found := slices.BinarySearch(alive, generation)
			return !ok || found
		})
		if err := s.each(ctx, int64(len(names)), func(ctx context.Context, i int64) error { return s.sweep(ctx, c, names[i], olderThan) }); err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes a data object that had no head when the heads were listed, if it has none now.
func (s *Store) sweep(ctx context.Context, c *cluster, name string, olderThan time.Duration) error {
	key, generation, _ := keyOf(name)
	old, err := call(ctx, s, func() (bool, error) {
		stat, err := c.data.Stat(name)
		if err != nil || time.Since(stat.ModTime) < olderThan {
			return false, err
		}
		h, err := c.head(key)
		return errno(err) == syscall.ENOENT || err == nil && h.Generation != generation, err
	})
	if errors.Is(err, ceph.ErrNotFound) {
		err = nil // a head that is not there, or data that has gone meanwhile
	}
	if err != nil || !old {
		return err
	}
	return s.remove(ctx, c.data, name)
}
