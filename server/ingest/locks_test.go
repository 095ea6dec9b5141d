package ingest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gantry/upload"
)

func TestKeyLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyLocks
		unlock, err := k.lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for _, free := range []string{"", "", "b"} {
			other, err := k.lock(t.Context(), free)
			if err != nil {
				t.Fatal(err)
			}
			defer other()
		}
		// A slow client with the lock does not make those who wait pile up.
		start := time.Now()
		if _, err := k.lock(t.Context(), "a"); !errors.Is(err, upload.Unavailable) || time.Since(start) != keyWait {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.lock(ctx, "a"); !errors.Is(err, upload.Canceled) {
			t.Errorf("a client that went away: %v", err)
		}
		// It is handed on, to one after the other.
		time.AfterFunc(time.Second, unlock)
		for range 3 {
			next, err := k.lock(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Second, next)
		}
		time.Sleep(2 * time.Second)
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.locks) != 1 { // "b"
			t.Errorf("%d locks are kept", len(k.locks))
		}
	})
}
