package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/internal/testenv"
)

// believed is how long other nodes believe what Redis says of an upload, and a little more.
const believed = 2500 * time.Millisecond

// redisDo has the server of a fleet's Redis that has a key do a command, once a Cluster that was just started can.
func (f *fleet) redisDo(t *testing.T, command, key string, args ...any) any {
	t.Helper()
	_, kind := databaseAndRedis(t)
	if *setup == "embedded" {
		kind = testenv.Redis
	}
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for address := range strings.SplitSeq(f.servers.Address(kind), ",") {
			c, err := redis.DialURL(address)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := c.Do(command, append([]any{key}, args...)...)
			_ = c.Close()
			if err == nil {
				return reply
			}
			if last = err; !strings.HasPrefix(err.Error(), "MOVED") {
				break
			}
		}
		if !strings.HasPrefix(last.Error(), "CLUSTERDOWN") {
			break
		}
	}
	t.Fatalf("%s %s: %v", command, key, last)
	return nil
}

// TestRedisIsWrong: what Redis has of an upload is not what was told to it (fault 10). Its node alone decides what is
// there: nothing is completed without its bytes, and nothing wrong comes back.
func TestRedisIsWrong(t *testing.T) {
	seeded(t)
	f := newFleet(t, 2)
	f.start()
	m, other := f.nodes[0], f.nodes[1]
	u := f.client(t, f)
	const chunks = 9
	body := content(*seed, (chunks-1)*chunkSize+17)
	put := func(t *testing.T, n *member, id string, i int) {
		t.Helper()
		n.must(t, "PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", id, i), nil, body[i*chunkSize:min((i+1)*chunkSize, len(body))], 204)
	}
	// begin has three chunks come in, and returns the upload's key in Redis.
	begin := func(t *testing.T) (id, key string) {
		t.Helper()
		var up struct{ ID string }
		m.must(t, "POST", "/v1/uploads", jsonHeader, []byte(fmt.Sprintf(`{"name":"a","size":%d,"chunk_size":%d}`, len(body), chunkSize)), 201).decode(t, &up)
		for i := range 3 {
			put(t, f.nodes[i%2], up.ID, i)
		}
		key = "upload:{" + up.ID + "}"
		if n, err := redis.Int(f.redisDo(t, "EXISTS", key), nil); err != nil || n != 1 {
			t.Fatalf("Redis does not have %s: %v", key, err)
		}
		return up.ID, key
	}
	received := func(t *testing.T, n *member, id string, want int) {
		t.Helper()
		if a := n.must(t, "GET", "/v1/uploads/"+id, nil, nil, 200); !strings.Contains(string(a.body), fmt.Sprintf(`"received_chunks":%d,`, want)) {
			t.Errorf("not %d chunks: %s", want, a.body)
		}
	}
	// finish sends what complete says is missing, and compares what comes back.
	finish := func(t *testing.T, id string, missing int) {
		t.Helper()
		var problem struct{ Missing [][2]int }
		other.must(t, "POST", "/v1/uploads/"+id+"/complete", jsonHeader, []byte("{}"), 409).decode(t, &problem)
		for _, r := range problem.Missing {
			for i := r[0]; i <= r[1]; i++ {
				missing--
				put(t, other, id, i)
			}
		}
		if missing != 0 {
			t.Errorf("complete asks for %v", problem.Missing)
		}
		var file struct{ ID string }
		u.until("POST", "/v1/uploads/"+id+"/complete", jsonHeader, []byte("{}"), 201).decode(t, &file)
		for _, n := range f.nodes {
			if a := n.must(t, "GET", "/v1/files/"+file.ID+"/content", nil, nil, 200); !bytes.Equal(a.body, body) {
				t.Error("other bytes came back")
			}
		}
	}
	t.Run("bits too many", func(t *testing.T) {
		id, key := begin(t)
		tooMany := func() { f.redisDo(t, "HSET", key, "chunks", "\xff\x80", "bytes", len(body)) }
		tooMany()
		received(t, m, id, 3)
		time.Sleep(believed)
		received(t, other, id, 3)
		put(t, other, id, 3)
		tooMany() // and now they are believed
		finish(t, id, chunks-4)
	})
	t.Run("bits too few", func(t *testing.T) {
		id, key := begin(t)
		f.redisDo(t, "HSET", key, "chunks", "\x00\x00", "bytes", 0)
		received(t, m, id, 3)
		time.Sleep(believed)
		received(t, other, id, 3)
		put(t, other, id, 0) // as a client that believed them does
		finish(t, id, chunks-3)
	})
	// A replica that takes over, or a server whose last second was not on its disk, is another run of the server: it
	// is not believed for a moment.
	t.Run("an older state", func(t *testing.T) {
		id, key := begin(t)
		old := f.redisDo(t, "DUMP", key)
		for i := 3; i < 6; i++ {
			put(t, f.nodes[i%2], id, i)
		}
		f.servers.Do("kill", f.redis)
		f.servers.Do("start", f.redis)
		f.redisDo(t, "RESTORE", key, 0, old, "REPLACE")
		for i := 6; i < 8; i++ {
			for _, n := range f.nodes {
				received(t, n, id, i)
			}
			put(t, other, id, i)
		}
		finish(t, id, chunks-8)
	})
	f.stop()
	for _, n := range f.nodes {
		n.doctor()
	}
}
