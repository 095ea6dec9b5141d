package sqldb

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// Two operations at the same time on two nodes do what they do one after the other, in the one order or
// the other. The first one is stopped before each of its statements in turn, and the second one is begun
// there; it gets through, or waits for the first. Results and rows are compared with those of both orders.
// There is no lock and no condition in package sqldb whose absence this does not notice.
func TestInterleavings(t *testing.T) {
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		for name, play := range plays {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				url := k.fresh(t)
				s := &stage{T: t, first: openURL(t, url, Options{}), second: openURL(t, url, Options{}), control: openURL(t, url, Options{})}
				s.install()
				names := make([]string, 0, len(play.acts))
				for name := range play.acts {
					names = append(names, name)
				}
				slices.Sort(names)
				for _, a := range names {
					for _, b := range names {
						s.pair(play, a, b)
					}
				}
			})
		}
	})
}

// waiting is how long the second operation has until it is taken to wait for the first.
const waiting = 10 * time.Millisecond

// stage is a database as two nodes have it, and a third one that sets the scene.
type stage struct {
	*testing.T
	first, second, control *DB

	mu            sync.Mutex
	left          int // statements until the first node stops; negative: it does not
	stopped, goOn chan struct{}
	blobs         map[string]string // blob ids and their transfers', by number
	moves         map[int]meta.Move // by their blob's number
	switched      string            // the move that was switched
}

// play is a scene, and what may be done in it.
type play struct {
	scene func(s *stage)
	acts  map[string]func(s *stage, db *DB) (any, error)
}

func (s *stage) install() {
	s.left = -1
	s.first.writer.step = s.step
	s.first.writer.commit = func(ctx context.Context, session *session) error {
		s.step()
		return s.first.dialect.commit(ctx, session)
	}
}

// step stops the first node before a statement.
func (s *stage) step() {
	s.mu.Lock()
	stop := s.left == 0
	s.left--
	s.mu.Unlock()
	if stop {
		close(s.stopped)
		<-s.goOn
	}
}

// set makes the scene anew.
func (s *stage) set(p play) {
	empty(s, s.control)
	s.blobs, s.moves = map[string]string{}, map[int]meta.Move{}
	p.scene(s)
}

// pair plays a and b in all ways.
func (s *stage) pair(p play, a, b string) {
	s.Helper()
	var serial []string
	s.set(p)
	one, two := s.act(p, a, s.second), s.act(p, b, s.second)
	serial = append(serial, s.outcome(one, two))
	s.set(p)
	two, one = s.act(p, b, s.second), s.act(p, a, s.second)
	serial = append(serial, s.outcome(one, two))
	for stop := 0; ; stop++ {
		s.set(p)
		s.mu.Lock()
		s.left, s.stopped, s.goOn = stop, make(chan struct{}), make(chan struct{})
		s.mu.Unlock()
		var wg sync.WaitGroup
		done := make(chan struct{})
		wg.Go(func() { defer close(done); one = s.act(p, a, s.first) })
		select {
		case <-done: // it has no more statements
			s.mu.Lock()
			s.left = -1
			s.mu.Unlock()
			return
		case <-s.stopped:
		}
		through := make(chan struct{})
		wg.Go(func() { defer close(through); two = s.act(p, b, s.second) })
		select {
		case <-through:
		case <-time.After(waiting):
		}
		close(s.goOn)
		wg.Wait()
		if got := s.outcome(one, two); !slices.Contains(serial, got) {
			s.Errorf("%s, stopped before statement %d, and %s:\n%s\none after the other:\n%s\nor the other way round:\n%s",
				a, stop+1, b, got, serial[0], serial[1])
			return
		}
	}
}

