package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gomodule/redigo/redis"

	"gantry/upload"
)

// counters are figures that only grow.
type counters map[string]int64

func (c counters) since(before counters) counters {
	diff := counters{}
	for name, n := range c {
		if d := n - before[name]; d != 0 {
			diff[name] = d
		}
	}
	return diff
}

// read reads the counters of MariaDB and of Redis.
func (st *setup) read(ctx context.Context, r redis.Conn) (counters, error) {
	c := counters{}
	rows, err := st.db.QueryContext(ctx, "SHOW GLOBAL STATUS")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			c[name] = n
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	text, err := redis.String(r.Do("INFO", "all"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if command, ok := strings.CutPrefix(name, "cmdstat_"); ok {
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			c["redis "+command], _ = strconv.ParseInt(calls, 10, 64)
		}
	}
	return c, nil
}

// costs counts what one upload costs the servers: statements, rows, bytes, commands, memory.
func (b *bench) costs(ctx context.Context) error {
	r, err := redis.DialURL(os.Getenv("GANTRY_TEST_REDIS"))
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	const files, chunks = 50, 64
	return b.on(ctx, setupNames[1], 1, func(st *setup, nodes []*server) error {
		s := nodes[0]
		whole := func() error {
			u, err := s.open(ctx, chunks*upload.MinChunkSize, upload.MinChunkSize)
			if err == nil {
				err = u.send(ctx, 1)
			}
			if err == nil {
				err = u.complete(ctx)
			}
			return err
		}
		if err := whole(); err != nil { // scripts and prepared statements are there afterwards
			return err
		}
		if err := s.drained(ctx); err != nil {
			return err
		}
		before, err := st.read(ctx, r)
		if err != nil {
			return err
		}
		for range files {
			if err := whole(); err != nil {
				return err
			}
		}
		if err := s.drained(ctx); err != nil {
			return err
		}
		after, err := st.read(ctx, r)
		if err != nil {
			return err
		}
		per := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/files) }
		d := after.since(before)
		fmt.Fprintf(b.out, "\n| one file of %d chunks, until it is in the store, on Redis and MariaDB | |\n|---|--:|\n", chunks)
		for _, row := range []struct{ what, counter string }{
			{"SQL: SELECT", "Com_select"},
			{"SQL: INSERT", "Com_insert"},
			{"SQL: UPDATE", "Com_update"},
			{"SQL: DELETE", "Com_delete"},
			{"SQL: COMMIT", "Com_commit"},
			{"rows written", "Handler_write"},
			{"rows changed", "Handler_update"},
			{"bytes of redo log", "Innodb_os_log_written"},
			{"bytes of binary log", "Binlog_bytes_written"},
		} {
			fmt.Fprintf(b.out, "| %s | %s |\n", row.what, per(d[row.counter]))
		}
		var commands []string
		for name := range d {
			if strings.HasPrefix(name, "redis ") && d[name] >= files/2 { // not what connections and Watch do
				commands = append(commands, name)
			}
		}
		slices.Sort(commands)
		for _, name := range commands {
			fmt.Fprintf(b.out, "| Redis: %s | %s |\n", strings.ToUpper(strings.TrimPrefix(name, "redis ")), per(d[name]))
		}
		return b.redisMemory(ctx, s, r)
	})
}

// redisMemory is what open uploads take in Redis.
func (b *bench) redisMemory(ctx context.Context, s *server, r redis.Conn) error {
	for _, chunks := range []int64{10, 1000, upload.MaxChunks} {
		u, err := s.open(ctx, chunks*upload.MinChunkSize, upload.MinChunkSize)
		if err != nil {
			return err
		}
		n, err := redis.Int64(r.Do("MEMORY", "USAGE", "upload:{"+u.ID+"}", "SAMPLES", 0))
		if err != nil {
			return fmt.Errorf("the upload is not in Redis: %w", err)
		}
		fmt.Fprintf(b.out, "| Redis: bytes of an open upload of %d chunks, and in its owner's list | %d + about 150 |\n", chunks, n)
	}
	return nil
}

