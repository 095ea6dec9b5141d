package lint

import (
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestOnePackageCommentPerPackage(t *testing.T) {
	t.Parallel()
	comments, packages := map[string][]string{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			if s.ast.Doc != nil && !strings.HasPrefix(s.ast.Doc.Text(), "go:build") {
				t.Errorf("%s: the package comment belongs into a file that is not a test", s.name)
			}
			continue
		}
		packages[s.dir()] = true
		if s.ast.Doc == nil {
			continue
		}
		comments[s.dir()] = append(comments[s.dir()], s.name)
		want := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			want = "" // a command's comment begins with what it does
		}
		if !strings.HasPrefix(s.ast.Doc.Text(), want) {
			t.Errorf("%s: the package comment does not begin with %q", s.name, want)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("package %s has %d package comments: %v", dir, n, comments[dir])
		}
	}
}

// Goroutines are started by methods that their owner can wait for: sync.WaitGroup.Go, errgroup's
// Group.Go. A go statement has no owner. The list is for what cannot be said otherwise: a file, and
// who waits for its goroutines.
var goStatementsAllowed = map[string]string{}

// bareGo lists the go statements of a file.
func bareGo(s *source) []string {
	var found []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			found = append(found, at(g))
		}
		return true
	})
	return found
}

func TestEveryGoroutineHasAnOwner(t *testing.T) {
	t.Parallel()
	started, awaited := map[string]map[string]string{}, map[string]map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if goStatementsAllowed[s.name] == "" {
			for _, where := range bareGo(s) {
				t.Errorf("%s: a go statement; use a WaitGroup's or errgroup's Go, and wait for it", where)
			}
		}
		dir := s.dir()
		if started[dir] == nil {
			started[dir], awaited[dir] = map[string]string{}, map[string]bool{}
		}
		goAndWait(s, started[dir], awaited[dir])
	}
	for dir, names := range started {
		for name, where := range names {
			if !awaited[dir][name] {
				t.Errorf("%s: %s.Go, but nothing in package %s calls %s.Wait", where, name, dir, name)
			}
		}
	}
	for name := range goStatementsAllowed {
		if !slices.ContainsFunc(sources(t), func(s *source) bool { return s.name == name && len(bareGo(s)) > 0 }) {
			t.Errorf("%s has no go statement any more: take it off the list", name)
		}
	}
}

// goAndWait notes the names on which Go and Wait are called.
func goAndWait(s *source, started map[string]string, awaited map[string]bool) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch name := lastName(method.X); {
		case method.Sel.Name == "Go" && len(call.Args) == 1:
			started[name] = at(call)
		case method.Sel.Name == "Wait":
			awaited[name] = true
		}
		return true
	})
}

func TestGoroutineRuleSeesWhatItForbids(t *testing.T) {
	t.Parallel()
	s := parse(t, "x/x.go", "package x\nfunc f() { go g(); s.wg.Go(g); other.Go(g); other.Wait() }\n")
	if got := bareGo(s); len(got) != 1 {
		t.Errorf("go statements: %v", got)
	}
	started, awaited := map[string]string{}, map[string]bool{}
	goAndWait(s, started, awaited)
	if started["wg"] == "" || awaited["wg"] || started["other"] == "" || !awaited["other"] {
		t.Errorf("started %v, awaited %v", started, awaited)
	}
}

// sleepsAllowed are the files that may sleep, and why nothing else will do.
var sleepsAllowed = map[string]string{
	"bench/": "a load generator measures real time",
}

// calls lists where a file calls pkg.name.
func calls(s *source, pkg, name string) []string {
	var found []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
				found = append(found, at(sel))
			}
		}
		return true
	})
	return found
}

// A sleep cannot be canceled and hides what is being waited for.
func TestNobodySleeps(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.forTests() || slices.ContainsFunc(slices.Collect(maps.Keys(sleepsAllowed)), func(p string) bool { return strings.HasPrefix(s.name, p) }) {
			continue
		}
		for _, where := range calls(s, "time", "Sleep") {
			t.Errorf("%s: time.Sleep; wait for a timer and ctx.Done(), or for the event itself", where)
		}
	}
	if got := calls(parse(t, "x/x.go", "package x\nfunc f() { time.Sleep(1) }\n"), "time", "Sleep"); len(got) != 1 {
		t.Errorf("the rule does not see a sleep: %v", got)
	}
}

// Nothing happens by being imported: drivers are listed in cmd.
func TestNoInitFunctions(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function; wire things in cmd", at(f))
			}
		}
	}
}

const maxLines = 800

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	for _, name := range files(t, ".go", ".ts", ".sh", ".sql") {
		if lines := strings.Count(read(t, name), "\n"); lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by what its parts do", name, lines, maxLines)
		}
	}
}

// skips lists the calls by which a test would skip itself. rapid's t.Skip only draws again.
func skips(s *source) []string {
	var found []string
	rapids := []map[string]bool{{}}
	var walk func(ast.Node) bool
	params := func(f *ast.FuncType) map[string]bool {
		names := maps.Clone(rapids[len(rapids)-1])
		for _, field := range f.Params.List {
			star, _ := field.Type.(*ast.StarExpr)
			isRapid := false
			if star != nil {
				if sel, ok := star.X.(*ast.SelectorExpr); ok {
					isRapid = lastName(sel.X) == "rapid"
				}
			}
			for _, name := range field.Names {
				names[name.Name] = isRapid
			}
		}
		return names
	}
	scope := func(f *ast.FuncType, body *ast.BlockStmt) bool {
		if body != nil {
			rapids = append(rapids, params(f))
			ast.Inspect(body, walk)
			rapids = rapids[:len(rapids)-1]
		}
		return false
	}
	walk = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return scope(n.Type, n.Body)
		case *ast.FuncLit:
			return scope(n.Type, n.Body)
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) && !rapids[len(rapids)-1][lastName(sel.X)] {
				found = append(found, at(n))
			}
		}
		return true
	}
	ast.Inspect(s.ast, walk)
	return found
}

func TestNoTestSkipsItself(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.dir() == "internal/testenv" || !s.forTests() {
			continue
		}
		for _, where := range skips(s) {
			t.Errorf("%s: a test skips itself; call testenv.Need, which fails in CI", where)
		}
	}
	s := parse(t, "x/x_test.go", `package x
func TestA(t *testing.T) { t.Skip(); rapid.Check(t, func(t *rapid.T) { t.Skip() }); t.Run("", func(t *testing.T) { t.SkipNow() }) }`)
	if got := skips(s); len(got) != 2 {
		t.Errorf("the rule sees %v, want two calls", got)
	}
}
