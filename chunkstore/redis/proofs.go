package redis

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/chunkstore"
	"gantry/upload"
)

func (v *View) challengeKey(id string) string { return v.opt.Prefix + "challenge:{" + id + "}" }
func (v *View) askedKey(owner string) string  { return v.opt.Prefix + "challenges:{" + owner + "}" }
func (v *View) failuresKey(who string) string { return v.opt.Prefix + "failures:{" + who + "}" }

// askScript: KEYS an owner's open challenges; ARGV id, when it expires, now, how many there may be, their
// ttl (all times in ms). Returns those that are too many.
var askScript = redis.NewScript(1, `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local over, ids = redis.call('ZCARD', KEYS[1]) - ARGV[4], {}
if over > 0 then
	local popped = redis.call('ZPOPMIN', KEYS[1], over)
	for i = 1, #popped, 2 do ids[#ids+1] = popped[i] end
end
return ids
`)

// challenge is a challenge with what is the server's only.
type challenge struct {
	ID        string
	Leaves    []int64
	ExpiresAt time.Time
	Owner     string
	UploadID  string
	SHA1      upload.SHA1
	BlobID    string
	Root      upload.Root
	Size      int64
}

// PutChallenge is part of chunkstore.View.
func (v *View) PutChallenge(ctx context.Context, c upload.Challenge) error {
	const op = "chunkstore.PutChallenge"
	text, err := json.Marshal(challenge(c))
	if err != nil {
		return upload.Wrap(upload.Internal, op, c.ID, err)
	}
	key := v.challengeKey(c.ID)
	err = v.do(ctx, "challenge", key, func(conn *conn) error {
		_, err := conn.Do("SET", key, text, "PX", milliseconds(upload.ChallengeTTL))
		return err
	})
	if err != nil {
		return upload.Wrap(upload.Unavailable, op, c.ID, err)
	}
	var over []string
	asked := v.askedKey(c.Owner)
	now := c.ExpiresAt.Add(-upload.ChallengeTTL)
	err = v.do(ctx, "ask", asked, func(conn *conn) error {
		over, err = redis.Strings(askScript.Do(conn, asked, c.ID, c.ExpiresAt.UnixMilli(), now.UnixMilli(),
			chunkstore.MaxChallenges, milliseconds(upload.ChallengeTTL)))
		return err
	})
	for _, id := range over {
		key := v.challengeKey(id)
		err = errors.Join(err, v.do(ctx, "forget", key, func(conn *conn) error {
			_, err := conn.Do("DEL", key)
			return err
		}))
	}
	return upload.Wrap(upload.Unavailable, op, c.ID, err)
}

// TakeChallenge is part of chunkstore.View. One that was taken by a command whose answer got lost is gone:
// the client goes on uploading.
func (v *View) TakeChallenge(ctx context.Context, id string, now time.Time) (upload.Challenge, error) {
	const op = "chunkstore.TakeChallenge"
	var text []byte
	key := v.challengeKey(id)
	err := v.do(ctx, "take", key, func(c *conn) (err error) {
		text, err = redis.Bytes(c.Do("GETDEL", key))
		if errors.Is(err, redis.ErrNil) {
			text, err = nil, nil
		}
		return err
	})
	if err != nil {
		return upload.Challenge{}, upload.Wrap(upload.Unavailable, op, id, err)
	}
	var c challenge
	if text != nil {
		if err := json.Unmarshal(text, &c); err != nil {
			return upload.Challenge{}, upload.Wrap(upload.Unavailable, op, id, err)
		}
	}
	if text == nil || !now.Before(c.ExpiresAt) {
		return upload.Challenge{}, upload.Errorf(upload.NotFound, op, id, "There is no such challenge.")
	}
	return upload.Challenge(c), nil
}

// failScript: KEYS somebody's failures; ARGV now, window (µs), how many are kept, a member that nobody else
// has, ttl (ms). Returns how many there are.
var failScript = redis.NewScript(1, `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[1] + ARGV[2], '+inf')
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return redis.call('ZCARD', KEYS[1])
`)

// CountFailure is part of chunkstore.View.
func (v *View) CountFailure(ctx context.Context, who string, now time.Time) (n int, err error) {
	key, member := v.failuresKey(who), upload.NewID(now)
	err = v.do(ctx, "fail", key, func(c *conn) error {
		n, err = redis.Int(failScript.Do(c, key, now.UnixMicro(), chunkstore.FailureWindow.Microseconds(),
			chunkstore.MaxFailures, member, milliseconds(chunkstore.FailureWindow)))
		return err
	})
	return n, upload.Wrap(upload.Unavailable, "chunkstore.CountFailure", "", err)
}

// Failures is part of chunkstore.View. A clock that was set back makes none of them count for longer than a
// window.
func (v *View) Failures(ctx context.Context, who string, now time.Time) (n int, err error) {
	key, window := v.failuresKey(who), chunkstore.FailureWindow
	err = v.do(ctx, "failures", key, func(c *conn) error {
		n, err = redis.Int(c.Do("ZCOUNT", key, exclusive(now.Add(-window)), exclusive(now.Add(window))))
		return err
	})
	return n, upload.Wrap(upload.Unavailable, "chunkstore.Failures", "", err)
}
