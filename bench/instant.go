package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"gantry/upload"
)

// rate does something over so many connections for three seconds.
func (s *server) rate(ctx context.Context, connections int, do func(c *conn) error) (rates, error) {
	const period = 3 * time.Second
	var mu sync.Mutex
	var took []float64
	begun := time.Now()
	err := s.each(ctx, connections, connections, func(c *conn, _ int) error {
		var mine []float64
		for time.Since(begun) < period {
			start := time.Now()
			if err := do(c); err != nil {
				return err
			}
			mine = append(mine, float64(time.Since(start).Microseconds())/1000)
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, mine...)
		return nil
	})
	if err != nil || len(took) == 0 {
		return rates{}, err
	}
	elapsed := time.Since(begun).Seconds()
	slices.Sort(took)
	return rates{float64(len(took)) / elapsed, took[len(took)/2], took[len(took)*99/100]}, nil
}

// known is content that the server has, with an answer to every challenge for it.
type known struct {
	sha1   string
	leaves [][]byte // as in the JSON of a proof
}

const knownSize = upload.MinInstantSize

func newKnown(data []byte) (known, error) {
	h := upload.NewTreeHasher()
	_, _ = h.Write(data)
	tree := h.Sum()
	k := known{sha1: upload.SumSHA1(data).String()}
	for i := range upload.LeafCount(tree.Size) {
		leaf, err := tree.Prove(bytes.NewReader(data), i)
		if err != nil {
			return k, err
		}
		var path []byte
		for _, hash := range leaf.Path {
			path = append(path, hash[:]...)
		}
		k.leaves = append(k.leaves, fmt.Appendf(nil, `{"index":%d,"data":%q,"path":%q}`, i,
			base64.StdEncoding.EncodeToString(leaf.Data), base64.StdEncoding.EncodeToString(path)))
	}
	return k, nil
}

// claim makes a file of content that the server has: init with the digest, then the proof.
func (k *known) claim(c *conn) error {
	var opened struct {
		ID        string `json:"id"`
		Challenge struct {
			ID     string  `json:"id"`
			Leaves []int64 `json:"leaves"`
		} `json:"challenge"`
	}
	if err := c.doJSON("POST", "/v1/uploads", map[string]any{"name": "a", "size": knownSize, "sha1": k.sha1}, &opened); err != nil {
		return err
	}
	proof := [][]byte{fmt.Appendf(nil, `{"sha1":%q,"proof":{"challenge":%q,"leaves":[`, k.sha1, opened.Challenge.ID)}
	for i, leaf := range opened.Challenge.Leaves {
		if i > 0 {
			proof = append(proof, []byte{','})
		}
		proof = append(proof, k.leaves[leaf])
	}
	proof = append(proof, []byte("]}}"))
	_, answer, err := c.do("POST", "/v1/uploads/"+opened.ID+"/instant", "Content-Type: application/json\r\n", proof)
	if err != nil {
		return err
	}
	var result struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return err
	}
	if result.Status != "complete" {
		return fmt.Errorf("the proof was not taken: %s", answer)
	}
	return nil
}

// instants counts instant uploads while there are very many blobs.
func (b *bench) instants(ctx context.Context) (rows []string, err error) {
	s, err := b.start(ctx, "gantry")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	all, err := b.knownContent(ctx, s)
	if err == nil {
		err = s.halt()
	}
	if err == nil {
		err = addBlobs(ctx, filepath.Join(s.dir, "gantry.db"), b.blobs)
	}
	if err != nil {
		return nil, err
	}
	again, err := b.startIn(ctx, "gantry", s.dir)
	if err != nil {
		return nil, err
	}
	s = again
	var next sync.Mutex
	n := 0
	r, err := s.rate(ctx, 16, func(c *conn) error {
		next.Lock()
		n++
		k := &all[n%len(all)]
		next.Unlock()
		return k.claim(c)
	})
	return []string{r.row(fmt.Sprintf("instant uploads (init and proof) with %d blobs in SQLite", b.blobs))}, err
}

// knownContent uploads some content, and waits until instant uploads may be made of it.
func (b *bench) knownContent(ctx context.Context, s *server) (all []known, err error) {
	err = s.each(ctx, 1, 8, func(c *conn, _ int) error {
		body := content(knownSize)
		k, err := newKnown(slices.Concat(body...))
		if err != nil {
			return err
		}
		all = append(all, k)
		_, _, err = c.do("POST", "/v1/files?name=known", "Content-Type: application/octet-stream\r\n", body)
		return err
	})
	if err == nil {
		err = s.drained(ctx)
	}
	return all, err
}

// addBlobs puts rows of content that nobody asks for into the database of a stopped server.
func addBlobs(ctx context.Context, path string, count int) error {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for statement := range strings.SplitSeq(fmt.Sprintf(`
		PRAGMA synchronous = OFF;
		PRAGMA cache_size = -1000000;
		BEGIN;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO blobs (id, sha1, size, root, hint, crc32c, state, refs, store, object_key, created_at, updated_at, verified_at)
		SELECT printf('%%026d', i), randomblob(20), %d, randomblob(32), randomblob(20), 0, 'live', 1, 'local', printf('%%026d', i), 0, 0, 0 FROM n;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %[1]d)
		INSERT INTO files (id, owner, blob_id, name, name_folded, path, content_type, size, created_at, updated_at)
		SELECT printf('%%026d', i), 'local', printf('%%026d', i), 'a', 'a', '', '', %[2]d, 0, 0 FROM n;
		COMMIT`, count, knownSize), ";") {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(statement), err)
		}
	}
	return nil
}
