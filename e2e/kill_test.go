package e2e

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	kills = flag.Int("kills", 200, "how many times TestKill kills the server")
	seed  = flag.Uint64("seed", 0, "seed of what is random; 0: by the clock")
)

const chunkSize = 1 << 20

// seeded chooses the run's seed, unless it was given, and tells how to run the test with it again.
func seeded(t *testing.T) {
	t.Helper()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./e2e -run '^%s$' -setup %s -seed %d -kills %d", t.Name(), *setup, *seed, *kills)
}

// TestKill kills the server -9 at random moments while several clients upload, and checks after every
// restart that nothing that was acknowledged is gone, and that nothing wrong is served.
func TestKill(t *testing.T) {
	seeded(t)
	s := newServer(t, "--staging-grace", "1s")
	s.start()

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	uploaders := make([]*uploader, 4)
	for i := range uploaders {
		u := &uploader{t: t, s: s, rnd: rand.New(rand.NewPCG(*seed, uint64(i)+1)), id: i}
		uploaders[i] = u
		clients.Go(func() { u.run(ctx) })
	}
	rnd := rand.New(rand.NewPCG(*seed, 0))
	for range *kills {
		time.Sleep(time.Duration(rnd.IntN(120)) * time.Millisecond)
		s.kill()
		s.start()
		if t.Failed() {
			break
		}
	}
	// Let every client finish what it is doing, then compare all that was ever acknowledged.
	cancel()
	clients.Wait()
	files := 0
	for _, u := range uploaders {
		for _, f := range u.files {
			u.compare(t.Context(), f)
			files++
		}
		t.Logf("client %d: %d files, %d chunks acknowledged, %d times resumed", u.id, len(u.files), u.acked, u.resumed)
	}
	if files < len(uploaders) {
		t.Errorf("only %d files were completed: the test does not test anything", files)
	}
	s.stop()
	s.doctor()
}

// target is a server, or several.
type target interface {
	do(ctx context.Context, method, path string, header map[string]string, body []byte) (answer, error)
}

// uploader is a client that remembers what was acknowledged to it.
type uploader struct {
	t       *testing.T
	s       target
	rnd     *rand.Rand
	id      int
	pace    time.Duration // between files
	files   []finished
	acked   int
	resumed int
}

type finished struct {
	id   string
	seed uint64
	size int
}

// content is the bytes of a file: the same for the same seed.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	copy(key[:], fmt.Sprint(seed))
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func (u *uploader) run(ctx context.Context) {
	for ctx.Err() == nil && !u.t.Failed() {
		f := finished{seed: u.rnd.Uint64(), size: u.rnd.IntN(6 * chunkSize)}
		if u.rnd.IntN(4) == 0 {
			f.size = u.rnd.IntN(200 << 10)
			u.whole(&f)
		} else {
			u.chunked(&f)
		}
		if u.t.Failed() {
			return
		}
		u.files = append(u.files, f)
		time.Sleep(u.pace)
		if len(u.files) > 0 && u.rnd.IntN(3) == 0 { // an old one must still be right
			u.compare(u.t.Context(), u.files[u.rnd.IntN(len(u.files))])
		}
	}
}

// until repeats a call until the server answers with one of the statuses wanted.
func (u *uploader) until(method, path string, header map[string]string, body []byte, want ...int) answer {
	deadline := time.Now().Add(time.Minute)
	for {
		a, err := u.s.do(u.t.Context(), method, path, header, body)
		if err == nil {
			if slices.Contains(want, a.status) {
				return a
			}
			if a.status != 503 {
				u.t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
				return a
			}
		} else if !errors.Is(err, errDown) {
			u.t.Errorf("%s %s: %v", method, path, err)
			return answer{}
		}
		if time.Now().After(deadline) {
			u.t.Errorf("%s %s: no answer for a minute: %v %d %s", method, path, err, a.status, a.body)
			return answer{}
		}
		u.resumed++
		time.Sleep(10 * time.Millisecond)
	}
}

// whole sends a small file in one request, repeated with the same key until it is acknowledged.
func (u *uploader) whole(f *finished) {
	header := map[string]string{"Idempotency-Key": fmt.Sprintf("w-%d-%d", u.id, f.seed), "Content-Type": "application/octet-stream"}
	a := u.until("POST", fmt.Sprintf("/v1/files?name=w%d", f.seed), header, content(f.seed, f.size), 201)
	u.made(a, f)
}

