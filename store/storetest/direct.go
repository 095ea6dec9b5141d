package storetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5" // an ETag, as S3 makes it
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"gantry/store"
	"gantry/upload"
)

// Direct is a store to which clients send the parts of objects, over HTTP, by a server that is as strict as S3. It is
// made by NewDirect and safe for concurrent use.
type Direct struct {
	store.Store
	Least int64 // of PartLimits; 1 MiB. Set it before the first call

	server  *httptest.Server
	mu      sync.Mutex
	uploads map[string]*multipartUpload // by id
	signed  int                         // generation of the URLs that are good
	puts    int
	fails   []int // statuses of the next PUTs
	hook    func(op string) error
}

type multipartUpload struct {
	key   string
	parts map[int]directPart
}

type directPart struct {
	store.Part
	body []byte
}

var _ store.Director = (*Direct)(nil)

// NewDirect wraps a store that has the objects.
func NewDirect(t testing.TB, inner store.Store) *Direct {
	d := &Direct{Store: inner, Least: 1 << 20, uploads: map[string]*multipartUpload{}}
	d.server = httptest.NewServer(http.HandlerFunc(d.serve))
	t.Cleanup(d.server.Close)
	return d
}

// Hook has f called with "Create", "Complete" and so on before each call, and with "Create done" and so on after it.
// An error of f is that of the call: after it, an answer that got lost.
func (d *Direct) Hook(f func(op string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = f
}

// Expire makes all URLs bad that were given.
func (d *Direct) Expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signed++
}

// FailPuts answers the next PUTs with these statuses, and takes nothing.
func (d *Direct) FailPuts(statuses ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = append(d.fails, statuses...)
}

// Puts is how many parts came.
func (d *Direct) Puts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.puts
}

// OpenUploads lists the ids of the multipart uploads that have not ended.
func (d *Direct) OpenUploads() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.uploads))
}

// Forget drops all multipart uploads, as a rule of a bucket does with old ones.
func (d *Direct) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.uploads)
}

// Remember returns a function that brings back the multipart uploads there are now, as if an Abort had come too late.
func (d *Direct) Remember() (restore func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := maps.Clone(d.uploads)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		maps.Copy(d.uploads, kept)
	}
}

func (d *Direct) around(op string, f func() error) error {
	d.mu.Lock()
	hook := d.hook
	d.mu.Unlock()
	if hook == nil {
		return f()
	}
	if err := hook(op); err != nil {
		return err
	}
	return cmp.Or(f(), hook(op+" done"))
}

// Size is part of store.Store.
func (d *Direct) Size(ctx context.Context, key string) (size int64, err error) {
	err = d.around("Size", func() (err error) { size, err = d.Store.Size(ctx, key); return err })
	return size, err
}

// Delete is part of store.Store.
func (d *Direct) Delete(ctx context.Context, key string) error {
	return d.around("Delete", func() error { return d.Store.Delete(ctx, key) })
}

// Direct is part of store.Director.
func (d *Direct) Direct() store.Direct { return direct{d} }

type direct struct{ *Direct }

func (d direct) Create(_ context.Context, key string) (id string, err error) {
	err = d.around("Create", func() error {
		id = upload.NewID(time.Now())
		d.mu.Lock()
		defer d.mu.Unlock()
		d.uploads[id] = &multipartUpload{key, map[int]directPart{}}
		return nil
	})
	return id, err
}

func (d *Direct) sign(query url.Values) string {
	mac := hmac.New(sha256.New, fmt.Append(nil, d.signed))
	mac.Write([]byte(query.Encode()))
	return hex.EncodeToString(mac.Sum(nil))
}

func (d direct) PresignPart(_ context.Context, key, id string, number int, expires time.Duration) (u *url.URL, err error) {
	err = d.around("PresignPart", func() (err error) {
		if u, err = url.Parse(d.server.URL); err != nil {
			return err
		}
		query := url.Values{
			"key": {key}, "id": {id}, "number": {strconv.Itoa(number)},
			"expires": {strconv.FormatInt(time.Now().Add(expires).Unix(), 10)},
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		query.Set("signature", d.sign(query))
		u.RawQuery = query.Encode()
		return nil
	})
	return u, err
}

// serve takes a part in.
func (d *Direct) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	query := r.URL.Query()
	signature := query.Get("signature")
	query.Del("signature")
	expires, _ := strconv.ParseInt(query.Get("expires"), 10, 64)
	number, _ := strconv.Atoi(query.Get("number"))
	u := d.uploads[query.Get("id")]
	switch {
	case len(d.fails) > 0:
		refuse(d.fails[0], "Failing")
		d.fails = d.fails[1:]
	case err != nil:
		refuse(http.StatusBadRequest, "IncompleteBody")
	case r.Method != http.MethodPut:
		refuse(http.StatusMethodNotAllowed, "MethodNotAllowed")
	case r.Header.Get("Authorization") != "":
		refuse(http.StatusBadRequest, "InvalidArgument") // one permission is enough
	case r.ContentLength < 0:
		refuse(http.StatusLengthRequired, "MissingContentLength")
	case d.sign(query) != signature || time.Now().Unix() > expires:
		refuse(http.StatusForbidden, "AccessDenied")
	case u == nil || u.key != query.Get("key"):
		refuse(http.StatusNotFound, "NoSuchUpload")
	default:
		sum := md5.Sum(body)
		etag := `"` + hex.EncodeToString(sum[:]) + `"`
		u.parts[number] = directPart{store.Part{Number: number, Size: int64(len(body)), ETag: etag}, body}
		d.puts++
		w.Header().Set("ETag", etag)
	}
}

// find returns a multipart upload. Callers hold mu.
func (d *Direct) find(op, key, id string) (*multipartUpload, error) {
	u := d.uploads[id]
	if u == nil || u.key != key {
		return nil, upload.Errorf(upload.NotFound, op, key, "There is no such multipart upload.")
	}
	return u, nil
}

func (d direct) Parts(_ context.Context, key, id string) iter.Seq2[store.Part, error] {
	return func(yield func(store.Part, error) bool) {
		var parts []store.Part
		err := d.around("Parts", func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			u, err := d.find("storetest.Parts", key, id)
			if err != nil {
				return err
			}
			for _, number := range slices.Sorted(maps.Keys(u.parts)) {
				parts = append(parts, u.parts[number].Part)
			}
			return nil
		})
		if err != nil {
			yield(store.Part{}, err)
			return
		}
		for _, part := range parts {
			if !yield(part, nil) {
				return
			}
		}
	}
}

func (d direct) Complete(ctx context.Context, key, id string, parts []store.Part) error {
	return d.around("Complete", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		u, err := d.find("storetest.Complete", key, id)
		if err != nil {
			return err
		}
		var object bytes.Buffer
		for i, part := range parts {
			there := u.parts[part.Number]
			if there.ETag != part.ETag || i > 0 && part.Number <= parts[i-1].Number || i < len(parts)-1 && there.Size < d.Least {
				return upload.Errorf(upload.Invalid, "storetest.Complete", key, "Part %d is not there, out of order or too small.", part.Number)
			}
			object.Write(there.body)
		}
		if err := d.Put(ctx, key, bytes.NewReader(object.Bytes()), store.PutOptions{}); err != nil {
			return err
		}
		delete(d.uploads, id)
		return nil
	})
}

func (d direct) Abort(_ context.Context, _, id string) error {
	return d.around("Abort", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.uploads, id)
		return nil
	})
}

func (d direct) PartLimits() (least, largest int64, most int) {
	return d.Least, 5 << 30, upload.MaxChunks
}
