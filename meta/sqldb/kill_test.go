package sqldb

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"gantry/meta/metatest"
	"gantry/upload"
)

// killed, if set, makes the test binary the process that is killed: it is the database's path.
const killed = "GANTRY_TEST_SQLDB_KILLED"

func TestMain(m *testing.M) {
	if path := os.Getenv(killed); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(allOf{m})
}

// allOf is all tests and benchmarks, and what they share put away.
type allOf struct{ *testing.M }

func (m allOf) Run() int {
	defer closeAdmins()
	code := m.M.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// writeUntilKilled writes from many goroutines at once and tells what was acknowledged.
func writeUntilKilled(path string) error {
	ctx := context.Background()
	db, err := OpenSQLite(ctx, path, Options{})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	tell := func(words ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(words...)
	}
	for worker := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				c := commitOf(os.Getpid()<<20 + worker<<12 + i)
				a, err := db.CommitUpload(ctx, c)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				tell("made", c.UploadID, a.File.ID, a.File.BlobID)
				if i%3 == 0 {
					if err := db.DeleteFile(ctx, "owner", a.File.ID, noon); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					tell("deleted", c.UploadID, a.File.ID, a.File.BlobID)
				}
			}
		})
	}
	return nil
}

// What was acknowledged is there after kill -9, and the database is in order.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gantry.db")
	made, deleted := map[string][3]string{}, map[string]bool{}
	for round := range 4 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		child.Env, child.Stderr = append(os.Environ(), killed+"="+path), os.Stderr
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			words := strings.Fields(lines.Text())
			if len(words) == 4 { // the last line may be cut
				made[words[1]] = [3]string(words[1:])
				deleted[words[1]] = words[0] == "deleted"
			}
			if n == 100+50*round { // go on reading: what was told before the signal arrived counts
				must(t, child.Process.Kill())
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.ExitCode() != -1 {
			t.Fatalf("the child ended by itself: %v", err)
		}

		db, err := OpenSQLite(t.Context(), path, Options{})
		must(t, err)
		for id, ids := range made {
			a, err := db.Answer(t.Context(), id)
			if err != nil || a.File.ID != ids[1] {
				t.Fatalf("round %d: an acknowledged upload is gone: %+v, %v", round, a, err)
			}
			f, err := db.File(t.Context(), "owner", ids[1])
			switch {
			case deleted[id]:
				want(t, upload.NotFound, err)
			case err == nil && f.BlobID != ids[2]:
				t.Fatalf("round %d: another blob", round)
			case upload.KindOf(err) == upload.NotFound: // deleted, and killed before it could tell
				if b, err := db.Blob(t.Context(), ids[2]); err != nil || b.State != upload.BlobCondemned {
					t.Fatalf("round %d: a file is gone, its blob %+v, %v", round, b, err)
				}
			default:
				must(t, err)
			}
		}
		metatest.Check(t, db, "owner")
		var integrity string
		must(t, db.reader.db.QueryRow(`PRAGMA integrity_check`).Scan(&integrity))
		if integrity != "ok" {
			t.Fatalf("round %d: %s", round, integrity)
		}
		must(t, db.Close())
	}
	if len(made) < 400 {
		t.Errorf("only %d uploads", len(made))
	}
}
