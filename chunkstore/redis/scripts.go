package redis

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/upload"
)

// An upload is one hash, so that it is there whole or not at all, whatever is evicted or expires. Its
// fields: spec (JSON), put (which Put this is from), server and fresh (until when readers believe it, in that server's time, ms),
// size, bytes, hashed, updated (Unix µs), and chunks (the bitmap). Lua's numbers are not written back:
// it would round them.

// markScript: KEYS upload; ARGV put server fresh ttl index length size hashed updated. Returns whether the
// hash was there, as that Put had left it on this server, and the time.
var markScript = redis.NewScript(1, `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local u = redis.call('HMGET', KEYS[1], 'put', 'server', 'fresh', 'hashed', 'updated', 'chunks')
if u[1] ~= ARGV[1] or u[2] ~= ARGV[2] then return {0, now} end
local set = {}
local function raise(field, have, want)
	if tonumber(want) > tonumber(have) then set[#set+1] = field; set[#set+1] = want end
end
raise('fresh', u[3], ARGV[3])
raise('hashed', u[4], ARGV[8])
raise('updated', u[5], ARGV[9])
if tonumber(ARGV[7]) >= 0 then set[#set+1] = 'size'; set[#set+1] = ARGV[7] end
local chunks, at = u[6], math.floor(ARGV[5] / 8) + 1
if #chunks < at then chunks = chunks .. string.rep('\0', at - #chunks) end
local have = chunks:byte(at)
local want = bit.bor(have, bit.rshift(128, ARGV[5] % 8))
if want ~= have then
	set[#set+1] = 'chunks'; set[#set+1] = chunks:sub(1, at - 1) .. string.char(want) .. chunks:sub(at + 1)
	redis.call('HINCRBY', KEYS[1], 'bytes', ARGV[6])
end
if #set > 0 then redis.call('HSET', KEYS[1], unpack(set)) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, now}
`)

// putScript: KEYS upload; ARGV ttl field value... Returns the server of the Put before, and the time.
var putScript = redis.NewScript(1, `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local was = redis.call('HGET', KEYS[1], 'server') or ''
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {was, now}
`)

func milliseconds(ttl time.Duration) int64 { return max(1, ttl.Milliseconds()) }

// mark puts a chunk into the bitmap; false if the upload is not there as that Put left it.
func (c *conn) mark(key, put string, fresh int64, ttl time.Duration, index int, length int64, u *upload.Upload) (bool, error) {
	reply, err := redis.Int64s(markScript.Do(c, key, put, c.server, fresh, milliseconds(ttl), index, length,
		u.Size, u.HashedBytes, u.UpdatedAt.UnixMicro()))
	if err != nil {
		return false, err
	}
	if len(reply) != 2 {
		return false, errReply
	}
	c.saw(reply[1])
	return reply[0] == 1, nil
}

// errReply: a reply of another shape than the script's.
var errReply = errors.New("unexpected reply")

// put writes an upload whole, and returns the server that it was put to before, "" if it was not there.
func (c *conn) put(key, put string, fresh int64, ttl time.Duration, u *upload.Upload) (was string, err error) {
	spec, err := json.Marshal(&u.Spec)
	if err != nil {
		return "", err
	}
	// All bytes that the bitmap will have: a value that grows is moved again and again.
	chunks := make([]byte, (bitmapChunks(u)+7)/8)
	copy(chunks, u.Received.Bytes())
	reply, err := redis.Values(putScript.Do(c, key, milliseconds(ttl), "put", put,
		"server", c.server, "fresh", fresh, "spec", spec, "size", u.Size, "bytes", u.ReceivedBytes,
		"hashed", u.HashedBytes, "updated", u.UpdatedAt.UnixMicro(), "chunks", chunks))
	if err != nil {
		return "", err
	}
	var now int64
	if _, err := redis.Scan(reply, &was, &now); err != nil {
		return "", err
	}
	c.saw(now)
	return was, nil
}

func bitmapChunks(u *upload.Upload) int {
	if u.Size < 0 {
		return u.Received.Last() + 1
	}
	return u.Layout().Count()
}

// seen is an upload as it is in Redis.
type seen struct {
	upload   upload.Upload
	believed bool // it has every chunk that was acknowledged before it was asked for
}

var seenFields = []any{"server", "fresh", "spec", "size", "bytes", "hashed", "updated", "chunks"}

// get reads an upload, nil if it is not there.
func (c *conn) get(key string) (*seen, error) {
	if err := c.sendGet(key); err != nil {
		return nil, err
	}
	if err := c.Send("TIME"); err != nil { // after the upload: it was believable then
		return nil, err
	}
	if err := c.Flush(); err != nil {
		return nil, err
	}
	values, err := redis.Values(c.Receive())
	now, timeErr := c.receiveTime()
	if err := errors.Join(err, timeErr); err != nil {
		return nil, err
	}
	return c.parse(values, now)
}

func (c *conn) sendGet(key string) error {
	return c.Send("HMGET", append([]any{key}, seenFields...)...)
}

// parse reads what sendGet asked for.
func (c *conn) parse(values []any, now int64) (*seen, error) {
	if len(values) != len(seenFields) {
		return nil, errReply
	}
	for _, v := range values {
		if v == nil { // all of them are
			return nil, nil //nolint:nilnil // not there
		}
	}
	var s seen
	var server string
	var spec, chunks []byte
	var fresh, updated int64
	u := &s.upload
	if _, err := redis.Scan(values, &server, &fresh, &spec, &u.Size, &u.ReceivedBytes, &u.HashedBytes, &updated, &chunks); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(spec, &u.Spec); err != nil {
		return nil, err
	}
	u.UpdatedAt, u.Received = time.UnixMicro(updated).UTC(), upload.ChunkSetFromBytes(chunks)
	s.believed = server == c.server && now < fresh
	c.odd = c.odd || server != c.server
	return &s, nil
}
