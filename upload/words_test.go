package upload_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/upload"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-v]{26}$`)
	seen := map[string]bool{}
	var last string
	for i := range 1000 {
		id := upload.NewID(noon.Add(time.Duration(i) * time.Millisecond))
		if !form.MatchString(id) || seen[id] || id <= last {
			t.Fatalf("id %q after %q", id, last)
		}
		seen[id], last = true, id
	}
	if a, b := upload.NewID(noon), upload.NewID(noon); a == b {
		t.Errorf("one id twice: %s", a)
	}
}

func TestUploadIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		node := upload.NewNodeID()
		id := upload.NewUploadID(node)
		if got, ok := upload.ParseUploadID(id); !ok || got != node || seen[id] {
			t.Fatalf("%q: node %q, %v", id, got, ok)
		}
		seen[id] = true
	}
	random := strings.Repeat("0", 26)
	for _, bad := range []string{
		"", "-", "a", "a-", "-" + random, random, "a-" + random[1:], "a-" + random + "0", "A-" + random,
		"a-" + random[1:] + "w", "a-" + random[1:] + "/", "../../a-" + random, "a-" + random + "/..", "a\x00-" + random,
		"a--" + random[1:], "a-b-" + random, strings.Repeat("a", 17) + "-" + random, "ä-" + random, " a-" + random,
	} {
		if node, ok := upload.ParseUploadID(bad); ok {
			t.Errorf("%q is taken for an id of node %q", bad, node)
		}
	}
}

// An id that is accepted is safe as a part of a file name.
func FuzzParseUploadID(f *testing.F) {
	f.Add(upload.NewUploadID("node1"))
	f.Add("../etc/passwd-00000000000000000000000000")
	form := regexp.MustCompile(`^[0-9a-v]{1,16}-[0-9a-v]{26}$`)
	f.Fuzz(func(t *testing.T, id string) {
		node, ok := upload.ParseUploadID(id)
		if ok != form.MatchString(id) {
			t.Fatalf("%q: %v", id, ok)
		}
		if ok && !strings.HasPrefix(id, node+"-") {
			t.Fatalf("%q: node %q", id, node)
		}
	})
}

