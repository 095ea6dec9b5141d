package metatest

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var fileTests = map[string]func(h *harness){
	"update":                     testUpdate,
	"update of nothing":          testUpdateNothing,
	"delete":                     testDelete,
	"list in every order":        testListOrders,
	"list by name and path":      testListFilters,
	"names are text":             testLikeIsEscaped,
	"every byte counts":          testEveryByteCounts,
	"what is longest":            testLongest,
	"ids that are no text":       testIDsThatAreNoText,
	"a sort that does not exist": testUnknownSort,
}

func testUpdate(h *harness) {
	f := h.addStored(alice, "a.txt", body{"x", 0})
	h.pass(time.Hour)
	name, path, metadata := "B.txt", "", map[string]string{"new": "ü"}
	for _, c := range []meta.FileChange{{Name: &name}, {Path: &path}, {Metadata: &metadata}, {}} {
		c.Now = h.now
		got, err := h.db.UpdateFile(h.Context(), alice, f.ID, c)
		h.must(err)
		want := f
		if c.Name != nil {
			want.Name = name
		}
		if c.Path != nil {
			want.Path = path
		}
		if c.Metadata != nil {
			want.Metadata = metadata
		}
		want.UpdatedAt = h.now
		f = want
		h.same("returned", got, want)
		h.same("kept", h.file(alice, f.ID), want)
	}
	found, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Name: "b.TXT", Limit: 10})
	h.must(err)
	equal(h, "found by its new name", len(found), 1)
}

func testUpdateNothing(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	name := "stolen"
	_, err := h.db.UpdateFile(h.Context(), bob, f.ID, meta.FileChange{Name: &name, Now: h.now})
	h.want(upload.NotFound, err)
	_, err = h.db.UpdateFile(h.Context(), alice, "nothing", meta.FileChange{Name: &name, Now: h.now})
	h.want(upload.NotFound, err)
	equal(h, "name", h.file(alice, f.ID).Name, "a")
}

func testDelete(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	h.want(upload.NotFound, h.db.DeleteFile(h.Context(), bob, f.ID, h.now))
	equal(h, "refs", h.blob(f.BlobID).Refs, 1)
	h.pass(time.Minute)
	h.remove(alice, f.ID)
	b := h.blob(f.BlobID)
	equal(h, "refs", b.Refs, 0)
	equal(h, "state", b.State, upload.BlobCondemned)
	equal(h, "condemned at", b.CondemnedAt, h.now)
	h.want(upload.NotFound, h.db.DeleteFile(h.Context(), alice, f.ID, h.now))
	_, err := h.db.File(h.Context(), alice, f.ID)
	h.want(upload.NotFound, err)
}

func testListOrders(h *harness) {
	h.add(bob, "not alice's", body{"bob", 0})
	// Names and sizes repeat, so that ids decide.
	for i, name := range []string{"b", "A", "c", "a", "B", "C", "b", "ä", "Ä", "10", "9"} {
		c := h.commitOf(alice, name, body{name, i})
		c.Sealed.Size = int64(i % 3)
		c.File.CreatedAt = h.now.Add(time.Duration(i/2) * time.Second)
		_, err := h.db.CommitUpload(h.Context(), c)
		h.must(err)
	}
	compare := map[meta.Sort]func(a, b upload.File) int{
		meta.ByCreated: func(a, b upload.File) int { return a.CreatedAt.Compare(b.CreatedAt) },
		meta.ByName:    func(a, b upload.File) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) },
		meta.BySize:    func(a, b upload.File) int { return int(a.Size - b.Size) },
	}
	all := h.list(alice)
	for sort, less := range compare {
		for _, desc := range []bool{false, true} {
			want := slices.Clone(all)
			slices.SortFunc(want, func(a, b upload.File) int {
				c := less(a, b)
				if c == 0 {
					c = strings.Compare(a.ID, b.ID)
				}
				if desc {
					c = -c
				}
				return c
			})
			for _, limit := range []int{1, 3, 100} {
				var got []upload.File
				q := meta.FileQuery{Owner: alice, Sort: sort, Desc: desc, Limit: limit}
				for {
					page, err := h.db.Files(h.Context(), q)
					h.must(err)
					if len(page) > limit {
						h.Fatalf("%d files on a page of %d", len(page), limit)
					}
					if got = append(got, page...); len(page) < limit {
						break
					}
					q.After = &page[len(page)-1]
				}
				if !slices.EqualFunc(got, want, func(a, b upload.File) bool { return a.ID == b.ID }) {
					h.Errorf("by %s, descending %v, pages of %d: got %v, want %v", sort, desc, limit, names(got), names(want))
				}
			}
		}
	}
}

