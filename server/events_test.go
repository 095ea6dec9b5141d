package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"go.uber.org/goleak"

	"gantry/meta"
)

// stream is a client that follows what happens.
type stream struct {
	t     testing.TB
	lines *bufio.Scanner
	kept  []event
	close func()
}

// event is one that a stream has got.
type event struct {
	name, data string
	id         string // in data
}

// follow begins to follow; what happens after it returns is told.
func (c *testClient) follow(headers ...string) *stream {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), testWait)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/v1/events", http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("answered %d", resp.StatusCode)
	}
	s := &stream{t: c.t, lines: bufio.NewScanner(resp.Body), close: func() { cancel(); _ = resp.Body.Close() }}
	s.lines.Buffer(nil, 1<<20)
	c.t.Cleanup(s.close)
	if first := s.next(); first.name != "resync" {
		c.t.Fatalf("the first event is %+v", first)
	}
	return s
}

// next waits for an event and compares it with the document.
func (s *stream) next() event {
	s.t.Helper()
	var e event
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch {
		case field == "event":
			e.name = value
		case field == "data":
			e.data = value
		case field == "" && e.name != "":
			var head struct{ ID string }
			if err := json.Unmarshal([]byte(e.data), &head); err != nil {
				s.t.Fatalf("%+v: %v", e, err)
			}
			e.id = head.ID
			if err := contract().checkEvent(e); err != nil {
				s.t.Errorf("%+v is not as documented: %v", e, err)
			}
			return e
		}
	}
	s.t.Fatalf("the stream has ended: %v", s.lines.Err())
	return e
}

// until waits for an event of a thing that is as it should be. Others may come before it, and are kept for the next call:
// what happens to an upload and to its file comes in any order.
func (s *stream) until(name, id string, fine func(data string) bool) {
	s.t.Helper()
	wanted := func(e event) bool { return e.name == name && e.id == id && fine(e.data) }
	if i := slices.IndexFunc(s.kept, wanted); i >= 0 {
		s.kept = slices.Delete(s.kept, i, i+1)
		return
	}
	for e := s.next(); !wanted(e); e = s.next() {
		s.kept = append(s.kept, e)
	}
}

func anything(string) bool { return true }

func has(text string) func(string) bool {
	return func(data string) bool { return strings.Contains(data, text) }
}

// checkEvent compares an event with the schema that the document names for it.
func (k *contractChecker) checkEvent(e event) error {
	content := k.doc.Paths.Value("/v1/events").Get.Responses.Status(http.StatusOK).Value.Content["text/event-stream"]
	schemas, _ := content.Extensions["x-events"].(map[string]any)
	name, _ := schemas[e.name].(string)
	schema := k.doc.Components.Schemas[name]
	if schema == nil {
		return fmt.Errorf("no schema %q", name)
	}
	var value any
	if err := json.Unmarshal([]byte(e.data), &value); err != nil {
		return err
	}
	return schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
}

func newEventNode(t testing.TB, opt Options) *node {
	t.Helper()
	opt.EventPause = time.Millisecond
	return newNode(t, opt)
}

