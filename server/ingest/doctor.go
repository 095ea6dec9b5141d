package ingest

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"

	"gantry/chunkstore"
	"gantry/store"
	"gantry/upload"
)

// Finding is one thing that Examine found wrong.
type Finding struct {
	ID       string `json:"id"`      // the blob, upload or object key
	Problem  string `json:"problem"` // what is wrong, a sentence
	Repair   string `json:"repair"`  // what repairing does, a sentence
	Repaired bool   `json:"repaired"`
	Note     bool   `json:"note,omitempty"` // nothing is known to be wrong; Repair is what to do to know more
}

// ExamineOptions say how thoroughly Examine looks.
type ExamineOptions struct {
	Deep   bool // read all bytes and compare their digests
	Repair bool // do what Finding.Repair says
}

// examiner is one run of Examine.
type examiner struct {
	*Service
	opt    ExamineOptions
	report func(Finding)
}

// Examine compares the database with the bytes in staging and in the stores, both ways, and calls
// report for each difference. It must have the data directory to itself: no server may run on it.
// An error means that it could not look at everything.
func (s *Service) Examine(ctx context.Context, opt ExamineOptions, report func(Finding)) error {
	e := &examiner{s, opt, report}
	for _, step := range []func(context.Context) error{e.references, e.blobs, e.openUploads, e.stagingData, e.objects} {
		if err := step(ctx); err != nil {
			return upload.Wrap(upload.Unavailable, "ingest.Examine", "", err)
		}
	}
	return nil
}

// found reports one problem, after repairing it if that is wanted.
func (e *examiner) found(id, problem, repair string, mend func() error) error {
	f := Finding{ID: id, Problem: problem, Repair: repair}
	var err error
	if e.opt.Repair {
		err = mend()
		f.Repaired = err == nil
	}
	e.report(f)
	return err
}

