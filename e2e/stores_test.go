package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"gantry/internal/testenv"
	"gantry/store/cos/costest"
	"gantry/store/oss/osstest"
	"gantry/upload"
)

var large = flag.Int64("large", 512<<20, "bytes of the large file of TestStores")

// withCeph builds the program with Ceph, once for a run.
var withCeph = sync.OnceValues(func() (string, error) {
	path := binary + "-ceph"
	out, err := exec.Command("go", "build", "-tags", "ceph,pacific", "-o", path, "gantry/cmd/gantry").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("cannot build the program with Ceph: %w\n%s", err, out)
	}
	return path, err
})

// storeSettings is an entry of `stores` in the configuration file.
type storeSettings map[string]string

func (s storeSettings) String() string {
	text, err := json.Marshal(s) // is YAML
	if err != nil {
		panic(err)
	}
	return string(text)
}

func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kindsOfStores are the settings of a new, empty store of each kind.
var kindsOfStores = map[string]func(t *testing.T) storeSettings{
	"rados": func(t *testing.T) storeSettings {
		return storeSettings{
			"type": "rados", "conf": testenv.Address(t, testenv.RADOS), "pool": "gantry", "namespace": "e2e-" + upload.NewNodeID(), "object_size": "8MiB",
		}
	},
	"s3": func(t *testing.T) storeSettings { return newBucket(t, testenv.Address(t, testenv.Ceph)) },
	"oss": func(t *testing.T) storeSettings {
		handler := osstest.New(osstest.Options{AccessKey: "LTAIe2e", SecretKey: "secret", Region: "cn-hangzhou", Dir: t.TempDir()})
		handler.MakeBucket("files")
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		return storeSettings{
			"type": "oss", "endpoint": server.URL, "region": "cn-hangzhou", "bucket": "files", "prefix": "e2e/", "access_key": "LTAIe2e",
			"secret_key_file": secretFile(t, "secret"), "path_style": "true",
		}
	},
	"cos": func(t *testing.T) storeSettings {
		opt := costest.Options{Bucket: "files-1250000000", AccessKey: "AKIDe2e", SecretKey: "secret", Dir: t.TempDir()}
		server := httptest.NewServer(costest.New(opt))
		t.Cleanup(server.Close)
		return storeSettings{
			"type": "cos", "endpoint": server.URL, "bucket": opt.Bucket, "prefix": "e2e/", "access_key": opt.AccessKey,
			"secret_key_file": secretFile(t, "secret"),
		}
	},
}

