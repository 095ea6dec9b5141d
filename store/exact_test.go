package store_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"gantry/store"
	"gantry/store/memory"
	"gantry/upload"
)

func TestAtEnd(t *testing.T) {
	s := memory.New()
	put(t, s, "00/a", "12345")
	for _, c := range []struct {
		key            string
		offset, length int64
		want           error // nil: nothing, and no failure
	}{
		{"00/a", 5, -1, nil},
		{"00/a", 5, 3, nil},
		{"00/a", 2, 0, nil},
		{"00/a", 0, 0, nil},
		{"00/a", 6, -1, upload.BadRange},
		{"00/a", 6, 0, upload.BadRange},
		{"00/none", 0, -1, upload.NotFound},
		{"00/a", 4, -1, upload.Unavailable},
		{"00/a", 0, 5, upload.Unavailable},
	} {
		r, err := store.AtEnd(t.Context(), s, "test", c.key, c.offset, c.length)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		if data, err := io.ReadAll(r); len(data) > 0 || err != nil || r.Close() != nil {
			t.Errorf("%+v: read %q, %v", c, data, err)
		}
	}
}

func TestExact(t *testing.T) {
	same := func(_, _ string, err error) error { return err }
	for text, want := range map[string]error{"123": upload.Unavailable, "1234": nil, "": upload.Unavailable} {
		got, err := io.ReadAll(store.Exact("test", "00/a", io.NopCloser(strings.NewReader(text)), 4, same))
		if !errors.Is(err, want) || string(got) != text {
			t.Errorf("%q of 4 bytes: read %q, %v", text, got, err)
		}
	}
}
