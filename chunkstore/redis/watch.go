package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/upload"
)

func exclusive(t time.Time) string { return "(" + strconv.FormatInt(t.UnixMicro(), 10) }

// generationTTL is how long a server remembers its generation without any node asking.
const generationTTL = 24 * time.Hour

// generationScript: KEYS a server's generation; ARGV one to begin with, ttl (ms). It is lost with all the
// rest, so a new one tells that there was a flush.
var generationScript = redis.NewScript(1, `
local generation = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], generation, 'PX', ARGV[2])
return generation
`)

// generation names what the servers have by now.
func (v *View) generation(ctx context.Context) (string, error) {
	var all []string
	for _, key := range v.servers.samples(ctx, v.opt.Prefix+"gantry:generation") {
		err := v.do(ctx, "generation", key, func(c *conn) error {
			one, err := redis.String(generationScript.Do(c, key, upload.NewNodeID(), milliseconds(generationTTL)))
			all = append(all, key+" "+one)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return strings.Join(all, ","), nil
}

// Watch is part of chunkstore.View.
func (v *View) Watch(ctx context.Context, lost func(ctx context.Context) error) {
	tick := time.NewTicker(v.opt.Poll)
	defer tick.Stop()
	var known string
	var done time.Time // zero: at once, because the process before this one may have left something out
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		generation, err := v.generation(ctx)
		if err != nil {
			v.missed.Store(true)
			continue
		}
		missed := v.missed.Swap(false)
		if !missed && generation == known && time.Since(done) < v.opt.Refresh {
			continue
		}
		if lost(ctx) != nil {
			v.missed.Store(true)
			continue
		}
		known, done = generation, time.Now()
	}
}