func (e *examiner) references(ctx context.Context) error {
	wrong, err := e.DB.WrongRefs(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(wrong)) {
		err := e.found(id, fmt.Sprintf("The blob's reference count is not the number of its files, %d.", wrong[id]),
			"Set the count.", func() error { return e.DB.MendRefs(ctx, id, e.Now()) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *examiner) blobs(ctx context.Context) error {
	after := ""
	for {
		blobs, err := e.DB.Blobs(ctx, after, sweepBatch)
		if err != nil || len(blobs) == 0 {
			return err
		}
		for i := range blobs {
			if err := e.blob(ctx, &blobs[i]); err != nil {
				return err
			}
		}
		after = blobs[len(blobs)-1].ID
	}
}

// blob checks both copies of one blob. A blob is lost only when neither is right.
func (e *examiner) blob(ctx context.Context, b *upload.Blob) error {
	garbage := b.State == upload.BlobCondemned && b.Root.IsZero() // nothing will ever refer to it again
	if garbage || b.State == upload.BlobDeleting || b.State == upload.BlobLost {
		return nil
	}
	staged, err := e.staged(ctx, b)
	if err != nil {
		return err
	}
	stored, err := e.stored(ctx, b)
	if err != nil {
		return err
	}
	if e.opt.Deep && b.Undigested() && b.Root.IsZero() && stored == "" {
		e.report(Finding{
			ID: b.ID, Note: true, Problem: "The content of this direct upload has no digests yet, so its bytes could not be checked.",
			Repair: "Start the server: its worker reads the object and records them. Then check again.",
		})
	}
	hasStored := b.Store != "" && stored == ""
	hasStaged := b.Staging != "" && staged == "" // a copy on another node counts as one
	switch {
	case hasStored && staged != "":
		return e.found(b.ID, "The staging copy "+staged+"; the store's copy is right.",
			"Drop the staging copy.", func() error {
				return errors.Join(e.Staging.Discard(ctx, b.Staging), e.DB.StagingDropped(ctx, b.ID))
			})
	case hasStaged && stored != "":
		return e.found(b.ID, "The object in store "+b.Store+" "+stored+"; the staging copy is right.",
			"Transfer the blob again.", func() error { return e.DB.Unstore(ctx, b.ID, "the object "+stored, e.Now()) })
	case hasStored || hasStaged:
		return nil
	}
	problem := "The blob has no copy"
	switch {
	case b.Store != "":
		problem = "The object in store " + b.Store + " " + stored
	case b.Staging != "":
		problem = "The staging copy " + staged
	}
	return e.found(b.ID, problem+"; there is no other copy.", "Mark the blob as lost: its files answer 410, and uploading the same content heals them.",
		func() error { return e.DB.MarkLost(ctx, b.ID, problem, e.Now()) })
}

// staged says what is wrong with a blob's staging copy on this node, "" if nothing is.
func (e *examiner) staged(ctx context.Context, b *upload.Blob) (string, error) {
	if b.Staging == "" || b.Node != e.Service.opt.Node {
		return "", nil
	}
	content, err := e.Staging.Open(ctx, b.Staging)
	if errors.Is(err, upload.NotFound) {
		return "is missing", nil
	}
	if err != nil {
		return "", err
	}
	defer content.Close()
	if content.Size() != b.Size {
		return fmt.Sprintf("is %d bytes long, not %d", content.Size(), b.Size), nil
	}
	if !e.opt.Deep {
		return "", nil
	}
	return differs(content, b)
}

// differs reads content and says how it differs from what the blob's row says.
func differs(content chunkstore.Content, b *upload.Blob) (string, error) {
	digest, crc, tree := sha1.New(), crc32.New(upload.Castagnoli), new(upload.TreeHasher)
	if _, err := io.Copy(io.MultiWriter(digest, crc, tree), io.NewSectionReader(content, 0, content.Size())); err != nil {
		return "cannot be read: " + err.Error(), nil
	}
	if upload.SHA1(digest.Sum(nil)) != b.SHA1 || crc.Sum32() != b.CRC32C || !b.Root.IsZero() && tree.Root() != b.Root {
		return "has other bytes than were received", nil
	}
	return "", nil
}

// stored says what is wrong with a blob's object, "" if nothing is or it has none yet.
func (e *examiner) stored(ctx context.Context, b *upload.Blob) (string, error) {
	if b.Store == "" {
		return "", nil
	}
	st, ok := e.Stores[b.Store]
	if !ok {
		return "", upload.Errorf(upload.Invalid, "", b.ID, "The store %q is not configured.", b.Store)
	}
	size, err := st.Size(ctx, b.ObjectKey)
	switch {
	case errors.Is(err, upload.NotFound):
		return "is missing", nil
	case err != nil:
		return "", err
	case size != b.Size:
		return fmt.Sprintf("is %d bytes long, not %d", size, b.Size), nil
	case !e.opt.Deep || b.Undigested() && b.Root.IsZero():
		return "", nil
	}
	err = st.Verify(ctx, b.ObjectKey, store.Digests{Size: b.Size, Root: b.Root, CRC32C: b.CRC32C})
	if errors.Is(err, upload.DigestMismatch) {
		return "has other bytes than were received", nil
	}
	return "", err
}

// openUploads reads the chunks of open uploads again; only when repairing, because a chunk that is
// found damaged is asked for again from then on.
func (e *examiner) openUploads(ctx context.Context) error {
	if !e.opt.Deep || !e.opt.Repair {
		return nil
	}
	for u := range e.Staging.All() {
		bad, err := e.Staging.Recheck(ctx, u.ID)
		if err != nil {
			return err
		}
		if len(bad) > 0 {
			e.report(Finding{
				ID: u.ID, Problem: fmt.Sprintf("Chunks of this open upload were damaged: %v.", bad),
				Repair: "Ask the client for them again.", Repaired: true,
			})
		}
	}
	return nil
}

func (e *examiner) stagingData(ctx context.Context) error {
	ids, err := e.Staging.Data()
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(ids, sweepBatch) {
		known, err := e.DB.KnownStaging(ctx, batch)
		if err != nil {
			return err
		}
		for _, id := range batch {
			if known[id] {
				continue
			}
			err := e.found(id, "No blob refers to this staging data.", "Delete it.",
				func() error { return e.Staging.Discard(ctx, id) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *examiner) objects(ctx context.Context) error {
	return e.eachOrphanObject(ctx, e.Now().Unix()+1, func(name, key string, st store.Store) error {
		return e.found(key, "No blob refers to this object in store "+name+".", "Delete it.",
			func() error { return st.Delete(ctx, key) })
	})
}
