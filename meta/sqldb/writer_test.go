package sqldb

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gantry/meta"
	"gantry/meta/metatest"
	"gantry/upload"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// commitOf is a commit of content that no other has.
func commitOf(n int) meta.Commit {
	now := noon.Add(time.Duration(n) * time.Millisecond)
	return meta.Commit{
		UploadID: upload.NewUploadID("node"), Answer: true,
		File: upload.File{
			ID: upload.NewID(now), Owner: "owner", Name: fmt.Sprintf("file %d.jpg", n), Path: "photos/2026",
			ContentType: "image/jpeg", CreatedAt: now,
		},
		Sealed: upload.Sealed{Size: 1 << 20, SHA1: upload.SumSHA1(fmt.Append(nil, n)), Hint: upload.SumSHA1(fmt.Append(nil, "hint", n))},
		Node:   "node", Store: "local", AnswerUntil: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func want(t *testing.T, kind upload.Kind, err error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want kind %q", err, kind.Code())
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hold keeps the writer busy until the function it returns is called.
func hold(t *testing.T, db *DB) (release func()) {
	t.Helper()
	held, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := act(context.Background(), db, "hold", "", func(context.Context, *session) error {
			close(held)
			<-done
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-held
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// All that wait are committed at once: one fsync for all of them.
func TestWaitingOperationsShareACommit(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	commits := 0
	commit := db.writer.commit
	db.writer.commit = func(ctx context.Context, s *session) error { commits++; return commit(ctx, s) }
	release := hold(t, db)
	defer release()
	var wg sync.WaitGroup
	const n = 2*sqliteBatch + 10
	for i := range n {
		wg.Go(func() {
			if _, err := db.CommitUpload(t.Context(), commitOf(i)); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // until they wait; if they do not all, there are more commits
	release()
	wg.Wait()
	// The held one, and three batches of at most sqliteBatch; some may have come late.
	if commits < 4 || commits > 10 {
		t.Errorf("%d operations took %d commits", n+1, commits)
	}
}

// Nobody is answered before the commit.
func TestNoAnswerBeforeTheCommit(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	commit := db.writer.commit
	committing, goOn := make(chan struct{}), make(chan struct{})
	db.writer.commit = func(ctx context.Context, s *session) error {
		close(committing)
		<-goOn
		return commit(ctx, s)
	}
	answered := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := db.CommitUpload(t.Context(), commitOf(1))
		answered <- err
	})
	<-committing
	select {
	case err := <-answered:
		t.Errorf("answered before the commit: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	must(t, <-answered)
}

// A failure undoes what the operation did, and nothing of the others in the same transaction.
func TestAFailureUndoesOnlyItself(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	release := hold(t, db)
	defer release()
	var wg sync.WaitGroup
	// A database may refuse to go on after an error of its own; after one of the operation's it does, with
	// what the operation had done until then.
	boom, refused := errors.New("boom"), upload.Errorf(upload.Conflict, "", "", "refused")
	for i := range 30 {
		wg.Go(func() {
			err := act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
				if err := audit(ctx, s, fmt.Sprint(i), noon, "test", nil); err != nil {
					return err
				}
				switch i % 6 {
				case 0:
					return boom
				case 3:
					return refused
				}
				return nil
			})
			if errors.Is(err, boom) != (i%6 == 0) || errors.Is(err, upload.Conflict) != (i%6 == 3) {
				t.Errorf("operation %d: %v", i, err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	release()
	wg.Wait()
	if n := count(t, db, `SELECT COUNT(*) FROM audit`); n != 20 {
		t.Errorf("%d rows, want 20", n)
	}
}

func count(t testing.TB, db *DB, query string, args ...any) (n int) {
	t.Helper()
	must(t, db.reader.db.QueryRow(query, args...).Scan(&n))
	return n
}

// Who went away while waiting is not served.
func TestCanceledWhileWaiting(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	release := hold(t, db)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	c := commitOf(1)
	wg.Go(func() {
		if _, err := db.CommitUpload(ctx, c); !errors.Is(err, upload.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	cancel()
	wg.Wait() // although the writer is busy
	release()
	_, err := db.Answer(t.Context(), c.UploadID)
	want(t, upload.NotFound, err)

	// Taken from the queue already, but not begun.
	o := &operation{canceled: ctx.Err, done: make(chan struct{}), run: func(context.Context, *session) error {
		t.Error("a canceled operation was run")
		return nil
	}}
	db.writer.queue <- o
	<-o.done
	if !errors.Is(o.err, context.Canceled) {
		t.Errorf("got %v", o.err)
	}
}

// The commit fails, or its result is not known: all of the batch are told to try again, and trying
// again is safe in both cases.
func TestFailingCommit(t *testing.T) {
	t.Parallel()
	lost := errors.New("connection lost")
	for name, fail := range map[string]func(context.Context, *session) error{
		"before": func(context.Context, *session) error { return lost },
		"after": func(ctx context.Context, s *session) error {
			return errors.Join(s.text(ctx, "COMMIT"), lost)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openTest(t)
			commit, failing := db.writer.commit, false // only touched by the writer, but while it is held
			db.writer.commit = func(ctx context.Context, s *session) error {
				if failing {
					return fail(ctx, s)
				}
				failing = true // the first one is the held batch's
				return commit(ctx, s)
			}
			release := hold(t, db)
			defer release()
			commits := make([]meta.Commit, 20)
			var wg sync.WaitGroup
			for i := range commits {
				commits[i] = commitOf(i)
				commits[i].Answer = i%2 == 0
				wg.Go(func() {
					if _, err := db.CommitUpload(t.Context(), commits[i]); upload.KindOf(err) != upload.Unavailable {
						t.Errorf("upload %d: %v", i, err)
					}
				})
			}
			wg.Go(func() { // it would fail by itself, but perhaps only for what is undone
				if err := db.DeleteFile(t.Context(), "owner", "nothing", noon); upload.KindOf(err) != upload.Unavailable {
					t.Errorf("delete: %v", err)
				}
			})
			time.Sleep(100 * time.Millisecond)
			release()
			wg.Wait()
			o := &operation{canceled: func() error { return nil }, done: make(chan struct{}), run: func(context.Context, *session) error {
				db.writer.commit = commit
				return nil
			}}
			db.writer.queue <- o
			<-o.done
			for i := range commits {
				a, err := db.CommitUpload(t.Context(), commits[i])
				if err != nil || a.State != upload.Complete || a.File.ID != commits[i].File.ID {
					t.Errorf("again, upload %d: %+v, %v", i, a, err)
				}
			}
			if n := count(t, db, `SELECT COUNT(*) FROM files`); n != len(commits) {
				t.Errorf("%d files, want %d", n, len(commits))
			}
			metatest.Check(t, db, "owner")
		})
	}
}

// SQLite ends the whole transaction when the disk is full. Nobody is told that his work is done, and
// the writer goes on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	limit := func(pages int) {
		must(t, act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
			return s.text(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
		}))
	}
	limit(count(t, db, `PRAGMA page_count`) + 10)
	done := 0
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		if _, err = db.CommitUpload(t.Context(), commitOf(i)); err == nil {
			done++
		}
	}
	if upload.KindOf(err) != upload.NoRoom {
		t.Fatalf("after %d: %v", done, err)
	}
	// The limit is the connection's, and there is a new one.
	if _, err := db.CommitUpload(t.Context(), commitOf(10_000)); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, `SELECT COUNT(*) FROM files`); n != done+1 {
		t.Errorf("%d files, want %d", n, done+1)
	}
	metatest.Check(t, db, "owner")
}

func TestClosed(t *testing.T) {
	t.Parallel()
	db, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "gantry.db"), Options{})
	must(t, err)
	_, err = db.CommitUpload(t.Context(), commitOf(1))
	must(t, err)

	// Close waits for what has begun; what waits behind it is refused.
	release := hold(t, db)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if _, err := db.CommitUpload(t.Context(), commitOf(i)); upload.KindOf(err) != upload.Unavailable {
				t.Errorf("while it is being closed: %v", err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	wg.Go(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(50 * time.Millisecond)
	release()
	wg.Wait()
	must(t, db.Close())
	want(t, upload.Unavailable, db.Ping(t.Context()))
	_, err = db.File(t.Context(), "owner", "x")
	want(t, upload.Unavailable, err)
	_, err = db.KnownStaging(t.Context(), []string{"x"})
	want(t, upload.Unavailable, err)
	want(t, upload.Unavailable, db.DeleteFile(t.Context(), "owner", "x", noon))
}

// Another process that writes is waited for, and if that takes too long the call may be repeated.
func TestAnotherProcessWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gantry.db")
	db, other := openAt(t, path, Options{}), openAt(t, path, Options{})
	must(t, act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
		return s.text(ctx, "PRAGMA busy_timeout = 50")
	}))
	release := hold(t, other)
	defer release()
	_, err := db.CommitUpload(t.Context(), commitOf(1))
	want(t, upload.Unavailable, err)
	if _, err := db.Files(t.Context(), meta.FileQuery{Owner: "owner", Limit: 10}); err != nil {
		t.Errorf("reading waits for a writer: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, release)
	if _, err := db.CommitUpload(t.Context(), commitOf(1)); err != nil { // a new connection, with its full patience
		t.Error(err)
	}
}

// A failure that is refused by the operation itself, after it has changed something, is undone too when
// nothing else in the transaction fails.
func TestARefusalUndoesWhatItDid(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	err := act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
		return errors.Join(audit(ctx, s, "x", noon, "test", nil), upload.Errorf(upload.Conflict, "", "", "refused"))
	})
	want(t, upload.Conflict, err)
	if n := count(t, db, `SELECT COUNT(*) FROM audit`); n != 0 {
		t.Errorf("%d rows of a refused operation", n)
	}
}

// An answer that takes the place of an expired one while that is about to be forgotten stays.
func TestForgetSparesAFreshAnswer(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	old := meta.Answer{UploadID: upload.NewUploadID("node"), Owner: "owner", State: upload.Expired, CreatedAt: noon, ExpiresAt: noon}
	_, err := db.EndUpload(t.Context(), old)
	must(t, err)
	fresh := old
	fresh.State, fresh.ExpiresAt = upload.Cancelled, time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	release := hold(t, db)
	defer release()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := db.EndUpload(t.Context(), fresh); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(20 * time.Millisecond) // it waits for the writer
	wg.Go(func() {
		if n, err := db.ForgetAnswers(t.Context(), noon.Add(time.Hour)); err != nil || n != 0 {
			t.Errorf("forgot %d, %v", n, err)
		}
	})
	time.Sleep(20 * time.Millisecond) // it has read, and waits too
	release()
	wg.Wait()
	got, err := db.Answer(t.Context(), old.UploadID)
	must(t, err)
	if got.State != upload.Cancelled {
		t.Errorf("%+v", got)
	}
}
