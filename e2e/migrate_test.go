package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMigrate moves everything from one store to another while files are uploaded, read and deleted, and kills
// the command -9 again and again, and sometimes the server. Every file can be read at every moment; in the end all is
// in the new store, byte for byte, and nothing lies around in either.
func TestMigrate(t *testing.T) {
	seeded(t)
	directory := func(t *testing.T) storeSettings { return storeSettings{"type": "local", "dir": t.TempDir()} }
	for name, c := range map[string]struct {
		nth      uint64
		from, to func(t *testing.T) storeSettings
	}{
		"local to oss": {1, directory, kindsOfStores["oss"]},
		"oss to local": {2, kindsOfStores["oss"], directory},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is the janitor's
			migrateUnderLoad(t, c.nth, binary, map[string]storeSettings{"old": c.from(t), "new": c.to(t)})
		})
	}
}

// TestStoresMigrate is TestMigrate from Ceph's RADOS to its S3 gateway.
func TestStoresMigrate(t *testing.T) {
	seeded(t)
	t.Parallel()
	program, err := withCeph()
	if err != nil {
		t.Fatal(err)
	}
	migrateUnderLoad(t, 3, program, map[string]storeSettings{"old": kindsOfStores["rados"](t), "new": kindsOfStores["s3"](t)})
}

// mover is a server whose files are being moved.
type mover struct {
	*storeServer
	t      *testing.T
	rnd    *rand.Rand
	stores map[string]storeSettings
	nth    uint64 // set-ups may share a Redis, where a key stands for one upload: so no two have the same
}

func migrateUnderLoad(t *testing.T, nth uint64, program string, stores map[string]storeSettings) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gantry.yaml")
	m := &mover{
		storeServer: &storeServer{newServer(t, "--config", path, "--transfer-lease", leaseTTL.String(), "--staging-grace", "1s", "--delete-grace", "1s"), path, nil},
		t:           t, rnd: rand.New(rand.NewPCG(*seed, 3*nth)), stores: stores, nth: nth,
	}
	m.program = program
	m.configure("old")
	m.start()

	files := map[string]string{}
	for i := range 20 {
		size := int64(1 + m.rnd.IntN(3<<20))
		if i == 0 {
			size = 48 << 20 // in parts
		}
		path := sourceFile(t, m.rnd, size)
		out, err := m.gantry("put", "--quiet", path)
		if err != nil {
			t.Fatalf("gantry put: %v\n%s", err, out)
		}
		files[strings.Fields(out)[0]] = path
	}
	awaitFor(t, 2*time.Minute, "all is in the old store alone", func() bool {
		left, err := filepath.Glob(filepath.Join(m.data, "staging", "*.data"))
		return err == nil && len(left) == 0
	})

	reading := newReaders(t, m.storeServer, m.rnd, files)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	u := &uploader{t: t, s: m.server, rnd: rand.New(rand.NewPCG(*seed, 3*nth+1)), pace: 100 * time.Millisecond}
	var load sync.WaitGroup
	load.Go(func() { u.run(ctx) })
	load.Go(func() { m.comeAndGo(ctx) })

	for round := range 14 {
		m.killedMigrate(time.Duration(30+m.rnd.IntN(600)) * time.Millisecond)
		if round%5 == 4 {
			reading.killed()
		}
		if t.Failed() {
			break
		}
	}
	// New files go into the new store, and the rest is moved.
	m.configure("new")
	reading.killed()
	out, err := m.gantry("migrate", "--from", "old", "--to", "new", "--follow", "--quiet")
	if err != nil {
		t.Errorf("gantry migrate: %v\n%s", err, out)
	}
	cancel()
	load.Wait()
	reading.stop()
	if t.Failed() {
		return
	}
	t.Logf("%s; %d ranges read, %d files uploaded meanwhile", strings.ReplaceAll(out, "\n", "; "), reading.right, len(u.files))
	m.settled(files, u)
}

// settled checks how things are when all was moved.
func (m *mover) settled(files map[string]string, u *uploader) {
	m.t.Helper()
	awaitFor(m.t, 3*time.Minute, "the janitor deletes the old objects", func() bool {
		out, err := m.gantry("migrate", "--from", "old", "--to", "new", "--quiet")
		return err == nil && strings.Contains(out, "nothing is left in old")
	})
	for _, f := range u.files {
		u.compare(m.t.Context(), f)
	}
	for id, path := range files {
		back := filepath.Join(m.t.TempDir(), "back")
		if out, err := m.gantry("get", "--quiet", id, back); err != nil {
			m.t.Fatalf("gantry get: %v\n%s", err, out)
		}
		if out, err := exec.Command("cmp", path, back).CombinedOutput(); err != nil {
			m.t.Errorf("another content came back: %v %s", err, out)
		}
		_ = os.Remove(back)
	}
	if out, err := m.gantry("migrate", "--from", "old", "--to", "new", "--check", "--deep"); err != nil {
		m.t.Errorf("gantry migrate --check: %v\n%s", err, out)
	}
	if dir := m.stores["old"]["dir"]; dir != "" {
		left, err := filepath.Glob(filepath.Join(dir, "??", "*-*-*"))
		if more, moreErr := filepath.Glob(filepath.Join(dir, ".tmp-*")); err != nil || moreErr != nil || len(left)+len(more) > 0 {
			m.t.Errorf("in the old store is %v %v, %v %v", left, more, err, moreErr)
		}
	}
	m.stop()
	if out, err := m.gantry("doctor", "--deep"); err != nil {
		m.t.Errorf("gantry doctor: %v\n%s", err, out)
	}
}

// configure says where new files go; at the server's next start.
func (m *mover) configure(to string) {
	m.t.Helper()
	text := "store: " + to + "\nstores:\n"
	for name, s := range m.stores {
		text += "  " + name + ": " + s.String() + "\n"
	}
	if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// killedMigrate runs the command and kills it -9 after a while, unless it has ended.
func (m *mover) killedMigrate(after time.Duration) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), after)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.program, "migrate", "--from", "old", "--to", "new", "--rate", "24MiB", "--quiet")
	cmd.Env = append(append(os.Environ(), m.env...), "GANTRY_CONFIG="+m.config, "GANTRY_DATA="+m.data)
	if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
		m.t.Errorf("gantry migrate: %v\n%s", err, out)
	}
}

// comeAndGo uploads files and deletes them.
func (m *mover) comeAndGo(ctx context.Context) {
	u := &uploader{t: m.t, s: m.server, rnd: rand.New(rand.NewPCG(*seed, 3*m.nth+2)), id: 1}
	for i := uint64(0); ctx.Err() == nil && !m.t.Failed(); i++ {
		f := finished{seed: *seed + m.nth<<32 + i, size: 100_000}
		u.whole(&f)
		u.compare(ctx, f)
		time.Sleep(time.Duration(u.rnd.IntN(3000)) * time.Millisecond)
		u.until("DELETE", "/v1/files/"+f.id, nil, nil, 204, 404) // it may have been deleted, and the answer lost
	}
}
