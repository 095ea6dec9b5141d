package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gantry/cluster"
	"gantry/config"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/server/forward"
	"gantry/upload"
)

// storeMark begins the name of the file by which a node tells the others, in the store's directory, that it
// is the one they share. It has the id of their database.
const storeMark = ".node-"

// join makes the node one of those that share its database: of a cluster, or the only one.
func (n *node) join(ctx context.Context, c *config.Config, log *slog.Logger) (err error) {
	if c.Database == "" {
		return nil
	}
	secret, err := c.ClusterSecret()
	if err != nil {
		return err
	}
	if err := oneStore(ctx, c, n.db); err != nil {
		return err
	}
	id, err := n.db.Identity(ctx)
	if err != nil {
		return err
	}
	if c.UsesLocal() { // others look for the mark as soon as they hear of the node
		if err := writeDurably(filepath.Join(storeDir(c), storeMark+n.id), id+"\n"); err != nil {
			return err
		}
	}
	n.member, err = cluster.Join(ctx, cluster.Options{Node: n.id, Address: c.ClusterAddress, Log: log}, n.db)
	if err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(c.Data, epochName), strconv.FormatInt(n.member.Epoch(), 10)+"\n"); err != nil {
		return err
	}
	if c.ClusterAddress != "" {
		n.forward = forward.New(forward.Options{Node: n.id, Secret: []byte(secret)}, n.member)
	}
	return oneStore(ctx, c, n.db) // again: two nodes may have started at once
}

// epochName is the file that tells under which epoch the directory's server registered last.
const epochName = "epoch"

// current looks whether a directory is that of its node's server. upload.Conflict if a server has
// registered as this node since from another copy of it, by which this one is behind.
func current(data, node string, db *sqldb.DB) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := db.Nodes(ctx) // first: the server of this directory may be starting
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(data, epochName))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot read the directory's epoch: %w", err)
		}
		mine, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // without one it is older than all
		for i := range nodes {
			if nodes[i].ID == node && nodes[i].Epoch > mine {
				return upload.Errorf(upload.Conflict, "", node,
					"Another process has started as this node, on another copy of its directory. Keep the one that is to be the node and start gantry serve there.")
			}
		}
		return nil
	}
}

// lead is whether this node does what one does for all; see ingest.Deps.
func (n *node) lead() (meta.Fence, bool) {
	if n.member == nil {
		return meta.Fence{}, false
	}
	return n.member.Lead()
}

// oneStore refuses a directory for the local store that is another database's, whose objects would be garbage
// here, and be deleted; and one that is not the one that all nodes have.
func oneStore(ctx context.Context, c *config.Config, db *sqldb.DB) error {
	if !c.UsesLocal() {
		return nil
	}
	dir := storeDir(c)
	id, err := db.Identity(ctx)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("store_dir: %w", err)
	}
	marked := map[string]bool{}
	for _, entry := range entries {
		node, ok := strings.CutPrefix(entry.Name(), storeMark)
		if !ok {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return fmt.Errorf("cannot read whose the store's directory is: %w", err)
		}
		if other := strings.TrimSpace(string(text)); other != id {
			return fmt.Errorf("store_dir: %s belongs to database %s, says %s, and not to %s: correct --store-dir or --database", dir, other, entry.Name(), id)
		}
		marked[node] = true
	}
	nodes, err := db.Nodes(ctx)
	if err != nil {
		return err
	}
	for i := range nodes {
		if !nodes[i].Forgotten && !marked[nodes[i].ID] {
			return fmt.Errorf("store_dir: %s is not the directory that node %s has: name the one that all nodes share, under the path by which this node sees it", dir, nodes[i].ID)
		}
	}
	return nil
}