// act does one thing and says what came of it.
func (s *stage) act(p play, name string, db *DB) string {
	v, err := p.acts[name](s, db)
	if err != nil {
		return upload.KindOf(err).Code()
	}
	switch v := v.(type) {
	case meta.Answer:
		file := "none"
		if v.File != nil {
			file = v.File.ID + " " + v.File.Name + " " + v.File.Path
		}
		return fmt.Sprint(v.UploadID, " ", v.State, " ", file)
	case meta.Move:
		return fmt.Sprint(s.named(v.BlobID), " to ", v.To.Store, " ", v.State)
	case []meta.Move:
		var left []string
		for i := range v {
			left = append(left, s.named(v[i].BlobID)+" to "+v[i].To.Store)
		}
		slices.Sort(left) // ids are random
		return strings.Join(left, ", ")
	case meta.Job:
		return fmt.Sprint("epoch ", v.Transfer.Lease.Epoch)
	case []upload.Blob:
		var ids []string
		for i := range v {
			ids = append(ids, v[i].ID)
		}
		return s.named(strings.Join(ids, " "))
	}
	return s.named(fmt.Sprint(v))
}

// named replaces ids, which are random, by the numbers of the blobs.
func (s *stage) named(text string) string {
	var pairs []string
	for id, number := range s.blobs {
		pairs = append(pairs, id, number)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// outcome is the results and all rows.
func (s *stage) outcome(one, two string) string {
	s.Helper()
	ids, err := s.control.reader.db.Query(`SELECT b.id, t.id, b.crc32c FROM blobs b JOIN transfers t ON t.blob_id = b.id`)
	must(s, err)
	for ids.Next() {
		var blob, transfer, number string
		must(s, ids.Scan(&blob, &transfer, &number))
		s.blobs[blob], s.blobs[transfer] = "blob "+number, "transfer "+number
	}
	must(s, ids.Err())
	moves, err := s.control.Moves(s.Context(), meta.MoveQuery{Limit: 100})
	must(s, err)
	for _, m := range moves {
		s.blobs[m.ID] = fmt.Sprint("move to ", m.To.Store)
	}
	lines := []string{"results: " + one + "; " + two}
	for _, query := range []string{
		`SELECT 'blob', b.crc32c, b.state, b.refs, b.node, b.staging, b.store, b.object_key, b.last_owner, b.root, b.condemned_at FROM blobs b`,
		`SELECT 'file', f.id, f.owner, f.blob_id, f.name, f.path, f.size FROM files f`,
		`SELECT 'transfer', t.blob_id, t.state, t.bytes, t.attempts, t.next_at, t.due_at, t.last_error, t.lease_owner, t.lease_epoch, t.lease_until FROM transfers t`,
		`SELECT 'answer', a.upload_id, a.owner, a.idem_key, a.state, a.file FROM answers a`,
		`SELECT 'audit', a.kind, a.detail FROM audit a`,
		`SELECT 'direct', d.id, d.idem_key, d.blob_id, d.updated_at, d.ended_at FROM direct_uploads d`,
		`SELECT 'move', m.blob_id, m.from_store, m.from_key, m.to_store, m.to_key, m.state, m.checkpoint, m.switched_at FROM moves m`,
	} {
		found, err := s.control.reader.db.Queryx(query)
		must(s, err)
		for found.Next() {
			values, err := found.SliceScan()
			must(s, err)
			for i, v := range values {
				switch v := v.(type) {
				case []byte:
					values[i] = fmt.Sprintf("%q", v)
				case nil:
					values[i] = "-"
				}
			}
			lines = append(lines, s.named(fmt.Sprint(values...)))
		}
		must(s, found.Err())
	}
	slices.Sort(lines[1:])
	return "\t" + strings.Join(lines, "\n\t")
}

// commit is upload n, of the content that is given.
func (s *stage) commit(n int, content string) meta.Commit {
	c := commitOf(n)
	c.UploadID, c.File.ID, c.File.Owner, c.File.Name = fmt.Sprint("upload", n), fmt.Sprint("file", n), "owner", fmt.Sprint("name", n)
	c.Sealed = upload.Sealed{Size: 1 << 20, SHA1: upload.SumSHA1([]byte(content)), Hint: upload.SumSHA1([]byte("hint " + content)), CRC32C: uint32(n)}
	return c
}

// add commits upload n.
func (s *stage) add(n int, content string) upload.File {
	s.Helper()
	a, err := s.control.CommitUpload(s.Context(), s.commit(n, content))
	must(s, err)
	s.blobs[a.File.BlobID], s.blobs[a.File.Transfer.ID] = fmt.Sprint("blob ", n), fmt.Sprint("transfer ", n)
	return *a.File
}

var forever = noon.Add(1e6 * time.Hour)

// directOf is direct upload n.
func directOf(n int, key string) meta.DirectUpload {
	return meta.DirectUpload{
		Spec: upload.Spec{ID: fmt.Sprint("upload", n), Owner: "owner", Size: 1 << 20, Key: key, CreatedAt: noon}, BlobID: fmt.Sprint("blob", n), Store: "local",
		ObjectKey: fmt.Sprint("key", n), MultipartID: "m", UpdatedAt: noon,
	}
}

// beginDirect begins direct upload n.
func (s *stage) beginDirect(n int) {
	s.Helper()
	must(s, s.control.BeginDirect(s.Context(), directOf(n, fmt.Sprint("key", n))))
}

// share makes file n of a blob: one that goes does not leave it without files, which the schema would notice.
func (s *stage) share(n, blob int, content string) {
	s.Helper()
	_, err := s.control.CommitInstant(s.Context(), s.commit(n, content), s.id("blob", blob))
	must(s, err)
}

// id is the id of blob or transfer n.
func (s *stage) id(what string, n int) string {
	for id, name := range s.blobs {
		if name == fmt.Sprint(what, " ", n) {
			return id
		}
	}
	s.Fatalf("there is no %s %d", what, n)
	return ""
}

func (s *stage) lease(n int) {
	_, err := s.control.Lease(s.Context(), s.id("transfer", n), "worker", noon, noon.Add(time.Minute))
	must(s, err)
}

func rootOf(content string) upload.Root { return sha256.Sum256([]byte(content)) }

// store takes upload n to its end.
func (s *stage) store(n int, content string) {
	s.lease(n)
	_, err := s.control.SetRoot(s.Context(), s.id("transfer", n), 1, rootOf(content), noon)
	must(s, err)
	must(s, s.control.Stored(s.Context(), s.id("transfer", n), 1, "local", fmt.Sprint("key", n), noon))
}

// begin begins to move blob n to the store remote, or local if it is there, and move does all of it.
func (s *stage) begin(n int) meta.Move {
	b, err := s.control.Blob(s.Context(), s.id("blob", n))
	must(s, err)
	to := "remote"
	if b.Store == to {
		to = "local"
	}
	m, err := s.control.BeginMove(s.Context(), meta.Fence{}, &b, to, noon)
	must(s, err)
	s.moves[n], s.blobs[m.ID] = m, "move to "+to
	return m
}

func (s *stage) move(n int) error {
	s.switched = s.begin(n).ID
	return s.control.Switch(s.Context(), meta.Fence{}, s.switched, noon)
}

// moveOf is the move of blob n that was begun last, and keyOf its new object's key.
func (s *stage) moveOf(n int) string { return s.moves[n].ID }
func (s *stage) keyOf(n int) string  { return s.moves[n].To.Key }

// stored is blob n as one who has seen it in a place knows it.
func (s *stage) stored(n int, store, key string) *upload.Blob {
	return &upload.Blob{ID: s.id("blob", n), Store: store, ObjectKey: key}
}

// acts without a result.
func plain(f func(s *stage, db *DB) error) func(s *stage, db *DB) (any, error) {
	return func(s *stage, db *DB) (any, error) { return "", f(s, db) }
}

var later = noon.Add(time.Hour)

var plays = map[string]play{
	// Who ends an upload, and to whom does a key belong?
	"answers": {
		scene: func(s *stage) {
			s.add(1, "old")
			old := s.commit(7, "")
			_, err := s.control.EndUpload(s.Context(), meta.Answer{UploadID: old.UploadID, Owner: "owner", Key: "old", State: upload.Expired, CreatedAt: noon, ExpiresAt: noon})
			must(s, err)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"complete": func(s *stage, db *DB) (any, error) {
				c := s.commit(2, "new")
				c.Key = "key"
				return db.CommitUpload(s.Context(), c)
			},
			"complete another": func(s *stage, db *DB) (any, error) {
				c := s.commit(3, "other")
				c.Key = "key"
				return db.CommitUpload(s.Context(), c)
			},
			"complete without an answer": func(s *stage, db *DB) (any, error) {
				c := s.commit(4, "other")
				c.Answer = false
				return db.CommitUpload(s.Context(), c)
			},
			"cancel": func(s *stage, db *DB) (any, error) {
				return db.EndUpload(s.Context(), meta.Answer{UploadID: "upload2", Owner: "owner", Key: "key", State: upload.Cancelled, CreatedAt: noon, ExpiresAt: later.Add(1e6 * time.Hour)})
			},
			"complete in place of an expired answer": func(s *stage, db *DB) (any, error) {
				c := s.commit(7, "late")
				c.Key = "old"
				return db.CommitUpload(s.Context(), c)
			},
			"cancel in place of an expired answer": func(s *stage, db *DB) (any, error) {
				return db.EndUpload(s.Context(), meta.Answer{UploadID: "upload7", Owner: "owner", Key: "old", State: upload.Cancelled, CreatedAt: noon, ExpiresAt: later.Add(1e6 * time.Hour)})
			},
			"take a file's id": func(s *stage, db *DB) (any, error) {
				c := s.commit(5, "fifth")
				c.File.ID = "file2"
				return db.CommitUpload(s.Context(), c)
			},
		},
	},
	// Who ends a direct upload, and begins one with its key?
	"direct": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.store(1, "x")
			s.beginDirect(2)
			s.beginDirect(3)
			_, err := s.control.EndUpload(s.Context(), meta.Answer{UploadID: "upload3", Owner: "owner", State: upload.Expired, CreatedAt: noon, ExpiresAt: forever})
			must(s, err)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"complete": func(s *stage, db *DB) (any, error) { return db.CommitDirect(s.Context(), s.commit(2, "")) },
			"complete again": func(s *stage, db *DB) (any, error) {
				c := s.commit(2, "")
				c.File.ID = "another"
				return db.CommitDirect(s.Context(), c)
			},
			"complete in place of a file": func(s *stage, db *DB) (any, error) {
				c := s.commit(2, "")
				c.Replaces = "file1"
				return db.CommitDirect(s.Context(), c)
			},
			"instant": func(s *stage, db *DB) (any, error) {
				c := s.commit(2, "")
				c.Direct = true
				return db.CommitInstant(s.Context(), c, s.id("blob", 1))
			},
			"cancel": func(s *stage, db *DB) (any, error) {
				return db.EndUpload(s.Context(), meta.Answer{UploadID: "upload2", Owner: "owner", State: upload.Cancelled, CreatedAt: noon, ExpiresAt: forever})
			},
			"touch":  plain(func(s *stage, db *DB) error { return db.TouchDirect(s.Context(), "upload2", later) }),
			"drop":   plain(func(s *stage, db *DB) error { return db.DropDirect(s.Context(), "upload2") }),
			"drop 3": plain(func(s *stage, db *DB) error { return db.DropDirect(s.Context(), "upload3") }),
			"begin":  plain(func(s *stage, db *DB) error { return db.BeginDirect(s.Context(), directOf(4, "key2")) }),
			"begin another": plain(func(s *stage, db *DB) error {
				return db.BeginDirect(s.Context(), directOf(5, "new"))
			}),
			"begin one more": plain(func(s *stage, db *DB) error {
				return db.BeginDirect(s.Context(), directOf(6, "new"))
			}),
			"delete": plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file1", later) }),
		},
	},
	// A direct upload's object is being read.
	"reading": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.lease(1)
			_, err := s.control.SetRoot(s.Context(), s.id("transfer", 1), 1, rootOf("x"), noon)
			must(s, err)
			s.beginDirect(2)
			a, err := s.control.CommitDirect(s.Context(), s.commit(2, ""))
			must(s, err)
			s.blobs[a.File.Transfer.ID] = "transfer 2"
			s.lease(2)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"digests 2": plain(func(s *stage, db *DB) error {
				return db.SetDigests(s.Context(), s.id("transfer", 2), 1, s.commit(2, "x").Sealed, later)
			}),
			"other digests 2": plain(func(s *stage, db *DB) error {
				return db.SetDigests(s.Context(), s.id("transfer", 2), 1, s.commit(2, "y").Sealed, later)
			}),
			"digests and root 2": func(s *stage, db *DB) (any, error) {
				if err := db.SetDigests(s.Context(), s.id("transfer", 2), 1, s.commit(2, "x").Sealed, later); err != nil {
					return "", err
				}
				return db.SetRoot(s.Context(), s.id("transfer", 2), 1, rootOf("x"), later)
			},
			"stored 1": plain(func(s *stage, db *DB) error {
				return db.Stored(s.Context(), s.id("transfer", 1), 1, "local", "key1", later)
			}),
			"stored 2": plain(func(s *stage, db *DB) error {
				return db.Stored(s.Context(), s.id("transfer", 2), 1, "local", "key2", later)
			}),
			"dead and lost 2": plain(func(s *stage, db *DB) error {
				return db.Dead(s.Context(), s.id("transfer", 2), 1, "rot", true, later)
			}),
			"cancel 2":  plain(func(s *stage, db *DB) error { return db.CancelTransfer(s.Context(), s.id("transfer", 2), later) }),
			"mark lost": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), "blob2", "rot", later) }),
			"delete 2":  plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file2", later) }),
		},
	},
	// A file that is stored.
	"file": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.store(1, "x")
			s.share(9, 1, "x")
			s.add(2, "y")
			s.store(2, "y")
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"instant": func(s *stage, db *DB) (any, error) {
				return db.CommitInstant(s.Context(), s.commit(3, "x"), s.id("blob", 1))
			},
			"replace": func(s *stage, db *DB) (any, error) {
				c := s.commit(5, "z")
				c.Replaces = "file1"
				return db.CommitUpload(s.Context(), c)
			},
			"replace at once": func(s *stage, db *DB) (any, error) {
				c := s.commit(6, "y")
				c.Replaces = "file1"
				return db.CommitInstant(s.Context(), c, s.id("blob", 2))
			},
			"rename": func(s *stage, db *DB) (any, error) {
				name := "renamed"
				f, err := db.UpdateFile(s.Context(), "owner", "file1", meta.FileChange{Name: &name, Now: later})
				return f.Name + f.Path, err
			},
			"move": func(s *stage, db *DB) (any, error) {
				path := "moved"
				f, err := db.UpdateFile(s.Context(), "owner", "file1", meta.FileChange{Path: &path, Now: later})
				return f.Name + f.Path, err
			},
			"delete":    plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file1", later) }),
			"mark lost": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
			"unstore":   plain(func(s *stage, db *DB) error { return db.Unstore(s.Context(), s.id("blob", 1), "404", later) }),
			"drop":      plain(func(s *stage, db *DB) error { return db.StagingDropped(s.Context(), s.id("blob", 1)) }),
			"mend":      plain(func(s *stage, db *DB) error { return db.MendRefs(s.Context(), s.id("blob", 1), later) }),
		},
	},
	// Two uploads of one content, and their workers.
	"twins": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.lease(1)
			s.add(2, "x")
			s.lease(2)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"root 1": func(s *stage, db *DB) (any, error) {
				return db.SetRoot(s.Context(), s.id("transfer", 1), 1, rootOf("x"), later)
			},
			"root 2": func(s *stage, db *DB) (any, error) {
				return db.SetRoot(s.Context(), s.id("transfer", 2), 1, rootOf("x"), later)
			},
			"another root 2": func(s *stage, db *DB) (any, error) {
				return db.SetRoot(s.Context(), s.id("transfer", 2), 1, rootOf("collision"), later)
			},
			"stored 1": plain(func(s *stage, db *DB) error {
				return db.Stored(s.Context(), s.id("transfer", 1), 1, "local", "key1", later)
			}),
			"dead and lost 1": plain(func(s *stage, db *DB) error {
				return db.Dead(s.Context(), s.id("transfer", 1), 1, "rot", true, later)
			}),
			"cancel 1": plain(func(s *stage, db *DB) error { return db.CancelTransfer(s.Context(), s.id("transfer", 1), later) }),
			"retry 1":  plain(func(s *stage, db *DB) error { return db.RetryTransfer(s.Context(), s.id("transfer", 1), later) }),
			"renew 1": plain(func(s *stage, db *DB) error {
				return db.Renew(s.Context(), s.id("transfer", 1), 1, meta.Progress{State: upload.TransferVerifying, Bytes: 5, Until: later.Add(time.Hour), Now: later})
			}),
			"delete 1": plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file1", later) }),
			"delete 2": plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file2", later) }),
			"take due": func(s *stage, db *DB) (any, error) {
				return db.TakeDue(s.Context(), "node", later, time.Minute, 10)
			},
		},
	},
	// One of the twins has its root already.
	"join": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.lease(1)
			_, err := s.control.SetRoot(s.Context(), s.id("transfer", 1), 1, rootOf("x"), noon)
			must(s, err)
			must(s, s.control.Dead(s.Context(), s.id("transfer", 1), 1, "why", false, noon))
			s.share(9, 1, "x")
			s.add(2, "x")
			s.lease(2)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"root 2": func(s *stage, db *DB) (any, error) {
				return db.SetRoot(s.Context(), s.id("transfer", 2), 1, rootOf("x"), later)
			},
			"instant 1": func(s *stage, db *DB) (any, error) {
				return db.CommitInstant(s.Context(), s.commit(3, "x"), s.id("blob", 1))
			},
			"retry 1": plain(func(s *stage, db *DB) error { return db.RetryTransfer(s.Context(), s.id("transfer", 1), later) }),
			"rename 1": func(s *stage, db *DB) (any, error) {
				name := "renamed"
				f, err := db.UpdateFile(s.Context(), "owner", "file1", meta.FileChange{Name: &name, Now: later})
				return f.Name, err
			},
			"replace 1": func(s *stage, db *DB) (any, error) {
				c := s.commit(5, "z")
				c.Replaces = "file1"
				return db.CommitUpload(s.Context(), c)
			},
			"delete 1":    plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file1", later) }),
			"mark lost 1": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
			"mend 1":      plain(func(s *stage, db *DB) error { return db.MendRefs(s.Context(), s.id("blob", 1), later) }),
		},
	},
	// Blobs without files: 1 was stored, 2 waits to be tried again.
	"condemned": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.store(1, "x")
			s.add(2, "y")
			s.lease(2)
			_, err := s.control.SetRoot(s.Context(), s.id("transfer", 2), 1, rootOf("y"), noon)
			must(s, err)
			must(s, s.control.Retry(s.Context(), s.id("transfer", 2), 1, noon, "why", noon))
			must(s, s.control.DeleteFile(s.Context(), "owner", "file1", noon))
			must(s, s.control.DeleteFile(s.Context(), "owner", "file2", noon.Add(time.Second)))
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"collect": func(s *stage, db *DB) (any, error) {
				return db.Collect(s.Context(), meta.CollectQuery{CondemnedBefore: later, Now: later, Limit: 10})
			},
			"deleted 1": plain(func(s *stage, db *DB) error { return db.Deleted(s.Context(), s.id("blob", 1)) }),
			"instant 1": func(s *stage, db *DB) (any, error) {
				return db.CommitInstant(s.Context(), s.commit(3, "x"), s.id("blob", 1))
			},
			"instant 2": func(s *stage, db *DB) (any, error) {
				return db.CommitInstant(s.Context(), s.commit(4, "y"), s.id("blob", 2))
			},
			"lease 2": func(s *stage, db *DB) (any, error) {
				return db.Lease(s.Context(), s.id("transfer", 2), "worker", later, later.Add(time.Minute))
			},
			"retry 2":     plain(func(s *stage, db *DB) error { return db.RetryTransfer(s.Context(), s.id("transfer", 2), later) }),
			"cancel 2":    plain(func(s *stage, db *DB) error { return db.CancelTransfer(s.Context(), s.id("transfer", 2), later) }),
			"mark lost 1": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
			"mark lost 2": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 2), "rot", later) }),
			"mend 1":      plain(func(s *stage, db *DB) error { return db.MendRefs(s.Context(), s.id("blob", 1), later) }),
			"take due": func(s *stage, db *DB) (any, error) {
				return db.TakeDue(s.Context(), "node", later, time.Minute, 10)
			},
		},
	},
	// A worker finds the bytes gone of which somebody makes a file.
	"losing": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.lease(1)
			_, err := s.control.SetRoot(s.Context(), s.id("transfer", 1), 1, rootOf("x"), noon)
			must(s, err)
			must(s, s.control.DeleteFile(s.Context(), "owner", "file1", noon))
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"dead and lost": plain(func(s *stage, db *DB) error {
				return db.Dead(s.Context(), s.id("transfer", 1), 1, "rot", true, later)
			}),
			"mark lost": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
			"instant": func(s *stage, db *DB) (any, error) {
				return db.CommitInstant(s.Context(), s.commit(3, "x"), s.id("blob", 1))
			},
			"collect": func(s *stage, db *DB) (any, error) {
				return db.Collect(s.Context(), meta.CollectQuery{CondemnedBefore: later, Now: later, Limit: 10})
			},
		},
	},
	// Blob 1 is being moved, blob 2 was moved not long ago.
	"moving": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.store(1, "x")
			s.share(9, 1, "x")
			s.add(2, "y")
			s.store(2, "y")
			must(s, s.move(2))
			s.begin(1)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"begin 1": func(s *stage, db *DB) (any, error) {
				return db.BeginMove(s.Context(), meta.Fence{}, s.stored(1, "local", "key1"), "remote", later)
			},
			"begin 1 elsewhere": func(s *stage, db *DB) (any, error) {
				return db.BeginMove(s.Context(), meta.Fence{}, s.stored(1, "local", "key1"), "elsewhere", later)
			},
			"save 1": plain(func(s *stage, db *DB) error {
				return db.SaveMove(s.Context(), meta.Fence{}, s.moveOf(1), []byte("half"))
			}),
			"switch 1":  plain(func(s *stage, db *DB) error { return db.Switch(s.Context(), meta.Fence{}, s.moveOf(1), later) }),
			"abandon 1": plain(func(s *stage, db *DB) error { return db.Abandon(s.Context(), meta.Fence{}, s.moveOf(1)) }),
			"unstore 1": plain(func(s *stage, db *DB) error { return db.Unstore(s.Context(), s.id("blob", 1), "404", later) }),
			"object lost 1": plain(func(s *stage, db *DB) error {
				return db.ObjectLost(s.Context(), s.id("blob", 1), meta.Place{Store: "local", Key: "key1"}, "404", later)
			}),
			"mark lost 1": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
			"drop 1":      plain(func(s *stage, db *DB) error { return db.StagingDropped(s.Context(), s.id("blob", 1)) }),
			"delete 1":    plain(func(s *stage, db *DB) error { return db.DeleteFile(s.Context(), "owner", "file1", later) }),
			"mend 1":      plain(func(s *stage, db *DB) error { return db.MendRefs(s.Context(), s.id("blob", 1), later) }),
			"switch back 2": plain(func(s *stage, db *DB) error {
				return db.SwitchBack(s.Context(), meta.Fence{}, s.moveOf(2), later)
			}),
			"object lost 2": plain(func(s *stage, db *DB) error {
				return db.ObjectLost(s.Context(), s.id("blob", 2), meta.Place{Store: "remote", Key: s.keyOf(2)}, "404", later)
			}),
			"leftovers": func(s *stage, db *DB) (any, error) {
				return db.Leftovers(s.Context(), meta.Fence{}, later, "", 10)
			},
		},
	},
	// A blob without files is being moved, and deleted.
	"moving what goes": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.store(1, "x")
			must(s, s.move(1))
			_, err := s.control.Leftovers(s.Context(), meta.Fence{}, later, "", 10)
			must(s, err)
			s.begin(1)
			must(s, s.control.DeleteFile(s.Context(), "owner", "file1", noon))
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"collect": func(s *stage, db *DB) (any, error) {
				return db.Collect(s.Context(), meta.CollectQuery{CondemnedBefore: later, Now: later, Limit: 10})
			},
			"deleted": plain(func(s *stage, db *DB) error { return db.Deleted(s.Context(), s.id("blob", 1)) }),
			"switch":  plain(func(s *stage, db *DB) error { return db.Switch(s.Context(), meta.Fence{}, s.moveOf(1), later) }),
			"save": plain(func(s *stage, db *DB) error {
				return db.SaveMove(s.Context(), meta.Fence{}, s.moveOf(1), []byte("half"))
			}),
			"forget the first": plain(func(s *stage, db *DB) error { return db.ForgetMove(s.Context(), s.switched) }),
			"begin elsewhere": func(s *stage, db *DB) (any, error) {
				b := s.stored(1, "remote", upload.ObjectKeyFor(&upload.Blob{ID: s.id("blob", 1), SHA1: upload.SumSHA1([]byte("x"))})+"-"+s.switched)
				return db.BeginMove(s.Context(), meta.Fence{}, b, "elsewhere", later)
			},
			"instant": func(s *stage, db *DB) (any, error) {
				return db.CommitInstant(s.Context(), s.commit(3, "x"), s.id("blob", 1))
			},
			"mark lost": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
		},
	},
	// The janitor is deleting.
	"deleting": {
		scene: func(s *stage) {
			s.add(1, "x")
			s.store(1, "x")
			must(s, s.control.DeleteFile(s.Context(), "owner", "file1", noon))
			_, err := s.control.Collect(s.Context(), meta.CollectQuery{CondemnedBefore: later, Now: noon, Limit: 10})
			must(s, err)
		},
		acts: map[string]func(s *stage, db *DB) (any, error){
			"collect": func(s *stage, db *DB) (any, error) {
				return db.Collect(s.Context(), meta.CollectQuery{CondemnedBefore: later, Now: later, Limit: 10})
			},
			"deleted":   plain(func(s *stage, db *DB) error { return db.Deleted(s.Context(), s.id("blob", 1)) }),
			"mark lost": plain(func(s *stage, db *DB) error { return db.MarkLost(s.Context(), s.id("blob", 1), "rot", later) }),
			"mend":      plain(func(s *stage, db *DB) error { return db.MendRefs(s.Context(), s.id("blob", 1), later) }),
			"unstore":   plain(func(s *stage, db *DB) error { return db.Unstore(s.Context(), s.id("blob", 1), "404", later) }),
		},
	},
}
