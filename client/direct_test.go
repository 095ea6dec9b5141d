package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gantry/chunkstore/disk"
	chunks "gantry/chunkstore/memory"
	"gantry/internal/vfs"
	"gantry/meta/sqldb"
	"gantry/server"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/store/memory"
	"gantry/store/storetest"
	"gantry/upload"
)

const directToken = "secret-token"

// directServer is a real server whose store takes chunks from clients. around, if not nil, is around its handler.
func directServer(t *testing.T, st store.Store, around func(http.Handler) http.Handler) (address string, db *sqldb.DB) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	must(os.Mkdir(filepath.Join(dir, "staging"), 0o700))
	tree, err := vfs.OpenOS(filepath.Join(dir, "staging"))
	must(err)
	db, err = sqldb.OpenSQLite(t.Context(), filepath.Join(dir, "gantry.db"), sqldb.Options{})
	must(err)
	staging, err := disk.Open(tree, disk.Options{BootID: "test"})
	must(err)
	service := ingest.New(ingest.Options{Node: "n1", Route: func(int64, string, string) string { return "bucket" }, Direct: true}, ingest.Deps{
		Staging: staging, View: chunks.New(), DB: db, Stores: map[string]store.Store{"bucket": st}, Wake: func() {},
	})
	handler := server.New(service, server.Options{Token: directToken}).Handler()
	if around != nil {
		handler = around(handler)
	}
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		srv.Close()
		must(errors.Join(staging.Close(), db.Close(), tree.Close()))
	})
	return srv.URL, db
}

func directClient(t *testing.T, address string, states StateStore) *Client {
	t.Helper()
	c, err := New(Options{BaseURL: address, Token: StaticToken(directToken), ChunkSize: mib, States: states, StallTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.minDelay, c.maxDelay = time.Millisecond, 10*time.Millisecond
	return c
}

// stored fails the test unless the server has want under the file.
func stored(t *testing.T, c *Client, f *File, want []byte) {
	t.Helper()
	r, err := c.Content(t.Context(), f.ID, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the server has %d bytes, %v", len(got), err)
	}
}

func TestDirectUpload(t *testing.T) {
	t.Parallel()
	st := storetest.NewDirect(t, memory.New())
	address, _ := directServer(t, st, nil)
	c := directClient(t, address, nil)
	for _, size := range []int{mib - 1, mib, 5*mib + 7} {
		want := content(uint64(size), size)
		before := st.Puts()
		var events record
		result, err := c.Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Direct: true, Events: events.add})
		if err != nil {
			t.Fatal(err)
		}
		stored(t, c, &result.File, want)
		if result.BytesSent != int64(size) || events.sum(Acknowledged) != int64(size) || events.sum(Moved) != int64(size) || result.File.SHA1 != upload.SumSHA1(want) {
			t.Errorf("%+v, acknowledged %d, moved %d", result, events.sum(Acknowledged), events.sum(Moved))
		}
		parts := (size + mib - 1) / mib
		if size < mib {
			parts = 0 // one request to the server is cheaper
		}
		if got := st.Puts() - before; got != parts {
			t.Errorf("%d bytes: %d parts were sent to the store, want %d", size, got, parts)
		}
	}
	if open := st.OpenUploads(); len(open) > 0 {
		t.Errorf("left open in the store: %v", open)
	}
}

