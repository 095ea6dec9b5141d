//go:build ceph

package rados

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// victim is what a child process is to do.
type victim struct {
	Options    Options
	Checkpoint string // a file
	Dies       int64  // when it reads the content from there on; -1: it does not, and tells how much memory it has needed
}

const victimVariable = "GANTRY_TEST_VICTIM"

// bigData is what the child puts: 16 data objects.
func bigData() []byte { return storetest.Bytes(20, 15*4*mebi+777) }

func TestMain(m *testing.M) {
	if text := os.Getenv(victimVariable); text != "" {
		if err := child(text); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	s, err := New(v.Options)
	if err != nil {
		return err
	}
	if v.Dies < 0 {
		before := mostMemory()
		err := s.Put(context.Background(), "key", zeros(512*mebi), store.PutOptions{})
		fmt.Println(mostMemory() - before)
		return err
	}
	content := stopping{bytes.NewReader(bigData()), v.Dies, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }}
	return s.Put(context.Background(), "key", content, store.PutOptions{Checkpoint: file(v.Checkpoint)})
}

// mostMemory is the most that this process has had so far, bytes.
func mostMemory() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Maxrss * 1024
}

// zeros is content of so many bytes.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// run runs a child process.
func (v victim) run(t *testing.T) (out []byte, err error) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), victimVariable+"="+string(text))
	return cmd.CombinedOutput()
}

// A Put needs no more memory than the data objects under way, and 32 MiB.
func TestMemory(t *testing.T) {
	opt := options(t)
	opt.ObjectSize = 16 * mebi
	s := open(t, opt)
	connected(t, s)
	out, err := victim{Options: opt, Dies: -1}.run(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	grown, err := strconv.ParseInt(string(bytes.TrimSpace(out)), 10, 64)
	if most := int64(s.opt.Parallel)*opt.ObjectSize + 32*mebi; err != nil || grown > most {
		t.Errorf("%d MiB were needed, %d MiB are allowed, %v", grown/mebi, most/mebi, err)
	}
}

// file is a checkpoint in a file of that name.
type file string

func (f file) Load() []byte {
	state, _ := os.ReadFile(string(f))
	return state
}

func (f file) Save(_ context.Context, state []byte) error {
	return os.WriteFile(string(f), state, 0o600)
}

// A process that puts an object is killed again and again: there is no object, and what was sent is not sent again.
func TestKilled(t *testing.T) {
	opt, state := options(t), filepath.Join(t.TempDir(), "checkpoint")
	s := open(t, opt)
	c := connected(t, s)
	unchanged := func(before, after map[string]uint64) {
		t.Helper()
		for name, version := range before {
			if after[name] != version {
				t.Errorf("%s was sent again", name)
			}
		}
	}
	there := map[string]uint64{}
	for _, dies := range []int64{0, 6, 7, 15} {
		out, err := victim{opt, state, dies * opt.ObjectSize}.run(t)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child was not killed: %v\n%s", err, out)
		}
		if _, err := s.Size(t.Context(), "key"); !errors.Is(err, upload.NotFound) {
			t.Errorf("half an object is visible: %v", err)
		}
		if err := s.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := inside(t, c.data)
		unchanged(there, now)
		there = now
	}
	if len(there) < 15-s.opt.Parallel {
		t.Errorf("only %d data objects are there", len(there))
	}
	if err := s.Put(t.Context(), "key", bytes.NewReader(bigData()), store.PutOptions{Checkpoint: file(state)}); err != nil {
		t.Fatal(err)
	}
	now := inside(t, c.data)
	unchanged(there, now)
	if len(now) != 16 {
		t.Errorf("%d data objects", len(now))
	}
	putDataVerified(t, s, "key", bigData())
}

