package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"

	"gantry/upload"
)

// ownerKey is the object that says whose a store is.
const ownerKey = "00/gantry-database"

// Owned is a store that belongs to one database. What no row of the database knows is garbage there, and is
// deleted: so to another database, or to other programs, sharing a bucket would be deadly. The first Put
// or List of a process looks whose the store is; upload.Invalid if it is another's. It is made by NewOwned.
type Owned struct {
	Store
	id      string
	claimed atomic.Bool
}

var _ Wrapper = (*Owned)(nil)

// NewOwned returns the store as the property of the database with this id.
func NewOwned(s Store, id string) *Owned { return &Owned{Store: s, id: id} }

// Unwrap returns the store inside.
func (o *Owned) Unwrap() Store { return o.Store }

// Claim sees to it that the store is the database's: an empty one becomes it. It may be repeated.
func (o *Owned) Claim(ctx context.Context) error {
	const op = "store.Claim"
	if o.claimed.Load() {
		return nil
	}
	owner, err := o.owner(ctx)
	if errors.Is(err, upload.NotFound) {
		object, found, listing := o.first(ctx)
		if listing != nil {
			return upload.Wrap(upload.Unavailable, op, "", listing)
		}
		if !found {
			return o.Adopt(ctx)
		}
		owner, err = o.owner(ctx) // another process may have claimed it just now
		if errors.Is(err, upload.NotFound) {
			return upload.Errorf(upload.Invalid, op, object,
				"The store has objects, %q for one, and nothing says that they are this server's. Give it a bucket, prefix or namespace of its own. "+
					"If they are what this server has stored there, say so with: gantry doctor --store NAME --adopt", object)
		}
	}
	if err != nil {
		return upload.Wrap(upload.Unavailable, op, "", err)
	}
	if owner != o.id {
		return upload.Errorf(upload.Invalid, op, "",
			"The store belongs to another server, with the database %s, to which this one's objects would be garbage. Give this one a bucket, prefix or namespace of its own.", owner)
	}
	o.claimed.Store(true)
	return nil
}

// first returns one object of the store, if it has any.
func (o *Owned) first(ctx context.Context) (key string, found bool, err error) {
	for object, err := range o.Store.List(ctx) {
		return object.Key, err == nil, err
	}
	return "", false, nil
}

// Adopt makes the store the database's, whatever is there.
func (o *Owned) Adopt(ctx context.Context) error {
	err := o.Store.Put(ctx, ownerKey, bytes.NewReader([]byte(o.id+"\n")), PutOptions{})
	if err == nil {
		o.claimed.Store(true)
	}
	return err
}

func (o *Owned) owner(ctx context.Context) (_ string, err error) {
	r, err := o.Store.Open(ctx, ownerKey, 0, -1)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	text, err := io.ReadAll(io.LimitReader(r, 256))
	if err == nil && len(text) == 0 {
		err = fmt.Errorf("the object %s is empty: %w", ownerKey, io.ErrUnexpectedEOF)
	}
	return strings.TrimSpace(string(text)), err
}

// Put is part of Store.
func (o *Owned) Put(ctx context.Context, key string, content Content, opt PutOptions) error {
	if err := o.Claim(ctx); err != nil {
		return err
	}
	return o.Store.Put(ctx, key, content, opt)
}

// List is part of Store.
func (o *Owned) List(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		o.claimed.Store(false) // what is listed may be deleted: look again
		if err := o.Claim(ctx); err != nil {
			yield(Object{}, err)
			return
		}
		for object, err := range o.Store.List(ctx) {
			if object.Key == ownerKey {
				continue
			}
			if !yield(object, err) || err != nil {
				return
			}
		}
	}
}