func testListFilters(h *harness) {
	for _, f := range [][2]string{{"", "top.txt"}, {"a", "one.txt"}, {"a", "TWO.txt"}, {"a/b", "deep.txt"}, {"A", "other"}} {
		c := h.commitOf(alice, f[1], body{f[0] + f[1], 0})
		c.File.Path = f[0]
		_, err := h.db.CommitUpload(h.Context(), c)
		h.must(err)
	}
	path := func(p string) *string { return &p }
	for _, c := range []struct {
		name string
		path *string
		want string
	}{
		{"", path(""), "top.txt"},
		{"", path("a"), "one.txt TWO.txt"},
		{"two", path("a"), "TWO.txt"},
		{"T", nil, "deep.txt one.txt other top.txt TWO.txt"},
		{"TXT", nil, "deep.txt one.txt top.txt TWO.txt"},
		{"p.t", nil, "deep.txt top.txt"},
		{"", path("nothing"), ""},
	} {
		got, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Name: c.name, Path: c.path, Sort: meta.ByName, Limit: 10})
		h.must(err)
		equal(h, "name "+c.name, strings.Join(names(got), " "), c.want)
	}
	got, err := h.db.Files(h.Context(), meta.FileQuery{Owner: bob, Name: "t", Limit: 10})
	h.must(err)
	equal(h, "bob's", len(got), 0)
}

func testLikeIsEscaped(h *harness) {
	all := []string{`100%`, `100x`, `a_b`, `axb`, `a\b`, `a!b`, `a'b"c`, `İstanbul`, `秒传`}
	for _, name := range all {
		h.add(alice, name, body{name, 0})
	}
	for search, want := range map[string]string{
		"%": `100%`, "_": `a_b`, `\`: `a\b`, "!": `a!b`, "!_": "", "0%": `100%`, `'`: `a'b"c`, `' OR 1=1 --`: "", "传": `秒传`, "İS": `İstanbul`,
	} {
		got, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Name: search, Limit: 10})
		h.must(err)
		equal(h, "search for "+search, strings.Join(names(got), " "), want)
	}
}

// Databases like to take no notice of a space at the end, of case and of accents.
func testEveryByteCounts(h *harness) {
	names := []string{"a", "a ", "A", "á", "a\u0301", "ａ"}
	for _, name := range names {
		c := h.commitOf(alice, name, body{name, 0})
		c.File.Path, c.Key = name, name
		a, err := h.db.CommitUpload(h.Context(), c)
		h.must(err)
		equal(h, "the file of key "+name, a.File.ID, c.File.ID)
	}
	for _, name := range names {
		got, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Path: &name, Limit: 10})
		h.must(err)
		if len(got) != 1 || got[0].Name != name {
			h.Errorf("in path %q: %d files", name, len(got))
		}
	}
	got, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Name: "a ", Limit: 10})
	h.must(err)
	equal(h, "found with a space", len(got), 1)
	got, err = h.db.Files(h.Context(), meta.FileQuery{Owner: "Alice", Limit: 10})
	h.must(err)
	equal(h, "another owner's", len(got), 0)
}

