package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"gantry/store"
	"gantry/store/memory"
	"gantry/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return memory.New() }, storetest.Caps{
		AnyKey: true, Memory: storetest.InMemory,
		Alter: func(_ *testing.T, s store.Store, key string, change func([]byte) []byte) {
			s.(*memory.Store).Alter(key, change)
		},
	})
}