func TestEvents(t *testing.T) {
	n := newEventNode(t, Options{})
	data := random(2 * mib)
	n.storeFile("old", data[:10])
	n.clock.advance(time.Minute) // what is old is not told

	s := n.follow()
	o := n.open(len(data))
	if e := s.next(); e.name != "upload" || e.id != o.ID {
		t.Fatalf("an upload was opened: %+v", e)
	}
	n.clock.advance(time.Second)
	n.put(o.ID, 1, data[mib:]).want(t, 204, "")
	s.until("upload", o.ID, has(`"received_bytes":1048576`))
	n.put(o.ID, 0, data[:mib]).want(t, 204, "")
	a := n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{}`).want(t, 201, "")
	file := decodeJSON[fileJSON](t, a.body)
	s.until("upload_ended", o.ID, has(`"complete"`))
	s.until("file", file.ID, has(`"location":"staging"`))

	n.clock.advance(time.Second)
	n.json("PATCH", "/v1/files/"+file.ID, `{"name":"b.bin"}`).want(t, 200, "")
	s.until("file", file.ID, has(`"name":"b.bin"`))
	n.clock.advance(time.Second)
	n.transfer()
	s.until("file", file.ID, has(`"location":"store"`))

	n.clock.advance(time.Second)
	again := n.init(object{"name": "again", "size": 5, "replaces": file.ID})
	n.put(again.ID, 0, []byte("other")).want(t, 204, "")
	n.json("POST", "/v1/uploads/"+again.ID+"/complete", `{}`).want(t, 201, "")
	s.until("file", file.ID, has(`"size":5`))

	n.clock.advance(time.Second)
	n.do("DELETE", "/v1/files/"+file.ID, nil).want(t, 204, "")
	s.until("file_deleted", file.ID, anything)
	cancelled := n.open(10)
	s.until("upload", cancelled.ID, anything)
	n.do("DELETE", "/v1/uploads/"+cancelled.ID, nil).want(t, 204, "")
	s.until("upload_ended", cancelled.ID, has(`"cancelled"`))
}

// What another node does, on the same database and view, is told as well.
func TestEventsOfOtherNodes(t *testing.T) {
	nodes, _ := newCluster(t, 2, nil)
	following := New(nodes[0].service, Options{EventPause: time.Millisecond, Node: "n0"})
	s := serveHandler(t, following.Handler()).follow()
	data := random(mib + 10)
	o := nodes[1].open(len(data))
	s.until("upload", o.ID, anything)
	nodes[1].put(o.ID, 0, data[:mib]).want(t, 204, "")
	s.until("upload", o.ID, has(`"received_bytes":1048576`))
	nodes[1].put(o.ID, 1, data[mib:]).want(t, 204, "")
	a := nodes[1].json("POST", "/v1/uploads/"+o.ID+"/complete", `{}`).want(t, 201, "")
	file := decodeJSON[fileJSON](t, a.body)
	s.until("upload_ended", o.ID, has(`"complete"`))
	s.until("file", file.ID, anything)
	nodes[1].do("DELETE", "/v1/files/"+file.ID, nil).want(t, 204, "")
	s.until("file_deleted", file.ID, anything)
}

// Nothing of one owner is told to another.
func TestEventsAreOnesOwn(t *testing.T) {
	n := newEventNode(t, Options{})
	mallory := serveHandler(t, New(n.service, Options{Owner: "mallory", EventPause: time.Millisecond}).Handler())
	alice, other := n.follow(), mallory.follow()
	o := n.open(10)
	file := n.storeFile("secret", []byte("secret"))
	n.do("DELETE", "/v1/uploads/"+o.ID, nil).want(t, 204, "")
	n.clock.advance(time.Second)
	n.do("DELETE", "/v1/files/"+file.ID, nil).want(t, 204, "")
	alice.until("file_deleted", file.ID, anything)
	own := decodeJSON[fileJSON](t, mallory.do("POST", "/v1/files?name=own", bytes.NewReader([]byte("x"))).want(t, 201, "").body)
	if e := other.next(); e.name != "file" || e.id != own.ID {
		t.Errorf("another owner was told %+v", e)
	}
}

func TestTooManyFollow(t *testing.T) {
	n := newEventNode(t, Options{})
	mallory := serveHandler(t, New(n.service, Options{Owner: "mallory", EventPause: time.Millisecond}).Handler())
	all := []*stream{n.follow(), n.follow(), n.follow()} // MaxFollowers
	if got := n.do("GET", "/v1/events", nil).want(t, 429, "too_many_requests").header.Get("Retry-After"); got == "" {
		t.Error("no Retry-After")
	}
	mallory.follow() // another owner is not in the way
	all[0].close()
	for { // the server sees it when it next writes, or before
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/events", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
}

// A stream ends when the server stops: nobody waits for it until the requests' time is over.
func TestEventsEnd(t *testing.T) {
	n := newEventNode(t, Options{})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := listen(t)
	stop := serveUntil(t, l, n.server.Handler(), Options{DrainTimeout: testWait})
	conn := dial(t, l.Addr().String())
	conn.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(conn.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "event: resync" {
		t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	n.server.Drain()   // as cmd does with the end of serving
	for lines.Scan() { // to the end of the stream
	}
	if lines.Err() != nil {
		t.Error(lines.Err())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// So does one whose token may have been taken back meanwhile.
func TestEventsEndAfterTheirTime(t *testing.T) {
	s := newEventNode(t, Options{EventLife: time.Millisecond}).follow()
	for s.lines.Scan() { // to the end of the stream
	}
	if s.lines.Err() != nil {
		t.Error(s.lines.Err())
	}
}

// A silent connection would be taken for a dead one.
func TestEventsBeat(t *testing.T) {
	n := newEventNode(t, Options{EventBeat: time.Millisecond})
	s := n.follow()
	for range 3 {
		if !s.lines.Scan() || s.lines.Text() != ":" || !s.lines.Scan() || s.lines.Text() != "" {
			t.Fatalf("%q, %v", s.lines.Text(), s.lines.Err())
		}
	}
}

// Whoever follows and reads nothing is cut, and meanwhile costs no memory but its connection's.
func TestEventsThatNobodyReads(t *testing.T) {
	ended := make(chan bool, 1)
	n := newNode(t, Options{Stall: testWindow, EventPause: time.Microsecond, EventBeat: time.Nanosecond})
	h := n.server.Handler()
	l := listen(t)
	stop := serveUntil(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- true }()
		h.ServeHTTP(w, r)
	}), Options{})
	var files []string
	for range 20 {
		files = append(files, n.storeFile("a", []byte("x")).ID)
	}
	metadata := map[string]string{"k": strings.Repeat("v", 15<<10)} // so that there is much to tell
	conn := dial(t, l.Addr().String())
	conn.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	late := time.After(testWait)
	for {
		select {
		case <-ended:
			if err := stop(); err != nil {
				t.Error(err)
			}
			return
		case <-late:
			t.Fatal("the stream still waits for its reader")
		default:
			for _, id := range files {
				if _, err := n.service.UpdateFile(t.Context(), "local", id, meta.FileChange{Metadata: &metadata}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