// URLs that are refused are asked for anew, and a store that is busy is asked again.
func TestDirectUploadIsRefusedForAWhile(t *testing.T) {
	t.Parallel()
	st := storetest.NewDirect(t, memory.New())
	address, _ := directServer(t, st, nil)
	c := directClient(t, address, nil)
	want := content(1, 8*mib)
	var expired atomic.Bool
	result, err := c.Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Direct: true, Events: func(e Event) {
		if e.Kind == Acknowledged && expired.CompareAndSwap(false, true) {
			st.Expire()
			st.FailPuts(http.StatusServiceUnavailable, http.StatusInternalServerError, http.StatusServiceUnavailable)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	stored(t, c, &result.File, want)
	if result.BytesSent != int64(len(want)) || st.Puts() != 8 {
		t.Errorf("%+v, %d parts", result, st.Puts())
	}
}

func TestDirectUploadIsResumed(t *testing.T) {
	t.Parallel()
	st := storetest.NewDirect(t, memory.New())
	address, _ := directServer(t, st, nil)
	states := NewFileStates(t.TempDir())
	want := content(2, 12*mib+3)
	path := fileWith(t, want)
	ctx, cancel := context.WithCancel(t.Context())
	var acked atomic.Int64
	_, err := directClient(t, address, states).Upload(ctx, open(t, path), UploadOptions{Direct: true, Events: func(e Event) {
		if e.Kind == Acknowledged && acked.Add(1) == 4 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	st.Expire() // it takes a while until somebody goes on
	before := st.Puts()
	c := directClient(t, address, states)
	result, err := c.Upload(t.Context(), open(t, path), UploadOptions{}) // the server knows that it is a direct one
	if err != nil {
		t.Fatal(err)
	}
	stored(t, c, &result.File, want)
	if before < 4 || result.BytesResumed != int64(before)*mib || result.BytesSent != int64(len(want))-result.BytesResumed || st.Puts() != 13 {
		t.Errorf("%d parts before, %d in all, %+v", before, st.Puts(), result)
	}
}

// unreachable is a store whose URLs lead nowhere, or are not accepted there.
type unreachable struct {
	store.Store
	direct  store.Direct
	address string
}

func (u unreachable) Direct() store.Direct { return nowhere{u.direct, u.address} }

type nowhere struct {
	store.Direct
	address string
}

func (n nowhere) PresignPart(context.Context, string, string, int, time.Duration) (*url.URL, error) {
	return url.Parse(n.address)
}

// Where the client cannot use the store, or the server knows of no such thing, the bytes go through the server.
func TestDirectUploadFallsBack(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	refusing := func(status int) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	direct := func(address string) store.Store {
		st := storetest.NewDirect(t, memory.New())
		return unreachable{st, st.Direct(), address + "/?signature=hidden"}
	}
	for name, c := range map[string]struct {
		store  store.Store
		around func(http.Handler) http.Handler
	}{
		"the store cannot":                  {memory.New(), nil},
		"the store cannot be reached":       {direct(closed.URL), nil},
		"the store refuses everybody":       {direct(refusing(http.StatusForbidden)), nil},
		"the store is another":              {direct(refusing(http.StatusMovedPermanently)), nil},
		"the store is always busy":          {direct(refusing(http.StatusServiceUnavailable)), nil},
		"the server knows of no such thing": {storetest.NewDirect(t, memory.New()), withoutDirect},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := directServer(t, c.store, c.around)
			client := directClient(t, address, NewFileStates(t.TempDir()))
			want := content(3, 3*mib+1)
			var events record
			result, err := client.Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Direct: true, Events: events.add})
			if err != nil {
				t.Fatal(err)
			}
			stored(t, client, &result.File, want)
			if result.BytesSent != int64(len(want)) || events.sum(Acknowledged) != int64(len(want)) || result.File.Location != "staging" {
				t.Errorf("%+v, acknowledged %d", result, events.sum(Acknowledged))
			}
			for _, e := range events.has(Retrying) {
				if strings.Contains(e.Err.Error(), "hidden") {
					t.Errorf("a URL is told: %v", e.Err)
				}
			}
			for u, err := range client.Uploads(t.Context()) {
				t.Errorf("left open: %s %v", u.ID, err)
			}
		})
	}
}

// withoutDirect makes a server an older one.
func withoutDirect(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if bytes.Contains(body, []byte(`"direct"`)) {
			body = bytes.Replace(body, []byte(`"direct"`), []byte(`"unknown"`), 1)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		inner.ServeHTTP(w, r)
	})
}

// A store that took some chunks and refuses the others is told of, without its URLs. What is there is not given up.
func TestDirectUploadFailsHalfWay(t *testing.T) {
	t.Parallel()
	st := storetest.NewDirect(t, memory.New())
	address, _ := directServer(t, st, nil)
	states := NewFileStates(t.TempDir())
	c := directClient(t, address, states)
	want := content(4, 6*mib)
	path := fileWith(t, want)
	var refused atomic.Bool
	_, err := c.Upload(t.Context(), open(t, path), UploadOptions{Direct: true, Events: func(e Event) {
		if e.Kind == Acknowledged && refused.CompareAndSwap(false, true) {
			st.FailPuts(http.StatusBadRequest)
		}
	}})
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusBadRequest || strings.Contains(err.Error(), "signature") || !strings.Contains(err.Error(), "store") {
		t.Fatalf("refused: %v", err)
	}
	before := st.Puts() // at least: one that was given up may arrive later
	result, err := c.Upload(t.Context(), open(t, path), UploadOptions{Direct: true})
	if err != nil || result.BytesResumed < int64(before)*mib || before == 0 || result.BytesResumed+result.BytesSent != int64(len(want)) {
		t.Errorf("%d parts, %+v %v", before, result, err)
	}
	stored(t, c, &result.File, want)
}

// Content of which the server does not know the SHA-1 can be downloaded all the same.
func TestDownloadOfWhatNobodyHasRead(t *testing.T) {
	t.Parallel()
	st := storetest.NewDirect(t, memory.New())
	address, _ := directServer(t, st, nil)
	c := directClient(t, address, nil)
	want, size := content(5, 2*mib), int64(2*mib)
	up, err := c.Init(t.Context(), InitRequest{Name: "a", Size: &size, ChunkSize: mib, Direct: true}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range up.Direct.URLs {
		part := want[u.Index*mib : (u.Index+1)*mib]
		if err := c.putDirect(t.Context(), u.URL, func() io.ReadCloser { return io.NopCloser(bytes.NewReader(part)) }, mib); err != nil {
			t.Fatal(err)
		}
	}
	f, err := c.Complete(t.Context(), up.ID, nil, nil)
	if err != nil || !f.SHA1.IsZero() {
		t.Fatalf("%+v %v", f, err)
	}
	path := filepath.Join(t.TempDir(), "a")
	if _, err := c.Download(t.Context(), f.ID, path, DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var stream bytes.Buffer
	if _, err := c.WriteTo(t.Context(), &stream, f.ID, DownloadOptions{}); err != nil || !bytes.Equal(stream.Bytes(), want) {
		t.Errorf("%d bytes, %v", stream.Len(), err)
	}
}
