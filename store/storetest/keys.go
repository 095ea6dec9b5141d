package storetest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"gantry/store"
	"gantry/upload"
)

// wildKeys are keys that a store may confuse with others, or send wrongly. Each has other content.
func wildKeys() []string {
	long := strings.Repeat(strings.Repeat("k", 127)+"/", 4) // 512 bytes, names of a length that file systems take
	return []string{
		"wild/ü 日本語 😀", "wild/\u00e9", "wild/e\u0301", // composed or not, these are two
		"wild/a+b c", "wild/a b+c", "wild/100%", "wild/100%25", "wild/%2F", "wild/?a=b&c=d#e", "wild/;:@,~'()!*$[]{}|^`", `wild/<a href="b">&amp;</a>`,
		"Case/key", "case/key", "CASE/KEY", "case/Key",
		"dots/x", "dots/x.", "dots/x..", "dots/.x", "dots/..x", "dots/...",
		"spaces/x", "spaces/x ", "spaces/ x", "spaces/ x ", "spaces/ ",
		"order/a-b", "order-a/b", "order/a/b", // "/" is after "-" and before letters, and directories are sorted otherwise
		long[:511], long[:510], long[:511] + "k",
	}
}

// keys puts objects under keys of all kinds, or sees them refused.
func (s suite) keys(t *testing.T) {
	st, keys := s.open(t), wildKeys()
	if !s.caps.AnyKey {
		for _, key := range keys {
			if err := st.Put(t.Context(), key, bytes.NewReader([]byte("x")), store.PutOptions{}); !errors.Is(err, upload.Invalid) {
				t.Errorf("Put(%q): %v", key, err)
			}
		}
		if got := listed(t, st); len(got) > 0 {
			t.Errorf("there are objects %q", got)
		}
		return
	}
	content := func(key string) []byte { return []byte("the content of " + key) }
	for _, key := range keys {
		put(t, st, key, content(key))
	}
	for _, key := range keys {
		expect(t, st, key, content(key))
	}
	got := listed(t, st)
	slices.Sort(got)
	slices.Sort(keys)
	if !slices.Equal(got, keys) {
		t.Errorf("listed %q, want %q", got, keys)
	}
	for _, key := range keys {
		if err := st.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	if got := listed(t, st); len(got) > 0 {
		t.Errorf("after all were deleted there are %q", got)
	}
}
