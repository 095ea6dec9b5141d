package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

// orphanGrace is how long an object that no row knows is left alone, as the janitor does.
const orphanGrace = time.Hour

// Finding is one thing that Check found wrong.
type Finding struct {
	ID       string `json:"id"`      // the blob or the object's key
	Problem  string `json:"problem"` // what is wrong, a sentence
	Repair   string `json:"repair"`  // what repairing does, a sentence
	Repaired bool   `json:"repaired"`
}

// CheckOptions say how thoroughly Check looks.
type CheckOptions struct {
	Deep   bool // read all bytes and compare their digests
	Repair bool // do what Finding.Repair says
}

// checker is one Check.
type checker struct {
	*Migrator
	opt    CheckOptions
	fence  meta.Fence
	mu     sync.Mutex
	report func(Finding)
}

// Check compares the two stores with the database, both ways, and calls report for each difference, one at a
// time. Everything else may go on meanwhile. An error means that it could not look at everything.
func (m *Migrator) Check(ctx context.Context, opt CheckOptions, report func(Finding)) error {
	c := &checker{Migrator: m, opt: opt, report: report}
	check := func(ctx context.Context) error {
		for _, name := range []string{m.opt.From, m.opt.To} {
			for _, state := range []upload.BlobState{upload.BlobLive, upload.BlobStranded, upload.BlobCondemned} {
				if err := m.each(ctx, name, state, c.blob); err != nil {
					return err
				}
			}
			if err := c.orphans(ctx, name); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	if opt.Repair { // nobody moves what is being repaired
		err = m.leased(ctx, func(ctx context.Context, l *lease) error {
			c.fence = l.fence
			if _, err := m.tidy(ctx, l.fence); err != nil {
				return err
			}
			return check(ctx)
		})
	} else {
		err = check(ctx)
	}
	return upload.Wrap(upload.Unavailable, "migrate.Check", "", err)
}

// found reports one problem, after repairing it if that is wanted. What changed meanwhile is not repaired.
func (c *checker) found(f Finding, mend func() error) error {
	var err error
	if c.opt.Repair {
		err = mend()
		f.Repaired = err == nil
	}
	c.mu.Lock()
	c.report(f)
	c.mu.Unlock()
	if errors.Is(err, upload.Conflict) {
		return nil
	}
	return err
}

// blob looks at a blob's object.
func (c *checker) blob(ctx context.Context, b *upload.Blob) error {
	if b.Root.IsZero() || b.Undigested() { // nothing will ever refer to it again, or nobody knows yet what it should be
		return nil
	}
	want := store.Digests{Size: b.Size, Root: b.Root, CRC32C: b.CRC32C}
	wrong, err := c.wrong(ctx, meta.Place{Store: b.Store, Key: b.ObjectKey}, want, c.opt.Deep)
	if err != nil || wrong == "" {
		return err
	}
	// Objects go only after the row names another place: one that is the blob's still is not missing by chance.
	now, err := retried(ctx, func() (upload.Blob, error) { return c.DB.Blob(ctx, b.ID) })
	if errors.Is(err, upload.NotFound) || err == nil && (now.Store != b.Store || now.ObjectKey != b.ObjectKey) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.mendBlob(ctx, &now, want, wrong)
}

// mendBlob finds out what can be done about a blob whose object is gone or wrong.
func (c *checker) mendBlob(ctx context.Context, b *upload.Blob, want store.Digests, wrong string) error {
	at := meta.Place{Store: b.Store, Key: b.ObjectKey}
	f := Finding{ID: b.ID, Problem: fmt.Sprintf("The object in store %q %s", at.Store, wrong)}
	moves, err := retried(ctx, func() ([]meta.Move, error) {
		return c.DB.Moves(ctx, meta.MoveQuery{BlobID: b.ID, State: meta.MoveSwitched, Limit: page})
	})
	if err != nil {
		return err
	}
	for i := range moves {
		mv := &moves[i]
		if mv.To != at || c.Stores[mv.From.Store] == nil {
			continue
		}
		old, err := c.wrong(ctx, mv.From, want, true)
		if err != nil {
			return err
		}
		if old == "" {
			f.Problem += fmt.Sprintf("; the old one in store %q is right.", mv.From.Store)
			f.Repair = "Make the old object the blob's again; the next run moves it."
			return c.found(f, func() error { return c.DB.SwitchBack(ctx, c.fence, mv.ID, c.Now()) })
		}
	}
	if b.Node != "" {
		f.Problem += "; staging has a copy."
		f.Repair = "Transfer the blob again."
	} else {
		f.Problem += "; there is no other copy."
		f.Repair = "Mark the blob as lost: its files answer 410, and uploading the same content heals them."
	}
	return c.found(f, func() error { return c.DB.ObjectLost(ctx, b.ID, at, "the object "+wrong, c.Now()) })
}

// wrong says what is wrong with an object, "" if nothing is.
func (c *checker) wrong(ctx context.Context, at meta.Place, want store.Digests, deep bool) (string, error) {
	st := c.Stores[at.Store]
	size, err := st.Size(ctx, at.Key)
	switch {
	case errors.Is(err, upload.NotFound):
		return "is missing", nil
	case err != nil:
		return "", err
	case size != want.Size:
		return fmt.Sprintf("is %d bytes long, not %d", size, want.Size), nil
	case !deep:
		return "", nil
	}
	err = st.Verify(ctx, at.Key, want)
	if errors.Is(err, upload.DigestMismatch) {
		return "has other bytes than were received", nil
	}
	if errors.Is(err, upload.NotFound) {
		return "is missing", nil
	}
	return "", err
}

// orphans looks for objects that no row knows. A move's row comes before its object, and no key is used
// twice: what is not known after it was listed never will be.
func (c *checker) orphans(ctx context.Context, name string) error {
	st, before := c.Stores[name], c.Now().Add(-orphanGrace).Unix()
	var keys []string
	look := func() error {
		known, err := retried(ctx, func() (map[string]bool, error) { return c.DB.KnownObjects(ctx, name, keys) })
		if err != nil {
			return err
		}
		for _, key := range keys {
			if known[key] {
				continue
			}
			f := Finding{ID: key, Problem: fmt.Sprintf("No blob refers to this object in store %q.", name), Repair: "Delete it."}
			if err := c.found(f, func() error { return st.Delete(ctx, key) }); err != nil {
				return err
			}
		}
		keys = keys[:0]
		return nil
	}
	for object, err := range st.List(ctx) {
		if err != nil {
			return err
		}
		if object.Unix >= before {
			continue
		}
		if keys = append(keys, object.Key); len(keys) == page {
			if err := look(); err != nil {
				return err
			}
		}
	}
	return look()
}
