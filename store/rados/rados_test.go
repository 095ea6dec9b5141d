//go:build ceph

package rados

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ceph "github.com/ceph/go-ceph/rados"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// options are those of a new namespace in the pool of the cluster that all tests share, where the objects are small.
func options(t testing.TB) Options {
	t.Helper()
	return Options{Conf: testenv.Address(t, testenv.RADOS), Pool: "gantry", Namespace: "test-" + upload.NewNodeID(), ObjectSize: 4 * mebi, Timeout: 20 * time.Second}
}

// join returns a store, and closes it when the test ends.
func join(t testing.TB, opt Options) *Store {
	t.Helper()
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// open is join, and deletes what is in the store's namespace when the test ends.
func open(t testing.TB, opt Options) *Store {
	t.Helper()
	s := join(t, opt)
	t.Cleanup(func() {
		if c := s.connected.Load(); c != nil {
			for _, io := range []*ceph.IOContext{c.heads, c.data} {
				for name := range inside(t, io) {
					_ = io.Delete(name)
				}
			}
		}
	})
	return s
}

// connected is the connection of a store.
func connected(t testing.TB, s *Store) *cluster {
	t.Helper()
	c, err := s.cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inside is what is in a namespace: names, and versions, which change when somebody writes.
func inside(t testing.TB, io *ceph.IOContext) map[string]uint64 {
	t.Helper()
	list, err := io.Iter()
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	names := map[string]uint64{}
	for list.Next() {
		names[list.Value()] = 0
	}
	if err := list.Err(); err != nil {
		t.Error(err)
	}
	for name := range names {
		if _, err := io.Stat(name); err != nil {
			t.Error(err)
		}
		if names[name], err = io.GetLastVersion(); err != nil {
			t.Error(err)
		}
	}
	return names
}

// remember is a checkpoint in memory.
type remember struct{ state []byte }

func (r *remember) Load() []byte { return r.state }

func (r *remember) Save(_ context.Context, state []byte) error {
	if len(state) > store.MaxCheckpoint {
		return errors.New("too long")
	}
	r.state = bytes.Clone(state)
	return nil
}

func putData(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func verify(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Errorf("Verify(%s): %v", key, err)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, options(t)) }, storetest.Caps{
		Alter: func(t *testing.T, st store.Store, key string, change func([]byte) []byte) {
			s := st.(*Store)
			c, h, err := s.head(t.Context(), "test", key)
			if err != nil || h.objects() != 1 {
				t.Fatal(h, err)
			}
			data, err := storetest.Read(t.Context(), s, key, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			name := h.name(key, 0)
			if data = change(data); len(data) == 0 {
				err = c.data.Truncate(name, 0)
			} else {
				err = c.data.WriteFull(name, data)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		BadKeys: []string{"", "/a", "a//b", "../a", "a/../b", "a\x00b", strings.Repeat("a", 513)},
		AnyKey:  true, PartSize: 4 * mebi, Memory: 4 * 4 * mebi,
	})
}

// Whatever a key has in it, it is found again under that key alone.
func TestKeys(t *testing.T) {
	s := open(t, options(t))
	for i, key := range []string{strings.Repeat("k", 512), "日本語/ключ", "a", "a.0011223344556677.00000000", "a.b", ".a", "a b\n%2e"} {
		data := storetest.Bytes(uint64(i), 4*mebi+i)
		putData(t, s, key, data)
		verify(t, s, key, data)
	}
	for o, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := storetest.Read(t.Context(), s, o.Key, 4*mebi, -1); err != nil || int64(len(got)) != o.Size-4*mebi {
			t.Errorf("%q: %d bytes, %v", o.Key, len(got), err)
		}
	}
}

// Data objects of any size make the same object, and are found after the setting has changed.
func TestObjectSizes(t *testing.T) {
	opt := options(t)
	data := storetest.Bytes(1, 9*mebi+1)
	for _, size := range []int64{4 * mebi, 5*mebi + 13, 64 * mebi} {
		opt.ObjectSize = size
		key := fmt.Sprint("key", size)
		putData(t, open(t, opt), key, data)
	}
	s := open(t, opt)
	for _, key := range []string{"key4194304", "key5242893", "key67108864"} {
		verify(t, s, key, data)
		if err := store.ReadBack(t.Context(), s, key, storetest.DigestsOf(data)); err != nil {
			t.Error(err)
		}
		if got, err := storetest.Read(t.Context(), s, key, 5*mebi-7, 4*mebi); err != nil || !bytes.Equal(got, data[5*mebi-7:9*mebi-7]) {
			t.Errorf("%s: %d bytes, %v", key, len(got), err)
		}
	}
	for _, size := range []int64{-1, 4*mebi - 1, 64*mebi + 1} {
		opt.ObjectSize = size
		if _, err := New(opt); !errors.Is(err, upload.Invalid) {
			t.Errorf("data objects of %d bytes: %v", size, err)
		}
	}
}

// A Put that failed half way leaves nothing to be seen, and the next one goes on with it: what is there and right is
// not written again.
func TestPutGoesOn(t *testing.T) {
	opt := options(t)
	s := open(t, opt)
	data, key := storetest.Bytes(2, 7*4*mebi+5), "a/b"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	memory := &remember{}
	err := s.Put(ctx, key, stopping{bytes.NewReader(data), 5 * 4 * mebi, cancel}, store.PutOptions{Checkpoint: memory})
	if !errors.Is(err, upload.Canceled) {
		t.Fatal(err)
	}
	if _, err := s.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
		t.Errorf("half an object is visible: %v", err)
	}
	for o, err := range s.List(t.Context()) {
		t.Error("it is listed", o, err)
	}
	if err := s.Close(); err != nil { // what was under way has ended
		t.Fatal(err)
	}
	s = open(t, opt)
	c := connected(t, s)
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := inside(t, c.data)
	if len(before) < 2 {
		t.Fatalf("%d data objects are there: the test does not test anything", len(before))
	}
	var damaged string
	for damaged = range before { // one of them
		if err := c.data.Write(damaged, []byte("other"), 100); err != nil {
			t.Fatal(err)
		}
		break
	}
	var last int64
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: memory, Progress: func(sent int64) { last = sent }}); err != nil {
		t.Fatal(err)
	}
	after := inside(t, c.data)
	for name, version := range before {
		if written := after[name] != version; written != (name == damaged) {
			t.Errorf("%s: version %d, now %d; damaged: %v", name, version, after[name], name == damaged)
		}
	}
	if len(after) != 8 || last != int64(len(data)) {
		t.Errorf("%d data objects, progress ends at %d of %d", len(after), last, len(data))
	}
	verify(t, s, key, data)
	// What has become an object is not gone on with: it would be written to while somebody reads it.
	if err := c.data.Write(damaged, []byte("other"), 100); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: memory}); err != nil {
		t.Fatal(err)
	}
	if _, there := inside(t, c.data)[damaged]; there {
		t.Error("a data object of an object was written to")
	}
	verify(t, s, key, data)
}