// manyBlobs is init, instant uploads and look-ups on MariaDB with very many blobs.
func (b *bench) manyBlobs(ctx context.Context) error {
	return b.on(ctx, setupNames[1], 1, func(st *setup, nodes []*server) error {
		s := nodes[0]
		all, err := b.knownContent(ctx, s)
		if err != nil {
			return err
		}
		// A server that is to hold so much has the memory for its indexes.
		for _, statement := range []string{
			"SET GLOBAL innodb_buffer_pool_size = 4 << 30",
			"SET GLOBAL innodb_flush_log_at_trx_commit = 1", // durably, as it has to be
		} {
			if _, err := st.db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		if err := addServerBlobs(ctx, st, b.blobs); err != nil {
			return err
		}
		fmt.Fprintf(b.out, "\n| MariaDB with %d blobs and files | |\n|---|--:|\n", b.blobs)
		r, err := s.rate(ctx, 16, func(c *conn) error {
			return c.doJSON("POST", "/v1/uploads", map[string]any{"name": "a", "size": 100}, nil)
		})
		if err != nil {
			return err
		}
		fmt.Fprintln(b.out, r.row("init"))
		next := 0
		turn := make(chan struct{}, 1)
		r, err = s.rate(ctx, 16, func(c *conn) error {
			turn <- struct{}{}
			next++
			k := &all[next%len(all)]
			<-turn
			return k.claim(c)
		})
		if err != nil {
			return err
		}
		fmt.Fprintln(b.out, r.row("instant uploads (init and proof)"))
		return st.explain(ctx, b)
	})
}

// addServerBlobs puts rows of content that nobody asks for into MariaDB. Their digests come in ascending order: in any
// other the indexes of ten million rows would take an hour to build, and a look-up goes as deep.
func addServerBlobs(ctx context.Context, st *setup, count int) error {
	conn, err := st.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "SET SESSION sql_log_bin = 0"); err != nil { // the replica need not have them
		return err
	}
	const step = 250_000
	for begin := 1; begin <= count; begin += step {
		end := min(begin+step-1, count)
		for _, statement := range []string{
			`INSERT INTO blobs (id, sha1, size, root, hint, crc32c, state, refs, store, object_key, created_at, updated_at, verified_at)
				SELECT LPAD(seq, 26, '0'), UNHEX(CONCAT(LPAD(HEX(seq * 1000003), 16, '0'), LEFT(MD5(seq), 24))), %[3]d, UNHEX(SHA2(seq, 256)),
				UNHEX(CONCAT(LPAD(HEX(seq * 999983), 16, '0'), LEFT(MD5(-seq), 24))), 0, 'live', 1, 'local', LPAD(seq, 26, '0'), 0, 0, 0 FROM seq_%[1]d_to_%[2]d`,
			`INSERT INTO files (id, owner, blob_id, name, name_folded, path, content_type, size, created_at, updated_at)
				SELECT LPAD(seq, 26, '0'), 'local', LPAD(seq, 26, '0'), LPAD(seq, 10, '0'), LPAD(seq, 10, '0'), '', '', %[3]d, seq, 0 FROM seq_%[1]d_to_%[2]d`,
		} {
			if _, err := conn.ExecContext(ctx, fmt.Sprintf(statement, begin, end, knownSize)); err != nil {
				return errors.Join(err, ctx.Err())
			}
		}
	}
	_, err = conn.ExecContext(ctx, "ANALYZE TABLE blobs, files")
	return err
}

// explain shows how MariaDB finds content by SHA-1 and size.
func (st *setup) explain(ctx context.Context, b *bench) error {
	var id, rows int
	var kind, table, access, possible, key, length, ref, extra sql.NullString
	row := st.db.QueryRowContext(ctx, "EXPLAIN SELECT id FROM blobs WHERE sha1 = UNHEX(SHA1('a')) AND size = 1048576 AND root IS NOT NULL")
	if err := row.Scan(&id, &kind, &table, &access, &possible, &key, &length, &ref, &rows, &extra); err != nil {
		return err
	}
	_, err := fmt.Fprintf(b.out, "| plan of the look-up by (sha1, size) | %s by index %s, %d row |\n", access.String, key.String, rows)
	return err
}
