package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const smallSize = 100_000

// workload is the same work for every server.
type workload struct {
	name     string
	bytes    int64
	parallel bool // one file over several connections
	do       func(ctx context.Context, s *server) error
}

func workloads(o *options) []workload {
	const together = 64
	return []workload{
		{name: "1 file, 1 connection", bytes: o.size, do: func(ctx context.Context, s *server) error {
			return s.putFile(ctx, o.size, 1)
		}},
		{name: "1 file, 4 connections", bytes: o.size, parallel: true, do: func(ctx context.Context, s *server) error {
			return s.putFile(ctx, o.size, 4)
		}},
		{name: fmt.Sprintf("%d files at once", together), bytes: o.size / together * together, do: func(ctx context.Context, s *server) error {
			group, ctx := errgroup.WithContext(ctx)
			for range together {
				group.Go(func() error { return s.putFile(ctx, o.size/together, 1) })
			}
			return group.Wait()
		}},
		{name: fmt.Sprintf("%d files of 100 KB", o.small), bytes: int64(o.small) * smallSize, do: func(ctx context.Context, s *server) error {
			return s.putSmall(ctx, o.small)
		}},
	}
}

// each gives n connections a share of the numbers below count.
func (s *server) each(ctx context.Context, n, count int, do func(c *conn, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range n {
		group.Go(func() error {
			c, err := dial(ctx, s.addr)
			if err != nil {
				return err
			}
			defer c.close()
			for i := next.Add(1) - 1; i < int64(count) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(c, int(i)); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// putFile uploads one file as the server likes it best.
func (s *server) putFile(ctx context.Context, size int64, connections int) error {
	switch s.name {
	case "gantry":
		up, err := s.open(ctx, size, 0)
		if err != nil {
			return err
		}
		if err := up.send(ctx, connections); err != nil {
			return err
		}
		return up.complete(ctx)
	case "tusd":
		return s.tusPut(ctx, size, connections)
	}
	c, err := dial(ctx, s.addr)
	if err != nil {
		return err
	}
	defer c.close()
	_, _, err = c.do("PUT", "/"+strconv.FormatUint(stampCount.Add(1), 10), "", content(size))
	return err
}

// putSmall uploads many small files over 16 connections, each in one request.
func (s *server) putSmall(ctx context.Context, count int) error {
	return s.each(ctx, 16, count, func(c *conn, i int) error {
		body := content(smallSize)
		name := strconv.Itoa(i)
		var err error
		switch s.name {
		case "gantry":
			_, _, err = c.do("POST", "/v1/files?name="+name, "Content-Type: application/octet-stream\r\n"+digestHeader(body), body)
		case "tusd":
			_, _, err = c.do("POST", "/files/", tus+"Content-Type: application/offset+octet-stream\r\nUpload-Length: "+strconv.Itoa(smallSize)+"\r\n"+
				"Upload-Metadata: filename "+base64.StdEncoding.EncodeToString([]byte(name))+"\r\n", body)
		default:
			_, _, err = c.do("PUT", "/"+name, "", body)
		}
		return err
	})
}

const tus = "Tus-Resumable: 1.0.0\r\n"

// tusPut sends one file, or as many parts as there are connections, each in one request, and has them
// put together.
func (s *server) tusPut(ctx context.Context, size int64, connections int) error {
	urls := make([]string, connections)
	part := size / int64(connections)
	err := s.each(ctx, connections, connections, func(c *conn, i int) error {
		headers := tus
		if connections > 1 {
			headers += "Upload-Concat: partial\r\n"
		}
		length := part
		if i == connections-1 {
			length = size - part*int64(connections-1)
		}
		created, _, err := c.do("POST", "/files/", headers+"Upload-Length: "+strconv.FormatInt(length, 10)+"\r\n", nil)
		if err != nil {
			return err
		}
		location, err := url.Parse(created.Get("Location"))
		if err != nil {
			return err
		}
		urls[i] = location.Path
		_, _, err = c.do("PATCH", location.Path, tus+"Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n", content(length))
		return err
	})
	if err != nil || connections == 1 {
		return err
	}
	c, err := dial(ctx, s.addr)
	if err != nil {
		return err
	}
	defer c.close()
	_, _, err = c.do("POST", "/files/", tus+"Upload-Concat: final;"+strings.Join(urls, " ")+"\r\n", nil)
	return err
}