// What Clean may get at soon, or was begun for other settings or other content, is not gone on with.
func TestPutBeginsAnew(t *testing.T) {
	s := open(t, options(t))
	data := storetest.Bytes(12, 5*mebi)
	good := checkpoint{Generation: "0123456789abcdef", Object: 4 * mebi, Size: 5 * mebi, Began: time.Now().Unix()}
	for what, change := range map[string]func(c *checkpoint){
		"as it is":        func(*checkpoint) {},
		"too old":         func(c *checkpoint) { c.Began -= int64(resumable/time.Second) + 10 },
		"other objects":   func(c *checkpoint) { c.Object = 8 * mebi },
		"another content": func(c *checkpoint) { c.Size-- },
		"no generation":   func(c *checkpoint) { c.Generation = "" },
	} {
		c := good
		change(&c)
		state, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		memory := &remember{state}
		if err := s.Put(t.Context(), what, bytes.NewReader(data), store.PutOptions{Checkpoint: memory}); err != nil {
			t.Fatal(err)
		}
		_, h, err := s.head(t.Context(), "test", what)
		if resumed := h.Generation == good.Generation; err != nil || resumed != (what == "as it is") || resumed != bytes.Equal(memory.state, state) {
			t.Errorf("%s: gone on with: %v, %v", what, resumed, err)
		}
		verify(t, s, what, data)
	}
}

