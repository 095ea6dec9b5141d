package lint

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The environment is read in two ways: a setting of the server is GANTRY_ and the upper-case name in
// its `koanf` tag; everything else is spelled out. Both are in the tables of docs/operations.md.
func TestEnvironmentIsDocumented(t *testing.T) {
	t.Parallel()
	used := map[string]string{}
	tag, literal := regexp.MustCompile("`koanf:\"([a-z_]+)\""), regexp.MustCompile(`\bGANTRY_[A-Z_]*[A-Z]\b`)
	for _, s := range sources(t) {
		if s.forTests() || s.dir() == "internal/lint" || s.dir() == "bench" { // an operator runs none of these
			continue
		}
		text := read(t, s.name)
		if s.dir() == "config" {
			for _, m := range tag.FindAllStringSubmatch(text, -1) {
				used["GANTRY_"+strings.ToUpper(m[1])] = s.name
			}
		}
		for _, name := range literal.FindAllString(text, -1) {
			used[name] = s.name
		}
	}
	if len(used) < 10 {
		t.Fatalf("only %d variables found in the code", len(used))
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\|[^\n]*`(GANTRY_[A-Z_]+)`").FindAllStringSubmatch(read(t, "docs/operations.md"), -1) {
		documented[m[1]] = true
	}
	for name, where := range used {
		if !documented[name] {
			t.Errorf("%s (%s) is in no table of docs/operations.md", name, where)
		}
	}
	for name := range documented {
		if used[name] == "" {
			t.Errorf("docs/operations.md tells of %s, which no code reads", name)
		}
	}
}

// Metrics have names that dashboards and alerts depend on.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`"(gantry_[a-z_]+)"`)
	docs := read(t, "docs/operations.md")
	for _, s := range sources(t) {
		if s.test || !slices.ContainsFunc(s.imports(), func(p string) bool { return strings.HasPrefix(p, "github.com/prometheus/") }) {
			continue
		}
		for _, m := range name.FindAllStringSubmatch(read(t, s.name), -1) {
			if !strings.Contains(docs, "`"+m[1]) {
				t.Errorf("%s: metric %s is not in docs/operations.md", s.name, m[1])
			}
		}
	}
}

// makeTargets returns the Makefile's targets and what `make help` says of them.
func makeTargets(t *testing.T) map[string]string {
	t.Helper()
	targets := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):([^=\n].*)$`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		_, help, _ := strings.Cut(m[2], "## ")
		targets[m[1]] = help
	}
	return targets
}

func TestMakeTargets(t *testing.T) {
	t.Parallel()
	targets := makeTargets(t)
	for _, want := range []string{"help", "run", "test", "check", "build", "e2e", "bench", "demo"} {
		if _, ok := targets[want]; !ok {
			t.Errorf("the Makefile has no target %s", want)
		}
	}
	for name, help := range targets {
		if help == "" {
			t.Errorf("make help does not tell what `make %s` does", name)
		}
	}
	mentioned := regexp.MustCompile("`make ([a-z][a-z0-9-]*)")
	for _, doc := range append(files(t, ".md"), ".github/workflows/ci.yml") {
		for _, m := range mentioned.FindAllStringSubmatch(read(t, doc), -1) {
			if _, ok := targets[m[1]]; !ok {
				t.Errorf("%s tells of `make %s`, which is not in the Makefile", doc, m[1])
			}
		}
	}
}

// A link or a path in the documents that leads nowhere misleads.
func TestDocumentsPointToWhatIsThere(t *testing.T) {
	t.Parallel()
	link, code := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`), regexp.MustCompile("`([a-z][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)+/?)`")
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root(), filepath.FromSlash(name)))
		return err == nil
	}
	tops := topLevel(t)
	for _, doc := range files(t, ".md") {
		text := read(t, doc)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") && !exists(path.Join(path.Dir(doc), m[1])) {
				t.Errorf("%s links to %s, which is not there", doc, m[1])
			}
		}
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			if first, _, _ := strings.Cut(m[1], "/"); slices.Contains(tops, first) && !exists(m[1]) {
				t.Errorf("%s names %s, which is not there", doc, m[1])
			}
		}
	}
}

func topLevel(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(root())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(skipDirs, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// Decisions are numbered without gaps and have the same parts.
func TestDecisions(t *testing.T) {
	t.Parallel()
	number := 0
	for _, name := range files(t, ".md") {
		base, ok := strings.CutPrefix(name, "docs/decisions/")
		if !ok || !regexp.MustCompile(`^\d{4}-`).MatchString(base) {
			continue
		}
		number++
		if want := fmt.Sprintf("%04d-", number); !strings.HasPrefix(base, want) {
			t.Errorf("%s should have number %d", name, number)
		}
		for _, part := range []string{"## Context\n", "## Decision\n", "## Consequences\n"} {
			if !strings.Contains(read(t, name), part) {
				t.Errorf("%s has no part %q", name, strings.TrimSpace(part))
			}
		}
	}
	if number == 0 {
		t.Error("there are no decisions")
	}
}
