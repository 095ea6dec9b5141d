package redis

import (
	"context"
	"errors"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/upload"
)

// enlistScript: KEYS an owner's list; ARGV id ttl. The list lives as long as the longest of its uploads.
var enlistScript = redis.NewScript(1, `
redis.call('ZADD', KEYS[1], 0, ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
`)

// claimScript: KEYS a claim; ARGV id ttl. Returns the id that has it.
var claimScript = redis.NewScript(1, `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
`)

// releaseScript: KEYS a claim; ARGV id. A claim that is another upload's by now stays.
var releaseScript = redis.NewScript(1, `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
`)

// enlist puts an upload into its owner's list, and returns the upload that has its Idempotency-Key: this
// one, unless another was faster. The list and the key are on servers of their own in a cluster, so they
// come after the upload itself: what is found there is there.
func (v *View) enlist(ctx context.Context, spec *upload.Spec, ttl time.Duration) (holder string, err error) {
	holder = spec.ID
	if spec.Key != "" {
		key := v.claimKey(spec.Owner, spec.Key)
		err = v.do(ctx, "claim", key, func(c *conn) error {
			holder, err = redis.String(claimScript.Do(c, key, spec.ID, milliseconds(ttl)))
			return err
		})
	}
	if err == nil {
		key := v.listKey(spec.Owner)
		err = v.do(ctx, "enlist", key, func(c *conn) error {
			_, err := enlistScript.Do(c, key, spec.ID, milliseconds(ttl))
			return err
		})
	}
	if err != nil {
		v.missed.Store(true)
	}
	return holder, err
}

// delist takes an upload out of its owner's list and gives up its key.
func (v *View) delist(ctx context.Context, spec *upload.Spec) error {
	var released error
	if spec.Key != "" {
		key := v.claimKey(spec.Owner, spec.Key)
		released = v.do(ctx, "release", key, func(c *conn) error {
			_, err := releaseScript.Do(c, key, spec.ID)
			return err
		})
	}
	return errors.Join(released, v.drop(ctx, spec.Owner, []string{spec.ID}))
}

// drop takes ids out of an owner's list.
func (v *View) drop(ctx context.Context, owner string, ids []string) error {
	key := v.listKey(owner)
	return v.do(ctx, "delist", key, func(c *conn) error {
		_, err := c.Do("ZREM", redis.Args{key}.AddFlat(ids)...)
		return err
	})
}

// ByKey is part of chunkstore.View.
func (v *View) ByKey(ctx context.Context, owner, key string) (string, error) {
	if key == "" {
		return "", nil
	}
	var id string
	claim := v.claimKey(owner, key)
	err := v.do(ctx, "key", claim, func(c *conn) (err error) {
		id, err = redis.String(c.Do("GET", claim))
		if errors.Is(err, redis.ErrNil) {
			id, err = "", nil
		}
		return err
	})
	return id, upload.Wrap(upload.Unavailable, "chunkstore.ByKey", "", err)
}

// List is part of chunkstore.View.
func (v *View) List(ctx context.Context, owner, after string, limit int) ([]upload.Upload, error) {
	const op = "chunkstore.List"
	var found []upload.Upload
	for len(found) < limit {
		want := limit - len(found)
		ids, err := v.ids(ctx, owner, after, want)
		if err != nil {
			return nil, upload.Wrap(upload.Unavailable, op, "", err)
		}
		if len(ids) == 0 {
			break
		}
		after = ids[len(ids)-1]
		uploads, gone, err := v.fetch(ctx, ids)
		if err != nil {
			return nil, upload.Wrap(upload.Unavailable, op, "", err)
		}
		found = append(found, uploads...)
		if len(gone) > 0 { // expired, or lost: then they are put back with all the rest
			if err := v.drop(ctx, owner, gone); err != nil {
				return nil, upload.Wrap(upload.Unavailable, op, "", err)
			}
		}
		if len(ids) < want {
			break
		}
	}
	return found, nil
}

// ids reads a part of an owner's list.
func (v *View) ids(ctx context.Context, owner, after string, limit int) (ids []string, err error) {
	key, from := v.listKey(owner), "-"
	if after != "" {
		from = "(" + after
	}
	err = v.do(ctx, "list", key, func(c *conn) error {
		ids, err = redis.Strings(c.Do("ZRANGEBYLEX", key, from, "+", "LIMIT", 0, limit))
		return err
	})
	return ids, err
}

// fetch reads uploads, in the order of ids, and says which are not there.
func (v *View) fetch(ctx context.Context, ids []string) (uploads []upload.Upload, gone []string, err error) {
	keys, all := make([]string, len(ids)), make([]*seen, len(ids))
	for i, id := range ids {
		keys[i] = v.uploadKey(id)
	}
	for _, group := range v.servers.groups(ctx, keys) {
		err := v.do(ctx, "fetch", keys[group[0]], func(c *conn) error { return c.fetch(keys, group, all) })
		if redirected(err) {
			// Slots are on the move: one by one.
			for _, i := range group {
				err := v.do(ctx, "fetch", keys[i], func(c *conn) error { return c.fetch(keys, []int{i}, all) })
				if err != nil {
					return nil, nil, err
				}
			}
		} else if err != nil {
			return nil, nil, err
		}
	}
	for i, s := range all {
		if s == nil {
			gone = append(gone, ids[i])
		} else {
			uploads = append(uploads, s.upload)
		}
	}
	return uploads, gone, nil
}

// fetch reads those of keys that group names into all, in one round trip.
func (c *conn) fetch(keys []string, group []int, all []*seen) error {
	for _, i := range group {
		if err := c.sendGet(keys[i]); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	var failed error
	for _, i := range group { // to the end, or the connection could not be used any more
		values, err := redis.Values(c.Receive())
		if err == nil {
			all[i], err = c.parse(values, 0)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
