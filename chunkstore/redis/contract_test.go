package redis

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/chunkstore"
	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/memory"
	"gantry/internal/testenv"
	"gantry/upload"
)

// newView opens a view that has nothing yet: all its keys have a prefix of their own.
func newView(t testing.TB, address string, opt Options) *View {
	t.Helper()
	if opt.Prefix == "" {
		opt.Prefix = "test-" + upload.NewNodeID() + ":"
	}
	v, err := New(address, opt)
	if err != nil {
		t.Fatal(err)
	}
	v.started = v.started.Add(-time.Hour) // the process before this one ended long ago
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// at runs a command where key is, as an operator would by hand.
func at(t testing.TB, v *View, key, command string, args ...any) any {
	t.Helper()
	var reply any
	err := v.servers.do(context.Background(), key, func(c *conn) (err error) {
		reply, err = c.Do(command, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestContract(t *testing.T) {
	address := testenv.Address(t, testenv.Redis)
	chunkstoretest.RunView(t, func(t *testing.T) chunkstore.View { return newView(t, address, Options{}) })
}

func TestContractCluster(t *testing.T) {
	address := testenv.Address(t, testenv.RedisCluster)
	chunkstoretest.RunView(t, func(t *testing.T) chunkstore.View { return newView(t, address, Options{}) })
}

// What ingest stands on: the shared view with the node's own beside it.
func TestContractFallback(t *testing.T) {
	address := testenv.Address(t, testenv.Redis)
	chunkstoretest.RunView(t, func(t *testing.T) chunkstore.View {
		return &chunkstore.Fallback{Shared: newView(t, address, Options{}), Own: memory.New()}
	})
}

// The same while there is no Redis at all.
func TestContractAlone(t *testing.T) {
	chunkstoretest.RunView(t, func(t *testing.T) chunkstore.View {
		return &chunkstore.Fallback{Shared: newView(t, "redis://127.0.0.1:1", Options{}), Own: memory.New()}
	})
}

// Every key expires, so that nothing is left behind by a node that never comes back.
func TestEverythingExpires(t *testing.T) {
	for _, server := range []testenv.Server{testenv.Redis, testenv.RedisCluster} {
		t.Run(string(server), func(t *testing.T) {
			v := newView(t, testenv.Address(t, server), Options{})
			o := chunkstoretest.NewOwner(3)
			spec := o.Spec()
			spec.Key = "k"
			ctx := t.Context()
			c := upload.NewChallenge(1<<30, [32]byte{}, time.Now())
			c.Owner = spec.Owner
			_, err := v.CountFailure(ctx, spec.Owner, time.Now())
			_, genErr := v.generation(ctx)
			for _, err := range []error{v.Begin(ctx, spec, time.Minute), v.PutChallenge(ctx, c), err, genErr} {
				if err != nil {
					t.Fatal(err)
				}
			}
			expires := func(key string, most time.Duration) {
				t.Helper()
				ms, err := redis.Int64(at(t, v, key, "PTTL", key), nil)
				if left := time.Duration(ms) * time.Millisecond; err != nil || left <= most/2 || left > most {
					t.Errorf("%s expires in %v, want nearly %v (%v)", key, left, most, err)
				}
			}
			expires(v.uploadKey(spec.ID), time.Minute)
			expires(v.listKey(spec.Owner), time.Minute)
			expires(v.claimKey(spec.Owner, spec.Key), time.Minute)
			expires(v.challengeKey(c.ID), upload.ChallengeTTL)
			expires(v.askedKey(spec.Owner), upload.ChallengeTTL)
			expires(v.failuresKey(spec.Owner), chunkstore.FailureWindow)
			for _, key := range v.servers.samples(ctx, v.opt.Prefix+"gantry:generation") {
				expires(key, generationTTL)
			}
			// A chunk puts the expiry off, of the list with the next Put.
			o.TTL = time.Hour
			o.Take(1)
			if err := v.Mark(ctx, spec.ID, 1, o.Truth); err != nil {
				t.Fatal(err)
			}
			expires(v.uploadKey(spec.ID), time.Hour)
			if err := v.Put(ctx, spec.ID, o.Truth); err != nil {
				t.Fatal(err)
			}
			expires(v.listKey(spec.Owner), time.Hour)
			expires(v.claimKey(spec.Owner, spec.Key), time.Hour)
			// One that lives shorter does not take the others with it.
			short := chunkstoretest.NewOwner(1)
			if err := v.Begin(ctx, short.Spec(), 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			expires(v.listKey(spec.Owner), time.Hour)
			// What has expired is skipped, and taken out of the list.
			time.Sleep(60 * time.Millisecond)
			if list, err := v.List(ctx, spec.Owner, "", 10); err != nil || len(list) != 1 || list[0].ID != spec.ID {
				t.Errorf("listed: %v, %v", list, err)
			}
			if n, err := redis.Int(at(t, v, v.listKey(spec.Owner), "ZCARD", v.listKey(spec.Owner)), nil); n != 1 || err != nil {
				t.Errorf("%d entries in the list (%v)", n, err)
			}
		})
	}
}

// What clients can make Redis remember is bounded.
func TestBounded(t *testing.T) {
	v, now := newView(t, testenv.Address(t, testenv.Redis), Options{}), time.Now()
	var first upload.Challenge
	for i := range chunkstore.MaxChallenges + 1 {
		c := upload.NewChallenge(1<<20, [32]byte{}, now.Add(time.Duration(i)*time.Millisecond))
		c.Owner = "greedy"
		if err := v.PutChallenge(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = c
		}
	}
	if _, err := v.TakeChallenge(t.Context(), first.ID, now); upload.KindOf(err) != upload.NotFound {
		t.Errorf("the oldest challenge is still there: %v", err)
	}
	for i := range 2 * chunkstore.MaxFailures {
		if n, err := v.CountFailure(t.Context(), "greedy", now.Add(time.Duration(i))); err != nil || n > chunkstore.MaxFailures {
			t.Fatalf("%d failures, %v", n, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"redis://h:1":                                  "",
		"rediss://u:p@h:1/3":                           "",
		"redis://h:1,redis://h:2":                      "",
		"redis+sentinel://:p@h:1,h:2,h:3/master":       "",
		"redis+sentinel://h:1/m/2?sentinel_password=x": "",
		"http://h":              "none of redis",
		"redis://":              "host is missing",
		"redis://:secret@h:1 x": "not a URL",
		"redis+sentinel://h:1":  "master's name",
		"redis+sentinel://h/m,redis+sentinel://i/m": "one URL",
		"redis://h:1,h:2": "several hosts",
		"h:1":             "",
	} {
		_, err := parse(address)
		if address == "h:1" {
			want = "none of redis"
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password is in the error: %v", address, err)
		}
	}
}

// The slots of keys, from the Redis Cluster specification and CLUSTER KEYSLOT.
func TestSlots(t *testing.T) {
	for key, slot := range map[string]int{"": 0, "123456789": 0x31c3, "{user1000}.following": 3443, "foo{}{bar}": 8363, "foo{{bar}}zap": 4015, "foo{bar}{zap}": 5061} {
		if got := slotOf(key); got != slot {
			t.Errorf("%q is in slot %d, want %d", key, got, slot)
		}
	}
}

// ttlOfTests is how long uploads live here.
const ttlOfTests = time.Hour
