package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// setup is what nodes stand on.
type setup struct {
	name  string
	env   []string
	db    *sql.DB // nil: SQLite
	close func() error
}

var setupNames = []string{"memory, SQLite", "Redis, MariaDB", "Redis Cluster, PostgreSQL"}

// newSetup makes a database on the servers that scripts/services has started.
func newSetup(ctx context.Context, name string) (*setup, error) {
	s := &setup{name: name, close: func() error { return nil }}
	driver, address, redis, drop := "", "", "", ""
	switch name {
	case setupNames[0]:
		return s, nil
	case setupNames[1]:
		driver, address, redis = "mysql", os.Getenv("GANTRY_TEST_MYSQL"), os.Getenv("GANTRY_TEST_REDIS")
	case setupNames[2]:
		driver, address, redis, drop = "pgx", os.Getenv("GANTRY_TEST_POSTGRES"), os.Getenv("GANTRY_TEST_REDIS_CLUSTER"), " WITH (FORCE)"
	}
	queue := os.Getenv("GANTRY_TEST_RABBITMQ")
	if address == "" || redis == "" || queue == "" {
		return nil, errors.New("the servers are not there: scripts/bench.sh -many starts them")
	}
	server, err := sql.Open(driver, address)
	if err != nil {
		return nil, err
	}
	database := "gantry_" + strings.ToLower(rand.Text())
	if _, err := server.ExecContext(ctx, "CREATE DATABASE "+database); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	location := url.URL{Scheme: "mysql", Path: "/" + database}
	var own string // the new database, as its driver has it
	if driver == "pgx" {
		u, err := url.Parse(address)
		if err != nil {
			return nil, err
		}
		u.Path = location.Path
		location, own = *u, u.String()
	} else {
		cfg, err := mysql.ParseDSN(address)
		if err != nil {
			return nil, err
		}
		location.User, location.Host = url.UserPassword(cfg.User, cfg.Passwd), cfg.Addr
		cfg.DBName = database
		own = cfg.FormatDSN()
	}
	if s.db, err = sql.Open(driver, own); err != nil {
		return nil, err
	}
	s.env = []string{"GANTRY_DATABASE=" + location.String(), "GANTRY_REDIS=" + redis, "GANTRY_QUEUE=" + queue}
	s.close = func() error {
		err := s.db.Close()
		_, dropErr := server.ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+database+drop)
		return errors.Join(err, dropErr, server.Close())
	}
	return s, nil
}

// on runs do against so many nodes on a new set-up.
func (b *bench) on(ctx context.Context, name string, nodes int, do func(st *setup, nodes []*server) error) (err error) {
	st, err := newSetup(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	b.env = st.env
	defer func() { b.env = nil }()
	if st.db != nil {
		dir, err := os.MkdirTemp(b.dir, "shared-")
		if err != nil {
			return err
		}
		secret := filepath.Join(dir, "secret")
		if err := os.WriteFile(secret, []byte(rand.Text()), 0o600); err != nil {
			return err
		}
		b.env = append(b.env, "GANTRY_STORE_DIR="+filepath.Join(dir, "store"), "GANTRY_CLUSTER_SECRET_FILE="+secret)
		b.clustered = true
		defer func() { b.clustered = false }()
	}
	var all []*server
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.stop())
		}
	}()
	for range nodes {
		s, err := b.start(ctx, "gantry")
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	return do(st, all)
}

