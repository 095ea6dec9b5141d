package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// longListing has 32 MiB: more than the buffers of a connection take.
func longListing() *stub {
	long := make([]upload.File, 1000)
	for i := range long {
		long[i] = upload.File{ID: fmt.Sprint(i), Name: "a", Metadata: map[string]string{"k": strings.Repeat("v", 32<<10)}}
	}
	return &stub{files: func(meta.FileQuery) (ingest.Page[upload.File], error) {
		return ingest.Page[upload.File]{Items: long}, nil
	}}
}

// slowReader reads 1 MiB at a time, in a tenth of a window.
type slowReader struct{ io.Reader }

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(testWindow / 10)
	n, err := io.ReadFull(r.Reader, p[:min(len(p), mib)])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func TestAnswersMayBeTakenSlowly(t *testing.T) {
	client := serveHandler(t, New(longListing(), Options{Stall: testWindow}).Handler())
	conn := dial(t, client.addr)
	conn.send("GET /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReaderSize(slowReader{conn}, mib), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < 32_000_000 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Whoever asks for a long listing and reads nothing must not keep it in memory.
func TestAnswersThatNobodyTakesAreCut(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ended := make(chan bool, 1)
	h := New(longListing(), Options{Stall: testWindow}).Handler()
	l := listen(t)
	stop := serveUntil(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- true }()
		h.ServeHTTP(w, r)
	}), Options{})
	conn := dial(t, l.Addr().String())
	conn.send("GET /v1/files HTTP/1.1\r\nHost: localhost\r\n\r\n")
	select {
	case <-ended: // without a byte having been read
	case <-time.After(testWait):
		t.Error("the answer still waits for its reader")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// The deadline of an answer must not cut what comes later on the same connection. net/http sees to it
// today.
func TestConnectionOutlivesTheDeadlineOfAnAnswer(t *testing.T) {
	n := newNode(t, Options{Stall: testWindow})
	file := n.storeFile("a", []byte("content"))
	o := n.open(10)
	conn := dial(t, n.addr)
	path := "/v1/files/" + file.ID + "/content"
	conn.send("GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
	conn.answer("GET", path).want(t, 200, "")
	time.Sleep(2 * testWindow)
	path = "/v1/uploads/" + o.ID + "/chunks/0"
	conn.send("PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", path)
	if line, err := conn.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = conn.in.ReadString('\n')
	conn.send("0123456789")
	conn.answer("PUT", path).want(t, 204, "")
}

// A repeated request gets its answer though its body is not needed any more: also the client that
// sends all of it before it reads.
func TestRepeatedBodiesAreRead(t *testing.T) {
	n := newNode(t, Options{})
	data := random(24 * mib)
	head := call{method: "POST", path: "/v1/files?name=a"}.head(len(data), "Idempotency-Key: k1")
	post := func() string {
		conn := dial(t, n.addr)
		conn.send("%s%s", head, data)
		a := conn.answer("POST", "/v1/files").want(t, 201, "")
		conn.send("GET /v1/files HTTP/1.1\r\nHost: localhost\r\n\r\n") // and the connection still serves
		conn.answer("GET", "/v1/files").want(t, 200, "")
		return decodeJSON[fileJSON](t, a.body).ID
	}
	first := post()
	before := n.things()
	if again := post(); again != first {
		t.Errorf("repeated: %s, first %s", again, first)
	}
	// Who waits for "100 Continue" is answered at once.
	conn := dial(t, n.addr)
	conn.send("%s", call{method: "POST", path: "/v1/files?name=a"}.head(len(data), "Idempotency-Key: k1", "Expect: 100-continue"))
	conn.answer("POST", "/v1/files").want(t, 201, "")
	n.unchanged(before, "a repeated request")
}

func TestRepeatedForms(t *testing.T) {
	n := newNode(t, Options{})
	post := func(key string, parts ...[2]string) answered {
		body, kind := form(parts...)
		return n.do("POST", "/v1/files", strings.NewReader(body), "Content-Type: "+kind, "Idempotency-Key: "+key)
	}
	long := string(random(300_000))
	first := post("k1", [2]string{"a", long}, [2]string{"b", "second"}).want(t, 201, "")
	before := n.things()
	if again := post("k1", [2]string{"a", long}, [2]string{"b", "second"}).want(t, 201, ""); again.body != first.body {
		t.Errorf("repeated: %s\nfirst: %s", again.body, first.body)
	}
	for _, other := range []string{"", "x", long[1:], long + "x", long + long} {
		post("k1", [2]string{"a", other}, [2]string{"b", "second"}).want(t, 422, "idempotency_key_reused")
	}
	post("k1", [2]string{"b", "second"}, [2]string{"a", long}).want(t, 422, "idempotency_key_reused")
	n.unchanged(before, "repeated forms")

	// Two files of one form may have one name, and even one field.
	text := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nfirst\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nother\r\n--b--\r\n"
	a := n.do("POST", "/v1/files", strings.NewReader(text), "Content-Type: multipart/form-data; boundary=b", "Idempotency-Key: k2").want(t, 201, "")
	files := decodeJSON[[]fileJSON](t, a.body)
	for i, want := range []string{"first", "other"} {
		if got := n.do("GET", "/v1/files/"+files[i].ID+"/content", nil).want(t, 200, ""); got.body != want {
			t.Errorf("file %d is %q, want %q", i, got.body, want)
		}
	}
	// A key of one's own cannot be mistaken for that of a form's file.
	n.do("POST", "/v1/files?name=x", bytes.NewReader(nil), "Idempotency-Key: k2/1").want(t, 201, "")
}