// newBucket makes a bucket on an S3 server, whose address has the keys.
func newBucket(t *testing.T, address string) storeSettings {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(u.User.Username(), secret, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	name := "e2e-" + upload.NewNodeID()
	if err := client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for o := range client.ListObjectsIter(ctx, name, minio.ListObjectsOptions{Recursive: true}) {
			_ = client.RemoveObject(ctx, name, o.Key, minio.RemoveObjectOptions{})
		}
		for u := range client.ListIncompleteUploads(ctx, name, "", true) {
			_ = client.RemoveIncompleteUpload(ctx, name, u.Key)
		}
		if err := client.RemoveBucket(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return storeSettings{
		"type": "s3", "endpoint": "http://" + u.Host, "bucket": name, "prefix": "e2e/", "access_key": u.User.Username(),
		"secret_key_file": secretFile(t, secret), "path_style": "true",
	}
}

// storeServer is a server with stores of the configuration file.
type storeServer struct {
	*server
	config string
	admin  func() string
}

// newStoreServer returns a server whose files go to the first store named.
func newStoreServer(t *testing.T, to string, all map[string]storeSettings) *storeServer {
	t.Helper()
	text := "store: " + to + "\nstores:\n"
	for name, s := range all {
		text += "  " + name + ": " + s.String() + "\n"
	}
	path := filepath.Join(t.TempDir(), "gantry.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := withCeph()
	if err != nil {
		t.Fatal(err)
	}
	s := &storeServer{newBareServer(t, "--config", path, "--transfer-lease", leaseTTL.String(), "--staging-grace", "1s"), path, nil}
	s.program, s.admin = program, s.manages()
	return s
}

// gantry runs a command on the server's files, with its settings.
func (s *storeServer) gantry(args ...string) (string, error) {
	cmd := exec.Command(s.program, args...)
	cmd.Env = append(append(os.Environ(), s.env...), "GANTRY_CONFIG="+s.config, "GANTRY_DATA="+s.data, "GANTRY_SERVER=http://"+s.addr)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// sourceFile makes a file of bytes that are nowhere else.
func sourceFile(t *testing.T, rnd *rand.Rand, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), fmt.Sprintf("f%d", size))
	var key [32]byte
	for i := range key {
		key[i] = byte(rnd.Uint32())
	}
	f, err := os.Create(path)
	if err == nil {
		_, err = io.CopyN(f, rand.NewChaCha8(key), size)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// fileView is what tests look at of a file.
type fileView struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	Location string `json:"location"`
	Transfer struct {
		State     string `json:"state"`
		LastError string `json:"last_error"`
	} `json:"transfer"`
}

// look returns a file as the server tells of it; false while the server is down.
func (s *storeServer) look(id string) (f fileView, up bool) {
	a, err := s.do(context.Background(), "GET", "/v1/files/"+id, nil, nil)
	if err != nil {
		return f, false
	}
	a.decode(s.t, &f)
	return f, true
}

// readers read ranges of files, by the server and by itself, until they are told to stop; each that is answered must be
// right, and each must be answered while the server is up.
type readers struct {
	t      *testing.T
	s      *storeServer
	mu     sync.RWMutex // held while the server is being killed
	cancel func()
	all    sync.WaitGroup
	right  int
}

func newReaders(t *testing.T, s *storeServer, rnd *rand.Rand, files map[string]string) *readers {
	ctx, cancel := context.WithCancel(t.Context())
	r := &readers{t: t, s: s, cancel: cancel}
	seed := rnd.Uint64()
	r.all.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for ctx.Err() == nil && !t.Failed() {
			for id, path := range files {
				r.mu.RLock()
				r.read(ctx, rnd, id, path)
				r.mu.RUnlock()
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	return r
}

func (r *readers) read(ctx context.Context, rnd *rand.Rand, id, path string) {
	source, err := os.Open(path)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		r.t.Error(err)
		return
	}
	want := make([]byte, min(int64(1+rnd.IntN(1<<20)), info.Size()))
	offset := rnd.Int64N(info.Size() - int64(len(want)) + 1)
	if _, err := source.ReadAt(want, offset); err != nil {
		r.t.Error(err)
		return
	}
	target := "/v1/files/" + id + "/content" + []string{"", "?redirect=false"}[rnd.IntN(2)]
	got, err := r.s.do(ctx, "GET", target, map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", offset, offset+int64(len(want))-1)}, nil)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.t.Errorf("a file cannot be read: %v", err)
	case got.status != http.StatusPartialContent || !bytes.Equal(got.body, want):
		r.t.Errorf("GET %s, %d bytes from %d on: %d, %d bytes (%.200s)", target, len(want), offset, got.status, len(got.body), got.body)
	default:
		r.right++
	}
}

// stop ends the reading.
func (r *readers) stop() {
	r.cancel()
	r.all.Wait()
	if r.right == 0 {
		r.t.Error("nothing was read: the test does not test anything")
	}
}

// killed kills the server -9 and starts it again, between two reads.
func (r *readers) killed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.kill()
	r.s.start()
}

// TestStores moves files to each kind of store while the process is killed -9 again and again. In the end there is exactly one
// right object for each, and at every moment each file can be read.
func TestStores(t *testing.T) {
	seeded(t)
	for _, kind := range []string{"rados", "s3", "oss", "cos"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(*seed, 1))
			s := newStoreServer(t, "main", map[string]storeSettings{"main": kindsOfStores[kind](t)})
			s.start()
			if out, err := s.gantry("doctor", "--store", "main"); err != nil {
				t.Fatalf("gantry doctor --store: %v\n%s", err, out)
			}
			files := map[string]string{} // where each comes from
			for _, size := range []int64{300_000_000, *large} {
				path := sourceFile(t, rnd, size)
				out, err := s.gantry("put", "--quiet", path)
				if err != nil {
					t.Fatalf("gantry put: %v\n%s", err, out)
				}
				files[strings.Fields(out)[0]] = path
			}
			reading := newReaders(t, s, rnd, files)
			stored := func() bool {
				for id := range files {
					f, up := s.look(id)
					if up && f.Transfer.State == "dead" {
						t.Fatalf("the transfer of %s is dead: %s", f.Name, f.Transfer.LastError)
					}
					if !up || f.Transfer.State != "stored" {
						return false
					}
				}
				return true
			}
			kills := 0
			for ; kills < 6 && !stored() && !t.Failed(); kills++ {
				time.Sleep(time.Duration(200+rnd.IntN(1500)) * time.Millisecond)
				reading.killed()
			}
			awaitFor(t, 5*time.Minute, "all is stored", stored)
			awaitFor(t, time.Minute, "the staging copies are dropped", func() bool {
				left, err := filepath.Glob(filepath.Join(s.data, "staging", "*.data"))
				return err == nil && len(left) == 0
			})
			time.Sleep(100 * time.Millisecond) // from the store
			reading.stop()
			for id, path := range files {
				back := filepath.Join(t.TempDir(), "back")
				if out, err := s.gantry("get", "--quiet", id, back); err != nil {
					t.Fatalf("gantry get: %v\n%s", err, out)
				}
				if out, err := exec.Command("cmp", path, back).CombinedOutput(); err != nil {
					t.Errorf("another content came back: %v %s", err, out)
				}
				_ = os.Remove(back)
			}
			s.stop()
			if out, err := s.gantry("doctor"); err != nil {
				t.Errorf("gantry doctor: %v\n%s", err, out)
			}
			t.Logf("killed %d times; %d ranges read", kills, reading.right)
		})
	}
}