func TestDigestsInText(t *testing.T) {
	t.Parallel()
	want := upload.SumSHA1([]byte("abc"))
	if want.String() != "a9993e364706816aba3e25717850c26c9cd0d89d" {
		t.Fatalf("SHA-1 of abc: %s", want)
	}
	for _, text := range []string{want.String(), strings.ToUpper(want.String())} {
		if got, err := upload.ParseSHA1(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "a9993e", want.String() + "0", want.String()[:39] + "g", strings.Repeat("é", 20)} {
		if _, err := upload.ParseSHA1(bad); !errors.Is(err, upload.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var root upload.Root
	if err := json.Unmarshal([]byte(`"`+strings.Repeat("0f", 32)+`"`), &root); err != nil || root.IsZero() || root.String() != strings.Repeat("0f", 32) {
		t.Errorf("root %s, %v", root, err)
	}
	if err := root.UnmarshalText([]byte(want.String())); !errors.Is(err, upload.Invalid) {
		t.Errorf("a SHA-1 is taken for a root: %v", err)
	}
}

func TestSpecJSONLeavesOutWhatIsNotSet(t *testing.T) {
	t.Parallel()
	spec := upload.Spec{ID: "i", Owner: "o", Name: "n", Size: upload.UnknownSize, ChunkSize: upload.MinChunkSize, CreatedAt: noon}
	got, err := json.Marshal(spec)
	if err != nil || string(got) != `{"id":"i","owner":"o","name":"n","size":-1,"chunk_size":1048576,"created_at":"2026-03-04T12:00:00Z"}` {
		t.Errorf("got %s, %v", got, err)
	}
	var back upload.Spec
	if err := json.Unmarshal(got, &back); err != nil || !back.SHA1.IsZero() || back.Size != upload.UnknownSize {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

func TestObjectKeysAreNeverShared(t *testing.T) {
	t.Parallel()
	a := &upload.Blob{ID: "one", SHA1: upload.SumSHA1([]byte("abc"))}
	b := &upload.Blob{ID: "two", SHA1: a.SHA1}
	if key := upload.ObjectKeyFor(a); key != "a9/a9993e364706816aba3e25717850c26c9cd0d89d-one" || key == upload.ObjectKeyFor(b) {
		t.Errorf("%s and %s", key, upload.ObjectKeyFor(b))
	}
}

func TestTransferStates(t *testing.T) {
	t.Parallel()
	final := []upload.TransferState{upload.TransferStored, upload.TransferDead, upload.TransferCancelled}
	for _, s := range append(final, upload.TransferQueued, upload.TransferRunning, upload.TransferVerifying, upload.TransferRetrying) {
		if s.Final() != slices.Contains(final, s) {
			t.Errorf("%s: final %v", s, s.Final())
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"a", "photo.jpg", ".bashrc", "...", "秒传.bin", `back\slash`, "a b", "na\u202eme", "%2e%2e", "con", "a:b", strings.Repeat("x", upload.MaxNameBytes),
	} {
		if err := upload.CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", "a/b", "/", "a\x00b", "a\r\nb", "a\tb", "\x7f", "a\u0085b", "\xff\xfe", strings.Repeat("x", upload.MaxNameBytes+1),
	} {
		if err := upload.CheckName(bad); !errors.Is(err, upload.InvalidName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "a", "photos/2026", "a/..b/c..", "秒/传", strings.Repeat("x", upload.MaxPathBytes)} {
		if err := upload.CheckPath(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "./a", "a\x00/b", "a\n", "\xc3", strings.Repeat("x", upload.MaxPathBytes+1),
	} {
		if err := upload.CheckPath(bad); !errors.Is(err, upload.InvalidName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestMetadataAndContentType(t *testing.T) {
	t.Parallel()
	limit := strings.Repeat("v", upload.MaxMetadataBytes-1)
	if err := upload.CheckMetadata(map[string]string{"k": limit}); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]map[string]string{
		"one byte too many": {"k": limit + "v"},
		"too many in all":   {"k": limit, "l": ""},
		"empty key":         {"": "v"},
		"control in a key":  {"a\nb": "v"},
		"value not UTF-8":   {"k": "\xff"},
	} {
		if err := upload.CheckMetadata(bad); !errors.Is(err, upload.InvalidName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := upload.CheckContentType("text/plain; charset=utf-8"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"text/plain\r\nX-Evil: 1", strings.Repeat("x", upload.MaxTypeBytes+1), "\xff"} {
		if err := upload.CheckContentType(bad); !errors.Is(err, upload.InvalidName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, limit int64
		want        error
	}{
		{0, 0, nil},
		{10, 10, nil},
		{11, 10, upload.TooLarge},
		{math.MaxInt64, upload.MaxSize, upload.TooLarge},
		{-1, 10, upload.InvalidSize},
		{math.MinInt64, 10, upload.InvalidSize},
	} {
		if err := upload.CheckSize(c.size, c.limit); !errors.Is(err, c.want) {
			t.Errorf("%d of %d: %v, want %v", c.size, c.limit, err, c.want)
		}
	}
}

func TestEveryKindHasAStableCode(t *testing.T) {
	t.Parallel()
	form, seen := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`), map[string]bool{}
	for _, k := range upload.Kinds() {
		if !form.MatchString(k.Code()) || seen[k.Code()] {
			t.Errorf("kind %d: code %q", k, k.Code())
		}
		seen[k.Code()] = true
		if strings.Contains(k.Error(), "_") {
			t.Errorf("kind %d: text %q", k, k.Error())
		}
	}
	if got := upload.Kind(200).Code(); got != "internal" {
		t.Errorf("an unknown kind has the code %q", got)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	cause := fmt.Errorf("reading: %w", io.ErrUnexpectedEOF)
	err := fmt.Errorf("outside: %w", upload.Wrap(upload.ShortBody, "op", "id1", cause))
	if !errors.Is(err, upload.ShortBody) || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, upload.NotFound) {
		t.Errorf("%v does not tell what it is", err)
	}
	if e, ok := errors.AsType[*upload.Error](err); !ok || e.ID != "id1" || e.Op != "op" {
		t.Errorf("got %#v", e)
	}
	if upload.Wrap(upload.NotFound, "op", "", nil) != nil {
		t.Error("nil was wrapped")
	}
	if got := upload.KindOf(upload.Wrap(upload.Unavailable, "outer", "", err)); got != upload.ShortBody {
		t.Errorf("wrapping changed the kind to %v", got)
	}
	if got := upload.KindOf(upload.Wrap(upload.Unavailable, "op", "", io.EOF)); got != upload.Unavailable {
		t.Errorf("kind %v", got)
	}
	if got := upload.KindOf(fmt.Errorf("x: %w", upload.Gone)); got != upload.Gone {
		t.Errorf("a bare kind is %v", got)
	}
	if upload.KindOf(io.EOF) != upload.Internal || upload.KindOf(nil) != upload.Internal {
		t.Error("an unclassified error is not internal")
	}
	for want, err := range map[string]error{
		"op: id1: short body: reading: unexpected EOF": upload.Wrap(upload.ShortBody, "op", "id1", cause),
		"A name is 3 bytes.":                           upload.Errorf(upload.InvalidName, "", "", "A name is %d bytes.", 3),
		"not found":                                    &upload.Error{Kind: upload.NotFound},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err.Error(), want)
		}
	}
}