func putDataVerified(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	verify(t, s, key, data)
	if err := store.ReadBack(t.Context(), s, key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
}

// command is one for the monitors.
func command(t *testing.T, s *Store, words map[string]any) {
	t.Helper()
	text, err := json.Marshal(words)
	if err != nil {
		t.Fatal(err)
	}
	if _, status, err := connected(t, s).conn.MonCommand(text); err != nil {
		t.Fatal(status, err)
	}
}

// ratios says how full the cluster may be, and waits until it knows whether it is.
func ratios(t *testing.T, s *Store, full float64) {
	t.Helper()
	for _, name := range []string{"nearfull", "backfillfull", "full"} {
		command(t, s, map[string]any{"prefix": "osd set-" + name + "-ratio", "ratio": full})
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		advice, err := s.Advise(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(advice, func(a store.Advice) bool { return a.Setting == "room in the pool" })
		if strings.Contains(advice[i].Problem, "pool is full") == (full < 0.5) { // it is nearly full first
			break
		}
	}
	if err := connected(t, s).conn.WaitForLatestOSDMap(); err != nil {
		t.Fatal(err)
	}
}

// What may befall a cluster.
func TestClusterInTrouble(t *testing.T) {
	t.Parallel()
	servers := testenv.Private(t, "ceph")
	opt := Options{Conf: servers.Address(testenv.RADOS), Pool: "gantry", ObjectSize: 4 * mebi}
	data := storetest.Bytes(21, 13*mebi)
	get := func(s *Store) error {
		_, err := storetest.Read(t.Context(), s, "before", 0, -1)
		return err
	}
	patient := join(t, opt)
	putData(t, patient, "before", data)

	t.Run("OSD killed in the middle of a Put", func(t *testing.T) {
		s := join(t, opt)
		content := stopping{bytes.NewReader(data), 9 * mebi, sync.OnceFunc(func() {
			servers.Do("kill", "ceph-2")
			servers.Do("start", "ceph-2")
		})}
		if err := s.Put(t.Context(), "killed", content, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		putDataVerified(t, s, "killed", data)
		putDataVerified(t, s, "before", data)
	})

	t.Run("OSD answers nothing", func(t *testing.T) {
		o := opt
		o.Timeout = time.Second
		s := join(t, o)
		connected(t, s)
		servers.Do("stop", "ceph-2")
		var calls sync.WaitGroup
		for what, call := range map[string]func() error{
			"put":    func() error { return s.Put(t.Context(), "b", bytes.NewReader(data), store.PutOptions{}) },
			"get":    func() error { return get(s) },
			"verify": func() error { return s.Verify(t.Context(), "before", storetest.DigestsOf(data)) },
			"delete": func() error { return s.Delete(t.Context(), "b") },
			"check":  func() error { return s.Check(t.Context()) },
		} {
			calls.Go(func() {
				if err := call(); upload.KindOf(err) != upload.Unavailable {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		calls.Wait()
		// Nobody waits for it whose context has ended.
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		o.Timeout = time.Hour
		forever := join(t, o)
		connected(t, forever)
		if err := forever.Put(ctx, "c", bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("put that was canceled: %v", err)
		}
		// However many wait, they do not have a thread each.
		ctx, cancel = context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		for range 2 * maxThreads {
			waiting.Go(func() { _, _ = forever.Size(ctx, "before") })
		}
		for len(forever.threads) < maxThreads {
			runtime.Gosched()
		}
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil || len(threads) > maxThreads+200 {
			t.Errorf("%d threads, %v", len(threads), err)
		}
		cancel()
		waiting.Wait()
		servers.Do("cont", "ceph-2")
		putData(t, patient, "b", data)
		putDataVerified(t, patient, "b", data)
	})

	t.Run("full", func(t *testing.T) {
		ratios(t, patient, 0.0001)
		if err := patient.Put(t.Context(), "full", bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.NoRoom) {
			t.Errorf("put: %v", err)
		}
		if err := errors.Join(get(patient), patient.Delete(t.Context(), "b")); err != nil {
			t.Error(err)
		}
		ratios(t, patient, 0.95)
		putData(t, patient, "full", data)
	})

	t.Run("objects too large for the OSDs", func(t *testing.T) {
		command(t, patient, map[string]any{"prefix": "config set", "who": "osd", "name": "osd_max_object_size", "value": fmt.Sprint(32 * mebi)})
		o := opt
		o.ObjectSize = 64 * mebi
		for s, want := range map[*Store]bool{patient: false, join(t, o): true} {
			advice, err := s.Advise(t.Context())
			if err != nil || (advice[len(advice)-1].Problem != "") != want {
				t.Error(advice, err)
			}
		}
	})

	t.Run("pool deleted", func(t *testing.T) {
		err := patient.Put(t.Context(), "a", stopping{bytes.NewReader(data), 9 * mebi, sync.OnceFunc(func() {
			command(t, patient, map[string]any{"prefix": "osd pool delete", "pool": "gantry", "pool2": "gantry", "yes_i_really_really_mean_it": true})
			if err := connected(t, patient).conn.WaitForLatestOSDMap(); err != nil {
				t.Error(err)
			}
		})}, store.PutOptions{})
		if upload.KindOf(err) != upload.Invalid {
			t.Errorf("put in the middle of which the pool is deleted: %v", err)
		}
		for what, err := range map[string]error{
			"put":   patient.Put(t.Context(), "b", bytes.NewReader(data), store.PutOptions{}),
			"get":   get(patient),
			"check": patient.Check(t.Context()),
			"list": func() error {
				for _, err := range patient.List(t.Context()) {
					return err
				}
				return nil
			}(),
		} {
			if upload.KindOf(err) != upload.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