// awaitFor waits until something is so.
func awaitFor(t *testing.T, patience time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) || t.Failed() {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

// away is a store that can be cut off.
type away struct {
	storeSettings
	cut, heal func()
}

// behindNetwork is a store of a kind with an endpoint, and a network before it.
func behindNetwork(t *testing.T, kind string) away {
	t.Helper()
	settings := kindsOfStores[kind](t)
	u, err := url.Parse(settings["endpoint"])
	if err != nil {
		t.Fatal(err)
	}
	network := testenv.NewProxy(t, u.Host)
	settings["endpoint"] = "http://" + network.Address()
	return away{settings, network.Refuse, network.Heal}
}

// ownCeph is a RADOS store in a cluster of the test's own, whose OSD it may kill: its clients find that by itself, and
// not through a network of ours.
func ownCeph(t *testing.T) away {
	t.Helper()
	ceph := testenv.Private(t, "ceph")
	settings := storeSettings{"type": "rados", "conf": ceph.Address(testenv.RADOS), "pool": "gantry", "namespace": "e2e"}
	return away{settings, func() { ceph.Do("kill", "ceph-2") }, func() { ceph.Do("start", "ceph-2") }}
}

// TestStoreAway cuts stores off for as long as it takes to fill staging up to its watermark (fault 23). Meanwhile files
// are taken and served, and one is told why; when it is back everything is stored without help.
func TestStoreAway(t *testing.T) {
	seeded(t)
	t.Parallel() // most of it is waiting
	for _, kind := range []string{"rados", "s3", "oss", "cos"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if kind == "rados" {
				testStoreAway(t, ownCeph(t))
				return
			}
			testStoreAway(t, behindNetwork(t, kind))
		})
	}
}

func testStoreAway(t *testing.T, main away) {
	const patience = 5 * time.Minute // Ceph is waited for half a minute a time
	rnd := rand.New(rand.NewPCG(*seed, 1))
	s := newStoreServer(t, "main", map[string]storeSettings{"main": main.storeSettings})
	s.start()
	put := func(size int64) (string, string) {
		t.Helper()
		path := sourceFile(t, rnd, size)
		out, err := s.gantry("put", "--quiet", path)
		if err != nil {
			t.Fatalf("gantry put: %v\n%s", err, out)
		}
		return strings.Fields(out)[0], path
	}
	files := map[string]string{}
	id, path := put(1 << 20)
	files[id] = path
	awaitFor(t, patience, "the first file is stored", func() bool { f, up := s.look(id); return up && f.Transfer.State == "stored" })

	main.cut()
	var order []string
	for i := range int64(12) {
		id, path := put(1<<20 + i)
		files[id], order = path, append(order, id)
	}
	ready := func() (string, int) {
		resp, err := http.Get(s.admin() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return string(text), resp.StatusCode
	}
	awaitFor(t, patience, "/readyz tells of the store", func() bool {
		text, status := ready()
		return status == http.StatusOK && strings.Contains(text, `"name":"store-main","ok":false`)
	})
	awaitFor(t, patience, "each file says why it waits", func() bool {
		for _, id := range order {
			if f, up := s.look(id); !up || f.Transfer.State != "retrying" || f.Transfer.LastError == "" {
				return false
			}
		}
		return true
	})
	awaitFor(t, patience, "the page says so", func() bool {
		page, err := s.do(t.Context(), "GET", "/", nil, nil)
		return err == nil && bytes.Contains(page.body, []byte("The store does not answer."))
	})
	first := order[0]
	reading := newReaders(t, s, rnd, map[string]string{first: files[first]})
	time.Sleep(300 * time.Millisecond)
	reading.stop()

	// A day of it, as far as the disk is concerned: no more room than is left now.
	s.stop()
	s.args = append(s.args, "--min-free", "100TiB")
	s.start()
	a, err := s.do(t.Context(), "POST", "/v1/files?name=more", nil, []byte("more"))
	if err != nil || a.status != http.StatusInsufficientStorage {
		t.Errorf("a file for which there is no room: %d %s, %v", a.status, a.body, err)
	}
	s.stop()
	s.args = append(s.args, "--min-free", "1MiB")
	s.start()

	main.heal()
	awaitFor(t, patience, "all is stored", func() bool {
		for id := range files {
			if f, up := s.look(id); !up || f.Transfer.State != "stored" {
				return false
			}
		}
		return true
	})
	if text, status := ready(); status != http.StatusOK || !strings.Contains(text, `"name":"store-main","ok":true`) {
		t.Errorf("/readyz: %d %s", status, text)
	}
	s.stop()
	if out, err := s.gantry("doctor", "--deep"); err != nil {
		t.Errorf("gantry doctor: %v\n%s", err, out)
	}
}