func testLongest(h *harness) {
	c := h.commitOf(alice, strings.Repeat("Ⱥ", upload.MaxNameBytes/2), body{"x", 0}) // longer in lower case
	c.File.Path = strings.Repeat("ü/", upload.MaxPathBytes/3)
	c.File.ContentType = strings.Repeat("t", upload.MaxTypeBytes)
	c.File.Metadata = map[string]string{"k": strings.Repeat("\x01", upload.MaxMetadataBytes-1)}
	c.Key = strings.Repeat("k", 255)
	a, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	h.same("kept", h.file(alice, c.File.ID), *a.File)
	job := h.lease(a.File.Transfer.ID)
	why := strings.Repeat("€\xff\x00", 50_000)
	h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, h.now, why, h.now))
	got := h.transfer(job.Transfer.ID).LastError
	equal(h, "why it failed", strings.HasPrefix(got, "€") && len(got) > 100_000, true)
}

func testIDsThatAreNoText(h *harness) {
	for _, id := range []string{"\xff", "a\x00b", strings.Repeat("x", 5000)} {
		_, err := h.db.File(h.Context(), alice, id)
		if kind := upload.KindOf(err); kind != upload.NotFound && kind != upload.Invalid {
			h.Errorf("file %q: %v", id[:min(len(id), 9)], err)
		}
		err = h.db.DeleteFile(h.Context(), alice, id, h.now)
		if kind := upload.KindOf(err); kind != upload.NotFound && kind != upload.Invalid {
			h.Errorf("delete %q: %v", id[:min(len(id), 9)], err)
		}
	}
}

func testUnknownSort(h *harness) {
	_, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Sort: "owner; DROP TABLE files", Limit: 10})
	h.want(upload.Invalid, err)
}

var contentTests = map[string]func(h *harness){
	"nothing before the root is known": testNoContentWithoutRoot,
	"the scopes":                       testScopes,
	"condemned content":                testCondemnedContent,
	"bytes that are not there":         testNoContentWithoutBytes,
	"collisions are never offered":     testCollisionIsNotOffered,
}

// find returns the id of the blob that owner would be referred to, "" for none, and checks that the
// hint says the same.
func (h *harness) find(scope meta.Scope, owner string, b body) string {
	h.Helper()
	blob, err := h.db.FindContent(h.Context(), scope, owner, b.sha1(), bodySize)
	if err != nil {
		h.want(upload.NotFound, err)
	} else if blob.Root.IsZero() || blob.SHA1 != b.sha1() || blob.Size != bodySize {
		h.Fatalf("found %+v", blob)
	}
	known, err := h.db.KnowsHint(h.Context(), scope, owner, b.hint(), bodySize)
	h.must(err)
	if blob.ID != "" && !known {
		h.Error("content is found whose hint is not known")
	}
	return blob.ID
}

func (h *harness) hinted(scope meta.Scope, owner string, b body) bool {
	h.Helper()
	known, err := h.db.KnowsHint(h.Context(), scope, owner, b.hint(), bodySize)
	h.must(err)
	return known
}

func testNoContentWithoutRoot(h *harness) {
	b := body{"x", 0}
	f := h.add(alice, "a", b)
	equal(h, "found", h.find(meta.ScopeGlobal, alice, b), "")
	equal(h, "hinted", h.hinted(meta.ScopeGlobal, alice, b), false)
	h.rooted(&f, b)
	equal(h, "found", h.find(meta.ScopeGlobal, alice, b), f.BlobID)
	other, err := h.db.FindContent(h.Context(), meta.ScopeGlobal, alice, b.sha1(), bodySize+1)
	h.want(upload.NotFound, err)
	equal(h, "other", other.ID, "")
	known, err := h.db.KnowsHint(h.Context(), meta.ScopeGlobal, alice, b.hint(), bodySize+1)
	h.must(err)
	equal(h, "hint of another size", known, false)
}

func testScopes(h *harness) {
	b := body{"x", 0}
	f := h.addStored(alice, "a", b)
	for _, c := range []struct {
		scope meta.Scope
		owner string
		want  string
	}{
		{meta.ScopeUser, alice, f.BlobID}, {meta.ScopeUser, bob, ""}, {meta.ScopeGlobal, bob, f.BlobID}, {meta.ScopeOff, alice, ""}, {"", alice, ""},
	} {
		equal(h, string(c.scope)+" "+c.owner, h.find(c.scope, c.owner, b), c.want)
		equal(h, "hint "+string(c.scope)+" "+c.owner, h.hinted(c.scope, c.owner, b), c.want != "")
	}
}

