package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gantry/upload"
)

// uploading is one upload to Gantry.
type uploading struct {
	s     *server
	size  int64
	stamp [][]byte // the first chunk's bytes, unlike any other upload's
	ID    string   `json:"id"`
	Chunk int64    `json:"chunk_size"`
	Count int      `json:"chunk_count"`
}

// open begins an upload; chunk is the wish for the chunks' length, 0 for none.
func (s *server) open(ctx context.Context, size, chunk int64) (*uploading, error) {
	c, err := dial(ctx, s.addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	u := &uploading{s: s, size: size, Chunk: 1}
	spec := map[string]any{"name": "bench.bin", "size": size}
	if chunk > 0 {
		spec["chunk_size"] = chunk
	}
	err = c.doJSON("POST", "/v1/uploads", spec, u)
	if err == nil && int64(len(buffer))%u.Chunk != 0 {
		err = fmt.Errorf("the server chose chunks of %d bytes; the load generator has a buffer of %d", u.Chunk, len(buffer))
	}
	u.stamp = content(min(u.Chunk, size))
	return u, err
}

func (u *uploading) body(index int) [][]byte {
	if index == 0 {
		return u.stamp
	}
	offset := int64(index) * u.Chunk
	length := min(u.Chunk, u.size-offset)
	offset %= int64(len(buffer))
	return [][]byte{buffer[offset : offset+length]}
}

func (u *uploading) put(c *conn, index int) error {
	body := u.body(index)
	_, _, err := c.do("PUT", "/v1/uploads/"+u.ID+"/chunks/"+strconv.Itoa(index), digestHeader(body), body)
	return err
}

// send sends all chunks over so many connections, digests announced.
func (u *uploading) send(ctx context.Context, connections int) error {
	return u.s.each(ctx, min(connections, u.Count), u.Count, u.put)
}

func (u *uploading) complete(ctx context.Context) error {
	c, err := dial(ctx, u.s.addr)
	if err != nil {
		return err
	}
	defer c.close()
	_, _, err = c.do("POST", "/v1/uploads/"+u.ID+"/complete", "", nil)
	return err
}

// hashed is how much of the upload the server has hashed.
func (u *uploading) hashed(c *conn) (int64, error) {
	var status struct {
		Hashed int64 `json:"hashed_bytes"`
	}
	err := c.doJSON("GET", "/v1/uploads/"+u.ID, nil, &status)
	return status.Hashed, err
}

// drained waits until all files are verified in the store.
func (s *server) drained(ctx context.Context) error {
	c, err := dial(ctx, s.management)
	if err != nil {
		return err
	}
	defer c.close()
	for begun := time.Now(); time.Since(begun) < 5*time.Minute; time.Sleep(10 * time.Millisecond) {
		var list struct {
			Items []struct{} `json:"items"`
		}
		if err := c.doJSON("GET", "/transfers?state=queued,running,verifying,retrying&limit=1", nil, &list); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return nil
		}
	}
	return errors.New("transfers are not done after 5 minutes")
}

// alone measures what only Gantry does.
func (b *bench) alone(ctx context.Context) error {
	fmt.Fprintf(b.out, "\n| Gantry | |\n|---|--:|\n")
	for _, m := range []struct {
		name    string
		measure func(context.Context) ([]string, error)
	}{
		{"complete", b.completes},
		{"status", b.statuses},
		{"slow", b.slow},
		{"profile", b.profile},
		{"instant", b.instants},
	} {
		if !b.wants(m.name) {
			continue
		}
		if b.late() {
			fmt.Fprintf(b.out, "| %s | not measured: out of time |\n", m.name)
			continue
		}
		rows, err := m.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for _, row := range rows {
			fmt.Fprintln(b.out, row)
		}
	}
	return nil
}