// stopping is content that calls stop when it is read from some offset on.
type stopping struct {
	*bytes.Reader
	at   int64
	stop func()
}

func (s stopping) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.at {
		s.stop()
	}
	return s.Reader.ReadAt(p, off)
}

// What is there with the right bytes is not sent again, and nothing about it changes.
func TestPutAgainLeavesItAlone(t *testing.T) {
	s := open(t, options(t))
	c, data := connected(t, s), storetest.Bytes(3, 9*mebi)
	putData(t, s, "a", data)
	heads, before := inside(t, c.heads), inside(t, c.data)
	putData(t, s, "a", data)
	if after := inside(t, c.data); fmt.Sprint(after) != fmt.Sprint(before) || fmt.Sprint(inside(t, c.heads)) != fmt.Sprint(heads) {
		t.Errorf("was %v, is %v", before, after)
	}
}

// What is done with a store that is closed fails, and the memory that librados had is not touched.
func TestClosed(t *testing.T) {
	opt := options(t)
	data := storetest.Bytes(13, 13*mebi)
	putData(t, open(t, opt), "a", data)
	s := join(t, opt)
	r, err := s.Open(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var closing sync.WaitGroup
	for _, err := range s.List(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		closing.Go(func() { // it waits for the listing
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closing.Wait()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, upload.Unavailable) {
		t.Errorf("read: %v", err)
	}
	for what, err := range map[string]error{
		"put":    s.Put(t.Context(), "b", bytes.NewReader(data), store.PutOptions{}),
		"verify": s.Verify(t.Context(), "a", storetest.DigestsOf(data)),
		"delete": s.Delete(t.Context(), "a"),
		"clean":  s.Clean(t.Context()),
		"check":  s.Check(t.Context()),
		"list": func() error {
			for _, err := range s.List(t.Context()) {
				return err
			}
			return nil
		}(),
	} {
		if upload.KindOf(err) != upload.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What is replaced by other bytes is never read mixed, and its data goes.
func TestReplacedWhileItIsRead(t *testing.T) {
	s := open(t, options(t))
	old, data := storetest.Bytes(4, 13*mebi), storetest.Bytes(5, 13*mebi)
	putData(t, s, "a", old)
	r, err := s.Open(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, mebi)
	if _, err := r.Read(got); err != nil {
		t.Fatal(err)
	}
	putData(t, s, "a", data)
	rest := new(bytes.Buffer)
	_, err = rest.ReadFrom(r)
	if !errors.Is(err, upload.Unavailable) || !bytes.HasPrefix(old[mebi:], rest.Bytes()) {
		t.Errorf("read %d bytes more, %v", rest.Len(), err)
	}
	verify(t, s, "a", data)
	if names := inside(t, connected(t, s).data); len(names) != 4 {
		t.Errorf("data objects: %v", names)
	}
}

// An object whose data was damaged is mended by a Put of the same bytes, and who was reading it goes on.
func TestMendedWhileItIsRead(t *testing.T) {
	s := open(t, options(t))
	c, data := connected(t, s), storetest.Bytes(6, 13*mebi)
	putData(t, s, "a", data)
	_, h, err := s.head(t.Context(), "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.data.Write(h.name("a", 3), []byte("damage"), 5); err != nil {
		t.Fatal(err)
	}
	putData(t, s, "a", data)
	got := new(bytes.Buffer)
	if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}

// Damage to any data object is found, and reading what is not there fails.
func TestDamage(t *testing.T) {
	s := open(t, options(t))
	c, data := connected(t, s), storetest.Bytes(7, 13*mebi)
	for what, damage := range map[string]func(name string) error{
		"a bit":       func(name string) error { return c.data.Write(name, []byte{data[8*mebi+17] ^ 4}, 17) },
		"cut off":     func(name string) error { return c.data.Truncate(name, 4*mebi-1) },
		"longer":      func(name string) error { return c.data.Append(name, []byte{0}) },
		"away":        func(name string) error { return c.data.Delete(name) },
		"the others'": func(name string) error { return c.data.WriteFull(name, data[:4*mebi]) },
	} {
		key := "key " + what
		putData(t, s, key, data)
		_, h, err := s.head(t.Context(), "test", key)
		if err == nil {
			err = damage(h.name(key, 2))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); !errors.Is(err, upload.DigestMismatch) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := storetest.Read(t.Context(), s, key, 0, -1); (what == "away" || what == "cut off") && !errors.Is(err, upload.Unavailable) {
			t.Errorf("%s: read: %v", what, err)
		}
		putData(t, s, key, data)
		verify(t, s, key, data)
	}
	putData(t, s, "head", data)
	if err := c.heads.SetXattr("head", attribute, []byte(`{"size":-1}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), "head", storetest.DigestsOf(data)); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("a damaged head: %v", err)
	}
	putData(t, s, "head", data)
	verify(t, s, "head", data)
}

// Clean deletes what no head names and is old, and nothing else.
func TestClean(t *testing.T) {
	s := open(t, options(t))
	c, data := connected(t, s), storetest.Bytes(8, 5*mebi)
	putData(t, s, "alive", data)
	_, h, err := s.head(t.Context(), "test", "alive")
	if err != nil {
		t.Fatal(err)
	}
	h.Generation = "0123456789abcdef"
	old, foreign := time.Now().Add(-abandoned-time.Hour), "not ours"
	ages := map[string]time.Time{h.name("gone", 0): old, h.name("gone", 1): time.Now(), h.name("alive", 0): old, h.name("alive", 1): time.Now(), foreign: old}
	for name, age := range ages {
		op := ceph.CreateWriteOp()
		op.WriteFull([]byte("x"))
		err := op.OperateWithMtime(c.data, name, ceph.Timespec{Sec: age.Unix()}, ceph.OperationNoFlag)
		op.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := inside(t, c.data)
	for name, age := range ages {
		if _, there := left[name]; there != (name == foreign || age != old) {
			t.Errorf("%s is there: %v", name, there)
		}
	}
	// An object that came to be after the heads were listed.
	_, h, err = s.head(t.Context(), "test", "alive")
	if err == nil {
		err = s.sweep(t.Context(), c, h.name("alive", 0), -time.Hour)
	}
	if err != nil {
		t.Fatal(err)
	}
	verify(t, s, "alive", data)
}

// A pool with an erasure code has no omap: nothing here may need it. And an object that is deleted leaves nothing.
func TestNothingIsLeft(t *testing.T) {
	s := open(t, options(t))
	c := connected(t, s)
	putData(t, s, "a", storetest.Bytes(9, 9*mebi))
	op := ceph.CreateReadOp()
	defer op.Release()
	omap := op.GetOmapValues("", "", 10)
	if err := op.Operate(c.heads, "a", ceph.OperationNoFlag); err != nil {
		t.Fatal(err)
	}
	if kv, err := omap.Next(); kv != nil || err != nil {
		t.Errorf("the head has an omap: %v, %v", kv, err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if heads, data := inside(t, c.heads), inside(t, c.data); len(heads)+len(data) != 0 {
		t.Errorf("%v %v are left", heads, data)
	}
}

// user makes a user with capabilities, and returns the path of its keyring.
func user(t *testing.T, s *Store, name, osd string) string {
	t.Helper()
	command, err := json.Marshal(map[string]any{"prefix": "auth get-or-create", "entity": "client." + name, "caps": []string{"mon", "allow r", "osd", osd}})
	if err != nil {
		t.Fatal(err)
	}
	keyring, _, err := connected(t, s).conn.MonCommand(command)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(path, keyring, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The capabilities that the operator's page names are enough, and with less Check says what is missing.
func TestCapabilities(t *testing.T) {
	opt := options(t)
	admin := open(t, opt)
	putData(t, admin, "a", []byte("a"))
	enough := fmt.Sprintf("allow rw pool=gantry namespace=%s.*", opt.Namespace)
	for caps, want := range map[string]string{
		enough:                                           "",
		strings.Replace(enough, "rw", "r", 1):            "may not write and delete",
		strings.Replace(enough, "rw", "w", 1):            "may not",
		strings.Replace(enough, ".*", ".heads", 1):       ".data of pool gantry",
		strings.Replace(enough, "gantry", "other", 1):    "may not",
		strings.Replace(enough, opt.Namespace, "not", 1): "may not",
	} {
		o := opt
		o.User = "test-" + upload.NewNodeID()
		o.Keyring = user(t, admin, o.User, caps)
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Check(t.Context())
		if want == "" && err != nil || want != "" && (!errors.Is(err, upload.Invalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", caps, err, want)
		}
		if want == "" {
			data := storetest.Bytes(10, 5*mebi)
			putData(t, s, "b", data)
			verify(t, s, "b", data)
			for _, err := range s.List(t.Context()) {
				if err != nil {
					t.Error(err)
				}
			}
			err := errors.Join(s.Clean(t.Context()), s.Delete(t.Context(), "b"))
			if advice, adviceErr := s.Advise(t.Context()); err != nil || adviceErr != nil || len(advice) != 4 {
				t.Error(err, adviceErr, advice)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The tests' pool keeps one copy, which is advised against, and is in order otherwise.
func TestAdvise(t *testing.T) {
	advice, err := open(t, options(t)).Advise(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	problems := map[string]bool{}
	for _, a := range advice {
		problems[a.Setting] = a.Problem != ""
		if (a.Problem == "") != (a.Mend == "") {
			t.Errorf("%+v", a)
		}
	}
	if want := map[string]bool{"pool size": true, "pool min_size": true, "room in the pool": false, "osd_max_object_size": false}; fmt.Sprint(problems) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", problems, want)
	}
}

// Settings that will never work are told from a cluster that is away.
func TestWrongSettings(t *testing.T) {
	opt := options(t)
	keyring := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(keyring, []byte("[client.admin]\n\tkey = AQBSdFhhAAAAABAA7Qh5yGJfVsQeuVYQUnkUuQ==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "ceph.conf")
	if err := os.WriteFile(away, []byte("[global]\nmon host = [v1:127.0.0.1:1]\nkeyring = "+keyring+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		change func(o *Options)
		want   upload.Kind
	}{
		"conf":       {func(o *Options) { o.Conf = "/nowhere" }, upload.Invalid},
		"key":        {func(o *Options) { o.Keyring = keyring }, upload.Invalid},
		"no keyring": {func(o *Options) { o.Keyring = "/nowhere" }, upload.Invalid},
		"user":       {func(o *Options) { o.User = "nobody" }, upload.Invalid},
		"pool":       {func(o *Options) { o.Pool = "nowhere" }, upload.Invalid},
		"monitor":    {func(o *Options) { o.Conf, o.Timeout = away, time.Second }, upload.Unavailable},
	} {
		o := opt
		test.change(&o)
		s := open(t, o)
		for op, err := range map[string]error{
			"put":   s.Put(t.Context(), "a", strings.NewReader("x"), store.PutOptions{}),
			"check": s.Check(t.Context()),
			"size":  func() error { _, err := s.Size(t.Context(), "a"); return err }(),
		} {
			if upload.KindOf(err) != test.want {
				t.Errorf("%s with a wrong %s: %v, want %v", op, what, err, test.want)
			}
		}
	}
}