func testCondemnedContent(h *harness) {
	b := body{"x", 0}
	f := h.addStored(alice, "a", b)
	_, err := h.db.CommitInstant(h.Context(), h.commitOf(bob, "b", b), f.BlobID)
	h.must(err)
	h.remove(alice, f.ID)
	// Bob's is left, so it is not alice's any more.
	equal(h, "alice", h.find(meta.ScopeUser, alice, b), "")
	equal(h, "bob", h.find(meta.ScopeUser, bob, b), f.BlobID)
	h.remove(bob, h.list(bob)[0].ID)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobCondemned)
	equal(h, "alice, condemned", h.find(meta.ScopeUser, alice, b), "")
	equal(h, "bob, condemned", h.find(meta.ScopeUser, bob, b), f.BlobID)
	equal(h, "anybody, condemned", h.find(meta.ScopeGlobal, alice, b), f.BlobID)
	// Alice gets it back by a proof: what bob had is not his any more.
	_, err = h.db.CommitInstant(h.Context(), h.commitOf(alice, "a", b), f.BlobID)
	h.must(err)
	equal(h, "bob, revived", h.find(meta.ScopeUser, bob, b), "")
	h.remove(alice, h.list(alice)[0].ID)
	h.collect()
	equal(h, "deleting", h.find(meta.ScopeGlobal, alice, b), "")
	equal(h, "deleting, hint", h.hinted(meta.ScopeGlobal, alice, b), false)
}

func testNoContentWithoutBytes(h *harness) {
	b := body{"x", 0}
	f := h.addStored(alice, "a", b)
	h.must(h.db.MarkLost(h.Context(), f.BlobID, "gone", h.now))
	equal(h, "lost", h.find(meta.ScopeGlobal, alice, b), "")
	equal(h, "lost, hint", h.hinted(meta.ScopeGlobal, alice, b), false)
	// Condemning it does not make its bytes good.
	h.remove(alice, f.ID)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobCondemned)
	equal(h, "lost and condemned", h.find(meta.ScopeGlobal, alice, b), "")
	_, err := h.db.CommitInstant(h.Context(), h.commitOf(alice, "a", b), f.BlobID)
	h.want(upload.NotFound, err)

	// Lost while condemned: the same.
	c := body{"y", 0}
	f = h.addStored(alice, "c", c)
	h.remove(alice, f.ID)
	h.must(h.db.MarkLost(h.Context(), f.BlobID, "gone", h.now))
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobCondemned)
	equal(h, "condemned and lost", h.find(meta.ScopeGlobal, alice, c), "")
	equal(h, "collected", len(h.collect()), 2)
}

func testCollisionIsNotOffered(h *harness) {
	one, two := body{"x", 1}, body{"x", 2}
	first := h.addStored(alice, "one", one)
	second := h.add(bob, "two", two)
	equal(h, "before the second root is known", h.find(meta.ScopeGlobal, alice, one), first.BlobID)
	job, result := h.rooted(&second, two)
	equal(h, "collision", result.Collision, true)
	equal(h, "joined", result.JoinedTo, "")
	h.stored(job)
	equal(h, "found", h.find(meta.ScopeGlobal, alice, one), "")
	equal(h, "found by its owner", h.find(meta.ScopeUser, alice, one), "")
	if h.file(alice, first.ID).BlobID == h.file(bob, second.ID).BlobID {
		h.Error("two contents became one blob")
	}
	// Also while one of them is lost or condemned.
	h.must(h.db.MarkLost(h.Context(), second.BlobID, "gone", h.now))
	equal(h, "the other lost", h.find(meta.ScopeGlobal, alice, one), "")
}

// same compares files.
func (h *harness) same(what string, got, want upload.File) {
	h.Helper()
	if !reflect.DeepEqual(got, want) {
		h.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}