// with runs do against a fresh Gantry.
func (b *bench) with(ctx context.Context, do func(s *server) error, args ...string) (err error) {
	s, err := b.start(ctx, "gantry", args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return do(s)
}

// completes times complete, for a small and a large file, at once and after hashing has caught up.
func (b *bench) completes(ctx context.Context) ([]string, error) {
	type completed struct {
		took time.Duration
		lag  int64
	}
	var rows []string
	for _, size := range []int64{4 << 20, b.big} {
		for _, atOnce := range []bool{true, false} {
			var all []completed
			for range b.rounds {
				err := b.with(ctx, func(s *server) error {
					c, err := s.timeComplete(ctx, size, atOnce)
					all = append(all, completed(c))
					return err
				})
				if err != nil {
					return nil, err
				}
				if b.late() {
					break
				}
			}
			what := "once hashing has caught up"
			if atOnce {
				what = fmt.Sprintf("at once (%.0f MB behind in hashing)", median(all, func(c completed) float64 { return float64(c.lag) / 1e6 }))
			}
			rows = append(rows, fmt.Sprintf("| complete of %s, %s | %.1f ms |", sizeName(size), what,
				median(all, func(c completed) float64 { return float64(c.took.Microseconds()) / 1000 })))
		}
	}
	return rows, nil
}

func (s *server) timeComplete(ctx context.Context, size int64, atOnce bool) (result struct {
	took time.Duration
	lag  int64
}, err error,
) {
	u, err := s.open(ctx, size, 0)
	if err != nil {
		return result, err
	}
	if err := u.send(ctx, 4); err != nil {
		return result, err
	}
	c, err := dial(ctx, s.addr)
	if err != nil {
		return result, err
	}
	defer c.close()
	for first := true; ; first = false {
		hashed, err := u.hashed(c)
		if err != nil {
			return result, err
		}
		if first {
			result.lag = size - hashed
		}
		if atOnce || hashed == size {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	begun := time.Now()
	_, _, err = c.do("POST", "/v1/uploads/"+u.ID+"/complete", "", nil)
	result.took = time.Since(begun)
	return result, err
}

// statuses counts small calls: status of an upload of 10,000 chunks with many gaps, and init.
func (b *bench) statuses(ctx context.Context) ([]string, error) {
	var rows []string
	err := b.with(ctx, func(s *server) error {
		u, err := s.open(ctx, upload.MaxChunks*upload.MinChunkSize, upload.MinChunkSize)
		if err != nil {
			return err
		}
		const gaps = 250
		err = s.each(ctx, 4, gaps, func(c *conn, i int) error { return u.put(c, 2*i) })
		if err != nil {
			return err
		}
		r, err := s.rate(ctx, 4, func(c *conn) error {
			_, _, err := c.do("GET", "/v1/uploads/"+u.ID, "", nil)
			return err
		})
		if err != nil {
			return err
		}
		rows = append(rows, r.row(fmt.Sprintf("status of %d of 10,000 chunks, every other one missing", gaps)))
		r, err = s.rate(ctx, 16, func(c *conn) error {
			return c.doJSON("POST", "/v1/uploads", map[string]any{"name": "a", "size": 100}, nil)
		})
		rows = append(rows, r.row("init (manifest flushed)"))
		return err
	})
	return rows, err
}

// slow holds 200 uploads open that send 64 KB/s each.
func (b *bench) slow(ctx context.Context) ([]string, error) {
	const uploads, piece, pause = 200, 16 << 10, 250 * time.Millisecond
	var rows []string
	err := b.with(ctx, func(s *server) error {
		before := s.memory("VmRSS")
		err := s.each(ctx, uploads, uploads, func(c *conn, _ int) error {
			u, err := s.open(ctx, upload.DefaultChunkSize, 0)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c.c, "PUT /v1/uploads/%s/chunks/0 HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", u.ID, s.addr, u.size); err != nil {
				return err
			}
			for at := range 32 {
				if _, err := c.c.Write(buffer[at*piece : (at+1)*piece]); err != nil {
					return err
				}
				time.Sleep(pause)
			}
			return nil
		})
		peak := s.peak()
		rows = append(rows, fmt.Sprintf("| memory: idle, peak with %d slow uploads, per upload | %.0f MB, %.0f MB, %.0f KB |", uploads,
			float64(before)/1e6, float64(peak)/1e6, float64(peak-before)/1e3/uploads))
		return err
	})
	return rows, err
}

// rates is how often something was done in a second, and how long it took.
type rates struct{ perSecond, p50, p99 float64 } // milliseconds

func (r rates) row(what string) string {
	return fmt.Sprintf("| %s | %.0f/s (p50 %.2f ms, p99 %.2f ms) |", what, r.perSecond, r.p50, r.p99)
}

func sizeName(n int64) string {
	if n%(1<<30) == 0 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