// severalNodes measures what several nodes cost, and what servers cost one node.
func (b *bench) severalNodes(ctx context.Context) error {
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{{"latency", b.latency}, {"forwarding", b.forwarding}, {"cost", b.costs}, {"blobs", b.manyBlobs}} {
		if !b.wants(part.name) {
			continue
		}
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// latency is chunks, status and init of one node on each set-up.
func (b *bench) latency(ctx context.Context) error {
	fmt.Fprintf(b.out, "\n| one node on | chunk of 1 MiB, 1 connection | status of 10,000 chunks on its node | on another node | init, 16 connections |\n|---|--:|--:|--:|--:|\n")
	samples := map[string][4][]rates{}
	for range b.rounds {
		for _, name := range setupNames {
			count := 2
			if name == setupNames[0] {
				count = 1
			}
			err := b.on(ctx, name, count, func(_ *setup, nodes []*server) error {
				s, other := nodes[0], nodes[len(nodes)-1]
				all := samples[name]
				u, err := s.open(ctx, upload.MaxChunks*upload.MinChunkSize, upload.MinChunkSize)
				if err != nil {
					return err
				}
				index := 0
				status := func(c *conn) error {
					_, _, err := c.do("GET", "/v1/uploads/"+u.ID, "", nil)
					return err
				}
				chunk := func(c *conn) error {
					index++
					return u.put(c, index)
				}
				for i, one := range []struct {
					at          *server
					connections int
					do          func(c *conn) error
				}{
					{s, 1, chunk},
					{s, 1, status},
					{other, 1, status},
					{s, 16, func(c *conn) error {
						return c.doJSON("POST", "/v1/uploads", map[string]any{"name": "a", "size": 100}, nil)
					}},
				} {
					done := func() error { return nil }
					if one.at == other && other != s { // which believes what it finds for two seconds
						done = s.often(ctx, chunk)
					}
					r, err := one.at.rate(ctx, one.connections, one.do)
					if err = errors.Join(err, done()); err != nil {
						return err
					}
					all[i] = append(all[i], r)
				}
				samples[name] = all
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	for _, name := range setupNames {
		fmt.Fprintf(b.out, "| %s |", name)
		for _, all := range samples[name] {
			fmt.Fprintf(b.out, " %.0f/s (p50 %.2f ms, p99 %.2f ms) |", median(all, func(r rates) float64 { return r.perSecond }),
				median(all, func(r rates) float64 { return r.p50 }), median(all, func(r rates) float64 { return r.p99 }))
		}
		fmt.Fprintln(b.out)
	}
	return nil
}

// often does something twice a second until it is told to end.
func (s *server) often(ctx context.Context, do func(c *conn) error) (done func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error {
		c, err := dial(ctx, s.addr)
		if err != nil {
			return err
		}
		defer c.close()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := do(c); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return func() error {
		cancel()
		return group.Wait()
	}
}

// spray sends an upload's chunks over four connections to each node, each chunk to any of them.
func (u *uploading) spray(ctx context.Context, nodes []*server) error {
	return nodes[0].each(ctx, 4, 4, func(_ *conn, lane int) error {
		conns := make([]*conn, len(nodes))
		for i, s := range nodes {
			c, err := dial(ctx, s.addr)
			if err != nil {
				return err
			}
			defer c.close()
			conns[i] = c
		}
		for index := lane; index < u.Count; index += 4 {
			node := mathrand.IntN(len(conns)) //nolint:gosec // a balancer's choice is no secret
			if err := u.put(conns[node], index); err != nil {
				return err
			}
		}
		return nil
	})
}

// forwarding compares three nodes, of which two pass chunks on, with one.
func (b *bench) forwarding(ctx context.Context) error {
	samples := map[int][]sample{}
	for round := range b.rounds {
		for i := range 2 {
			nodes := []int{1, 3}[(i+round)%2]
			err := b.on(ctx, setupNames[1], nodes, func(_ *setup, all []*server) error {
				u, err := all[0].open(ctx, b.size, 0)
				if err != nil {
					return err
				}
				var before time.Duration
				for _, s := range all {
					before += s.cpu()
				}
				begun := time.Now()
				if err := u.spray(ctx, all); err != nil {
					return err
				}
				if err := u.complete(ctx); err != nil {
					return err
				}
				taken := sample{wall: time.Since(begun), bytes: b.size}
				for _, s := range all {
					taken.cpu += s.cpu()
				}
				taken.cpu -= before
				samples[nodes] = append(samples[nodes], taken)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(b.out, "\n| %s over 4 connections, on Redis and MariaDB | MB/s | CPU s/GB, all nodes |\n|---|--:|--:|\n", sizeName(b.size))
	one, three := samples[1], samples[3]
	fmt.Fprintf(b.out, "| one node | %.0f | %.2f |\n", median(one, sample.rate), median(one, sample.cpuPerGB))
	fmt.Fprintf(b.out, "| three nodes, every chunk to any | %.0f | %.2f |\n", median(three, sample.rate), median(three, sample.cpuPerGB))
	fmt.Fprintf(b.out, "| forwarding, per GB that is forwarded | | %.2f |\n", (median(three, sample.cpuPerGB)-median(one, sample.cpuPerGB))*3/2)
	return nil
}
