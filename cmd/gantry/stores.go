package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"gantry/config"
	"gantry/internal/vfs"
	"gantry/meta/sqldb"
	"gantry/server"
	"gantry/store"
	"gantry/store/cos"
	"gantry/store/local"
	"gantry/store/oss"
	"gantry/store/rados"
	"gantry/store/s3"
	"gantry/upload"
)

// storeDir is where the local store is.
func storeDir(c *config.Config) string { return cmp.Or(c.StoreDir, filepath.Join(c.Data, "store")) }

// stores are those of the configuration, wired together.
type stores struct {
	all     map[string]store.Store
	closers []io.Closer
}

func (s *stores) close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// openStores makes the stores of the configuration; writer is this process, or those of which one runs at a time: of what
// it leaves half written in a directory the next one of this name clears away. openStores does not speak to them: one that does not answer now is no
// reason not to start.
func openStores(ctx context.Context, c *config.Config, node, writer string, db *sqldb.DB) (_ *stores, err error) {
	s := &stores{all: map[string]store.Store{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	var limiter *rate.Limiter
	if c.TransferRate > 0 {
		limiter = store.NewLimiter(int64(c.TransferRate))
	}
	guard := func(name string, st store.Store, perSecond config.Bytes) store.Store {
		return store.NewGuard(st, store.GuardOptions{Name: name, Rate: int64(perSecond), Limiter: limiter})
	}
	if c.UsesLocal() {
		dir, err := openDir(storeDir(c), writer)
		if err != nil {
			return nil, err
		}
		s.all[config.LocalStore] = guard(config.LocalStore, dir, 0)
	}
	id, err := db.Identity(ctx)
	if err != nil {
		return nil, err
	}
	id = cmp.Or(id, node) // a database in the data directory is the node's
	var copies []string
	for _, name := range slices.Sorted(maps.Keys(c.Stores)) {
		described := c.Stores[name]
		if described.Type == config.TypeMirror {
			copies = append(copies, described.Of...)
			continue
		}
		st, err := s.open(&described, writer)
		if err != nil {
			return nil, fmt.Errorf("stores.%s: %w", name, err)
		}
		s.all[name] = guard(name, store.NewOwned(st, id), described.Rate)
	}
	for name, described := range c.Stores {
		if described.Type != config.TypeMirror {
			continue
		}
		of := make([]store.Store, len(described.Of))
		for i, copied := range described.Of {
			of[i] = s.all[copied]
		}
		s.all[name] = store.NewMirror(of...)
	}
	for _, name := range copies { // to be reached only through their mirror
		delete(s.all, name)
	}
	return s, nil
}

// open makes the store of one entry.
func (s *stores) open(c *config.Store, writer string) (store.Store, error) {
	secret, err := c.SecretKey()
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case config.TypeLocal:
		return openDir(c.Dir, writer)
	case config.TypeS3:
		return s3.New(s3.Options{
			Endpoint: c.Endpoint, Public: c.Public, Bucket: c.Bucket, Region: c.Region, Prefix: c.Prefix, AccessKey: c.AccessKey, SecretKey: string(secret),
			PathStyle: c.PathStyle, PartSize: int64(c.PartSize), Parts: c.Parts,
		})
	case config.TypeOSS:
		return oss.New(oss.Options{
			Endpoint: c.Endpoint, Public: c.Public, Bucket: c.Bucket, Region: c.Region, Prefix: c.Prefix, AccessKey: c.AccessKey, SecretKey: string(secret),
			PathStyle: c.PathStyle, Signature: c.Signature, PartSize: int64(c.PartSize), Parts: c.Parts,
		})
	case config.TypeCOS:
		return cos.New(cos.Options{
			Endpoint: c.Endpoint, Public: c.Public, Bucket: c.Bucket, Region: c.Region, Prefix: c.Prefix, AccessKey: c.AccessKey, SecretKey: string(secret),
			PartSize: int64(c.PartSize), Parts: c.Parts,
		})
	case config.TypeRADOS:
		st, err := rados.New(rados.Options{
			Conf: c.Conf, User: c.User, Keyring: c.Keyring, Pool: c.Pool, Namespace: c.Namespace, ObjectSize: int64(c.ObjectSize), Parallel: c.Parts,
		})
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, st)
		return st, nil
	default: // config knows no others
		return nil, fmt.Errorf("this program has no stores of type %s", c.Type)
	}
}

func openDir(dir, writer string) (*local.Store, error) {
	tree, err := vfs.OpenOS(dir)
	if err != nil {
		return nil, err
	}
	return local.Open(tree, writer)
}

// ownedOf returns what of a store may be another server's: of a mirror each copy.
func ownedOf(st store.Store) []*store.Owned {
	if mirror, ok := store.As[*store.Mirror](st); ok {
		var all []*store.Owned
		for _, copied := range mirror.Copies() {
			all = append(all, ownedOf(copied)...)
		}
		return all
	}
	if owned, ok := store.As[*store.Owned](st); ok {
		return []*store.Owned{owned}
	}
	return nil
}

// claimTime is how long a start waits for a store to say whose it is.
const claimTime = 5 * time.Second

// claim refuses stores that are another server's. One that does not answer is asked again when it is used.
func (s *stores) claim(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	for _, name := range slices.Sorted(maps.Keys(s.all)) {
		for _, owned := range ownedOf(s.all[name]) {
			err := owned.Claim(ctx)
			if err != nil && upload.KindOf(err) != upload.Invalid {
				log.Warn("a store does not answer; transfers to it wait", "store", name, "error", err)
				continue
			}
			if err != nil {
				return fmt.Errorf("stores.%s: %w", name, err)
			}
		}
	}
	return nil
}

// redirects says from which stores clients fetch by themselves, and by which CDN.
func redirects(c *config.Config) map[string]*url.URL {
	all := map[string]*url.URL{}
	for name := range c.Stores {
		described := c.Stores[name]
		off := described.Redirect == "off"
		for _, copied := range described.Of {
			off = off || c.Stores[copied].Redirect == "off"
		}
		if off {
			continue
		}
		all[name] = nil
		if described.CDN != "" {
			all[name], _ = url.Parse(described.CDN) // validated by config
		}
	}
	return all
}

// anyDown reports whether a store is left alone because it does not answer.
func (s *stores) anyDown() bool {
	for _, st := range s.all {
		if d, ok := store.As[store.Downer](st); ok && d.Down() {
			return true
		}
	}
	return false
}

// checks are the stores' parts of /readyz. Advisory: the process does its work without them all the same.
func (s *stores) checks(advisory bool) []server.Check {
	var checks []server.Check
	for _, name := range slices.Sorted(maps.Keys(s.all)) {
		st := s.all[name]
		checks = append(checks, server.Check{Name: "store-" + name, Advisory: advisory, Run: func(ctx context.Context) error {
			_, err := st.Size(ctx, "00/readiness") // no object is called that
			if errors.Is(err, upload.NotFound) {
				return nil
			}
			return err
		}})
	}
	return checks
}
