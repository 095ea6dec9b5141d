//go:build ceph

package rados

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	ceph "github.com/ceph/go-ceph/rados"

	"gantry/store"
	"gantry/upload"
)

// Check reports whether the pool is there and what the store does in it is allowed. It asks for things that are
// done to an object that is not there: the OSD looks at the capabilities first.
func (s *Store) Check(ctx context.Context) error {
	const op = "rados.Check"
	c, err := s.cluster(ctx)
	if err == nil {
		err = s.there(ctx, c)
	}
	if err != nil {
		return s.classify(op, "", err)
	}
	name := "check-" + rand.Text()
	for _, io := range []*ceph.IOContext{c.heads, c.data} {
		for what, do := range map[string]func() error{
			"read": func() error { _, err := io.Stat(name); return err },
			"write and delete": func() error {
				op := ceph.CreateWriteOp()
				defer op.Release()
				op.AssertExists()
				op.Remove()
				return op.Operate(io, name, ceph.OperationNoFlag)
			},
			"list": func() error {
				list, err := io.Iter()
				if err != nil {
					return err
				}
				defer list.Close()
				list.Next()
				return list.Err()
			},
		} {
			_, refused := call(ctx, s, none(do))
			err := s.classify(op, "", refused)
			if errors.Is(err, upload.Invalid) {
				namespace, nameErr := io.GetNamespace()
				return invalid(op, errors.Join(refused, nameErr), "client.%s may not %s in namespace %s of pool %s. Give it the capabilities that docs/stores/rados.md names.",
					s.opt.User, what, namespace, s.opt.Pool)
			}
			if err != nil && !errors.Is(err, upload.NotFound) {
				return err
			}
		}
	}
	return nil
}

// pool is what the monitors say of a pool.
type pool struct {
	Name    string `json:"pool_name"`
	Size    int    `json:"size"`
	MinSize int    `json:"min_size"`
	Flags   string `json:"flags_names"`
	Erasure string `json:"erasure_code_profile"` // "" of a replicated pool
}

// Advise looks at the pool's copies, its fill, and what the OSDs take.
func (s *Store) Advise(ctx context.Context) ([]store.Advice, error) {
	const op = "rados.Advise"
	c, err := s.cluster(ctx)
	if err != nil {
		return nil, s.classify(op, "", err)
	}
	var pools []pool
	if err := s.ask(ctx, c, &pools, map[string]string{"prefix": "osd pool ls", "detail": "detail"}); err != nil {
		return nil, s.classify(op, "", err)
	}
	i := slices.IndexFunc(pools, func(p pool) bool { return p.Name == s.opt.Pool })
	if i < 0 {
		return nil, invalid(op, nil, "There is no pool %q. Make it, or correct the store's settings.", s.opt.Pool)
	}
	advice := append(copies(pools[i]), fill(pools[i]))
	var limit int64
	if err := s.ask(ctx, c, &limit, map[string]string{"prefix": "config get", "who": "osd", "key": "osd_max_object_size"}); err != nil {
		return nil, s.classify(op, "", err)
	}
	a := store.Advice{Setting: "osd_max_object_size"}
	if limit < s.opt.ObjectSize {
		a.Problem = fmt.Sprintf("The OSDs take objects of %d bytes, and the store makes such of %d.", limit, s.opt.ObjectSize)
		a.Mend = "Lower the store's object size, or raise osd_max_object_size."
	}
	return append(advice, a), nil
}

func copies(p pool) []store.Advice {
	size, least := store.Advice{Setting: "pool size"}, store.Advice{Setting: "pool min_size"}
	if p.Erasure == "" && p.Size < 3 {
		size.Problem = fmt.Sprintf("The pool keeps %d of each object.", p.Size)
		size.Mend = fmt.Sprintf("Keep three: ceph osd pool set %s size 3.", p.Name)
	}
	if p.Erasure == "" && p.MinSize < 2 {
		least.Problem = "The pool takes writes when there is only one place to write to. If that fails next they are lost, and Gantry has deleted its own copy."
		least.Mend = fmt.Sprintf("Require two: ceph osd pool set %s min_size 2.", p.Name)
	}
	return []store.Advice{size, least}
}

func fill(p pool) store.Advice {
	a := store.Advice{Setting: "room in the pool"}
	for flag := range strings.SplitSeq(p.Flags, ",") {
		switch flag {
		case "full", "full_quota", "backfillfull", "nearfull":
			a.Problem = fmt.Sprintf("Ceph says that the pool is %s.", flag)
			a.Mend = "Add OSDs, raise the pool's quota if it has one, or delete something."
			return a
		}
	}
	return a
}

// ask asks the monitors.
func (s *Store) ask(ctx context.Context, c *cluster, answer any, command map[string]string) error {
	command["format"] = "json"
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	got, err := call(ctx, s, func() ([]byte, error) {
		out, _, err := c.conn.MonCommand(text)
		return out, err
	})
	if err != nil {
		return err
	}
	return json.Unmarshal(got, answer)
}
