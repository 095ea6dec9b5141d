package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/chunkstore/disk"
	"gantry/chunkstore/redis"
	"gantry/cluster"
	"gantry/config"
	"gantry/internal/vfs"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/server/forward"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/transfer"
	"gantry/upload"
)

// Files in the data directory.
const (
	databaseName = "gantry.db"
	nodeName     = "node" // has the node's id
)

// The locks of a data directory: one process receives uploads, and one, which may be another, does the
// transfers. Two of either would delete each other's files.
const (
	nodeLock     = "lock"
	transferLock = "lock.transfer"
)

// node is the parts of one node over its data directory, wired together. The directory is locked.
type node struct {
	id      string
	locks   []*vfs.DirLock
	db      *sqldb.DB
	staging *disk.Staging
	stores  *stores
	queue   *wakeup
	redis   *redis.View // nil: none
	ingest  *ingest.Service
	relay   *transfer.Relay
	worker  *transfer.Worker   // nil: a process of its own does the transfers
	member  *cluster.Member    // nil: the database is its own, or it has not joined yet
	forward *forward.Forwarder // nil: there are no other nodes
}

// openNode makes or opens a data directory. A directory that another process uses is an error.
func openNode(ctx context.Context, c *config.Config, reg prometheus.Registerer, log *slog.Logger) (_ *node, err error) {
	dirs := []string{c.Data, filepath.Join(c.Data, "staging")}
	if c.UsesLocal() {
		dirs = append(dirs, storeDir(c))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make the data directory: %w", err)
		}
	}
	n := &node{} // not a result: "return nil, err" would leave nothing to close
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := n.takeLock(c.Data, nodeLock); err != nil {
		return nil, err
	}
	if !c.TransferProcess {
		if err := n.takeLock(c.Data, transferLock); err != nil {
			return nil, fmt.Errorf("another process does the transfers of this node: %w", err)
		}
	}
	if n.id, err = nodeID(c.Data); err != nil {
		return nil, err
	}
	if n.db, err = openDatabase(ctx, c, log); err != nil {
		return nil, err
	}
	stagingFS, err := vfs.OpenOS(filepath.Join(c.Data, "staging"))
	if err != nil {
		return nil, err
	}
	n.staging, err = disk.Open(stagingFS, disk.Options{
		Durability: disk.Durability(c.Durability),
		MinFree:    int64(c.MinFree),
		BootID:     bootID(),
		Log:        log,
	})
	if err != nil {
		return nil, err
	}
	if n.stores, err = openStores(ctx, c, n.id, n.id, n.db); err != nil {
		return nil, err
	}
	if n.queue, err = openQueue(ctx, c, true, !c.TransferProcess, reg, log); err != nil {
		return nil, err
	}
	n.relay = transfer.NewRelay(transfer.RelayOptions{Node: n.id, Republish: c.Lease, Log: log}, transfer.RelayDeps{
		Outbox: n.db, Queue: n.queue.publisher,
	})
	if !c.TransferProcess {
		n.worker = newWorker(c, n.id, n.db, n.staging, n.stores.all, n.queue, log)
	}
	view, err := n.openView(c, reg, log)
	if err != nil {
		return nil, err
	}
	lead := n.lead
	if c.Database == "" {
		lead = nil
	}
	n.ingest = ingest.New(ingest.Options{
		Node:        n.id,
		MaxSize:     int64(c.MaxSize),
		MaxOpen:     c.MaxOpen,
		UploadTTL:   c.UploadTTL,
		DeleteGrace: c.DeleteGrace,
		StageGrace:  c.StagingGrace,
		Scope:       meta.Scope(c.DedupScope),
		Route:       c.StoreFor,
		Direct:      c.DirectUpload,
		Redirect:    redirects(c),
		ScrubRate:   int64(c.ScrubRate),
	}, ingest.Deps{
		Staging: n.staging,
		View:    view,
		DB:      n.db,
		Stores:  n.stores.all,
		Lead:    lead,
		Wake:    n.relay.Wake,
		Metrics: ingest.NewMetrics(reg),
		Log:     log,
	})
	return n, nil
}

func (n *node) takeLock(data, name string) error {
	lock, err := vfs.LockDir(data, name)
	if err == nil {
		n.locks = append(n.locks, lock)
	}
	return err
}