func (u *uploader) made(a answer, f *finished) {
	if u.t.Failed() {
		return
	}
	var made struct {
		ID   string
		SHA1 string
		Size int
	}
	a.decode(u.t, &made)
	sum := sha1.Sum(content(f.seed, f.size))
	if made.SHA1 != hex.EncodeToString(sum[:]) || made.Size != f.size {
		u.t.Errorf("the file made has sha1 %s size %d, want %x %d", made.SHA1, made.Size, sum, f.size)
	}
	f.id = made.ID
}

// chunked sends a file in chunks, in any order and several at a time, looking at the status now and
// then: every chunk acknowledged must be there.
func (u *uploader) chunked(f *finished) {
	body := content(f.seed, f.size)
	sum := sha1.Sum(body)
	request, _ := json.Marshal(map[string]any{"name": fmt.Sprintf("c%d", f.seed), "size": f.size, "chunk_size": chunkSize})
	header := map[string]string{"Idempotency-Key": fmt.Sprintf("c-%d-%d", u.id, f.seed), "Content-Type": "application/json"}
	a := u.until("POST", "/v1/uploads", header, request, 201)
	if u.t.Failed() {
		return
	}
	var up struct {
		ID         string
		ChunkCount int `json:"chunk_count"`
		ChunkSize  int `json:"chunk_size"`
		Missing    [][2]int
	}
	a.decode(u.t, &up)
	if up.ChunkSize != chunkSize {
		u.t.Errorf("chunk size %d", up.ChunkSize)
		return
	}
	acked := make(map[int]bool)
	var mu sync.Mutex
	order := u.rnd.Perm(up.ChunkCount)
	lanes := make(chan int)
	var wg sync.WaitGroup
	for range 1 + u.rnd.IntN(3) {
		wg.Go(func() {
			for i := range lanes {
				chunk := body[i*chunkSize : min((i+1)*chunkSize, len(body))]
				a := u.until("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", up.ID, i), nil, chunk, 204)
				if a.status == 204 {
					mu.Lock()
					acked[i] = true
					mu.Unlock()
				}
			}
		})
	}
	for n, i := range order {
		lanes <- i
		if n%3 == 2 {
			u.checkStatus(up.ID, acked, &mu, up.ChunkCount)
		}
	}
	close(lanes)
	wg.Wait()
	if u.t.Failed() {
		return
	}
	u.checkStatus(up.ID, acked, &mu, up.ChunkCount)
	u.acked += len(acked)
	complete, _ := json.Marshal(map[string]any{"sha1": hex.EncodeToString(sum[:])})
	u.made(u.until("POST", "/v1/uploads/"+up.ID+"/complete", map[string]string{"Content-Type": "application/json"}, complete, 201), f)
}

// checkStatus compares a status with the chunks that had been acknowledged before it was asked for.
func (u *uploader) checkStatus(id string, acked map[int]bool, mu *sync.Mutex, count int) {
	mu.Lock()
	var before []int
	for i := range acked {
		before = append(before, i)
	}
	mu.Unlock()
	a := u.until("GET", "/v1/uploads/"+id, nil, nil, 200)
	if u.t.Failed() {
		return
	}
	var status struct{ Missing [][2]int }
	a.decode(u.t, &status)
	missing := make([]bool, count)
	for _, r := range status.Missing {
		for i := r[0]; i <= r[1]; i++ {
			missing[i] = true
		}
	}
	for _, i := range before {
		if missing[i] {
			u.t.Errorf("upload %s: chunk %d was acknowledged and is missing: %s", id, i, a.body)
		}
	}
}

// compare downloads a file and compares it with what was sent.
func (u *uploader) compare(_ context.Context, f finished) {
	a := u.until("GET", "/v1/files/"+f.id+"/content", nil, nil, 200)
	if a.status == 200 && !bytes.Equal(a.body, content(f.seed, f.size)) {
		u.t.Errorf("file %s (%d bytes): other bytes came back (%d)", f.id, f.size, len(a.body))
	}
	if a.status == 404 && strings.Contains(string(a.body), "not_found") {
		u.t.Errorf("file %s was acknowledged and is gone", f.id)
	}
}