func newWorker(c *config.Config, node string, db *sqldb.DB, staging transfer.Staging, stores map[string]store.Store, q *wakeup, log *slog.Logger) *transfer.Worker {
	deps := transfer.Deps{Outbox: db, Staging: staging, Stores: stores, Fallback: map[string]string{}, Queue: q.consumer}
	for name := range c.Stores {
		deps.Fallback[name] = c.Stores[name].Fallback
	}
	if c.Database != "" { // else a copy of the directory has a database of its own
		deps.Current = current(c.Data, node, db)
	}
	return transfer.NewWorker(transfer.Options{Node: node, Workers: c.Workers, LeaseTTL: c.Lease, Log: log}, deps)
}

// databaseMark is the file that tells which server's database a data directory belongs to.
const databaseMark = "database"

// openDatabase opens the database of the data directory, or that on a server. To one that does not know
// them the bytes in the directory would be garbage, and be deleted: so that is refused.
func openDatabase(ctx context.Context, c *config.Config, log *slog.Logger) (*sqldb.DB, error) {
	opt := sqldb.Options{Log: log, Replicas: c.ReplicaURLs()}
	if c.Database == "" {
		if err := databaseOrNothing(c.Data); err != nil {
			return nil, err
		}
		return sqldb.OpenSQLite(ctx, filepath.Join(c.Data, databaseName), opt)
	}
	if _, err := os.Stat(filepath.Join(c.Data, databaseName)); err == nil {
		return nil, fmt.Errorf("%s has a database of its own, %s: use it without --database, or use another directory", c.Data, databaseName)
	}
	db, err := sqldb.Open(ctx, string(c.Database), opt)
	if err != nil {
		return nil, err
	}
	if err := belongs(ctx, c.Data, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// belongs sees to it that a data directory goes with one database for ever.
func belongs(ctx context.Context, data string, db *sqldb.DB) error {
	id, err := db.Identity(ctx)
	if err != nil {
		return err
	}
	path := filepath.Join(data, databaseMark)
	known, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := nothing(data, "mark of its database, the file "+databaseMark); err != nil {
			return err
		}
		return writeDurably(path, id+"\n")
	case err != nil:
		return fmt.Errorf("cannot read which database the directory belongs to: %w", err)
	case strings.TrimSpace(string(known)) != id:
		return fmt.Errorf("%s belongs to another database, %s, and not to %s: correct --database or --data", data, strings.TrimSpace(string(known)), id)
	}
	return nil
}

// databaseOrNothing refuses a directory that has bytes and no database, as after half a restore. To a
// new database they would all be garbage, and be deleted.
func databaseOrNothing(data string) error {
	if _, err := os.Stat(filepath.Join(data, databaseName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nothing(data, databaseName)
}

// nothing refuses a directory that has bytes and lacks what tells about them.
func nothing(data, lacks string) error {
	for _, pattern := range []string{"staging/*.data", "store/*"} {
		if found, err := filepath.Glob(filepath.Join(data, pattern)); err != nil || len(found) > 0 {
			return errors.Join(err, fmt.Errorf("%s has files (%s) but no %s; restore that from a backup, or use another directory",
				data, pattern, lacks))
		}
	}
	return nil
}

// close ends everything in the opposite order; the database is last but for the locks.
func (n *node) close() error {
	var errs []error
	if n.forward != nil {
		n.forward.Close()
	}
	if n.queue != nil {
		errs = append(errs, n.queue.close())
	}
	if n.redis != nil {
		errs = append(errs, n.redis.Close())
	}
	if n.staging != nil {
		errs = append(errs, n.staging.Close())
	}
	if n.stores != nil {
		errs = append(errs, n.stores.close())
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	for _, lock := range n.locks {
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// nodeID reads the node's name from its data directory, or gives it one at the first start.
func nodeID(data string) (string, error) {
	path := filepath.Join(data, nodeName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id := upload.NewNodeID()
		return id, writeDurably(path, id+"\n")
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the node's id: %w", err)
	}
	id := strings.TrimSpace(string(text))
	if _, ok := upload.ParseUploadID(upload.NewUploadID(id)); !ok {
		return "", fmt.Errorf("%s does not contain a node id; restore it from a backup, or delete it if the directory has no uploads", path)
	}
	return id, nil
}

// writeDurably replaces a small file so that a crash leaves the old one or the new one.
func writeDurably(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// bootID changes with every start of the operating system: as long as it is the same, what was
// written to the page cache is still there. Where there is none every start counts as a new one.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown-" + upload.NewNodeID()
	}
	return strings.TrimSpace(string(text))
}
