package lint

import (
	"slices"
	"strings"
	"testing"
)

// A layer says what the packages of one place may import from this module. Test files may import
// what they like, but for those of package upload.
type layer struct {
	of     string   // a package, or with /* the packages right below it
	may    []string // packages, or with /* all below
	reason string
}

// layers is the house, bottom first. Every package has exactly one line.
var layers = []layer{
	{"upload", nil, "the vocabulary depends on nothing, so that everything can depend on it"},
	{"internal/lint", nil, "rules read the source, they do not run it"},
	{"internal/testenv", nil, "used by the tests of all packages"},
	{"internal/*", []string{"upload", "internal/*"}, "helpers know the vocabulary, not the ports"},

	{"chunkstore", []string{"upload", "internal/*"}, "a port does not know its drivers, nor another port"},
	{"meta", []string{"upload", "internal/*"}, "a port does not know its drivers, nor another port"},
	{"store", []string{"upload", "internal/*"}, "a port does not know its drivers, nor another port"},
	{"transfer/queue", []string{"upload", "internal/*"}, "a port does not know its drivers, nor another port"},

	{"chunkstore/*", []string{"chunkstore", "upload", "internal/*"}, "a driver knows its own port only"},
	{"meta/*", []string{"meta", "meta/*", "upload", "internal/*"}, "a driver knows its own port only"},
	{"store/*", []string{"store", "store/multipart", "upload", "internal/*"}, "a driver knows its own port only"},
	{"transfer/queue/*", []string{"transfer/queue", "upload", "internal/*"}, "a driver knows its own port only"},

	{"transfer", []string{"chunkstore", "meta", "store", "transfer/queue", "upload", "internal/*"}, "the worker knows ports, never drivers or HTTP"},
	{"migrate", []string{"meta", "store", "upload", "internal/*"}, "moves are rows and objects; what runs beside them is not its business"},
	{"cluster", []string{"meta", "upload", "internal/*"}, "membership is rows; who is asked for what is decided above"},
	{"server/ingest", []string{"chunkstore", "meta", "store", "upload", "internal/*"}, "the use cases know ports, never drivers, HTTP or the queue"},
	{"server/forward", []string{"upload"}, "it passes requests on and looks into none"},
	{"server", []string{"server/ingest", "server/forward", "chunkstore", "meta", "store", "transfer", "upload", "internal/*", "web", "docs/api"}, "HTTP sits on the use cases; drivers are chosen elsewhere"},

	{"web", nil, "embedded files"},
	{"docs/api", nil, "embedded files"},

	{"client", []string{"upload"}, "other programs embed the client without the server"},
	{"config", nil, "settings are plain values; packages have Options of their own"},
	{"cmd/*", []string{"*"}, "the only place that wires things together"},
	{"e2e", nil, "tests the binary from outside"},
	{"docker/check", []string{"internal/testenv"}, "a module of its own, which knows files and processes"},
	{"bench", []string{"upload", "client"}, "a load generator is a client"},
	{"bench/*", []string{"upload", "client", "bench/*"}, "a load generator is a client"},
	{"scripts/*", nil, "small programs that scripts run"},
}

// libraries says which packages may use a library, or a part of the standard library, whose reach is
// to stay small.
var libraries = []struct {
	path, reason string
	may          []string
}{
	{"github.com/labstack/echo", "HTTP is decoded and encoded in one place", []string{"server"}},
	{"net/http", "use cases, ports and the worker know no HTTP", []string{"server", "server/forward", "client", "cmd/*", "bench", "bench/*", "store/*", "e2e"}},
	{"database/sql", "SQL is written in one place", []string{"meta/*", "internal/testenv", "bench"}},
	{"github.com/jmoiron/sqlx", "SQL is written in one place", []string{"meta/*"}},
	{"github.com/pressly/goose", "SQL is written in one place", []string{"meta/*"}},
	{"github.com/go-sql-driver/mysql", "SQL is written in one place", []string{"meta/*", "internal/testenv", "bench"}},
	{"github.com/jackc/pgx", "SQL is written in one place", []string{"meta/*", "internal/testenv", "bench"}},
	{"modernc.org/sqlite", "SQL is written in one place", []string{"meta/*", "bench"}},
	{"github.com/gomodule/redigo", "Redis is spoken in one place", []string{"chunkstore/*", "bench"}},
	{"github.com/knadh/koanf", "settings are read in one place", []string{"config"}},
	{"github.com/rabbitmq/amqp091-go", "what a broker is like is known in one place", []string{"transfer/queue/rabbitmq"}},
	{"github.com/spf13/cobra", "commands are defined in one place", []string{"cmd/*"}},
	{"testing", "test helpers are not linked into the binary", []string{"internal/testenv", "chunkstore/*", "meta/*", "store/*", "transfer/queue/*"}},
	{"github.com/ceph/go-ceph", "RADOS is spoken in one place, which needs cgo", []string{"store/rados"}},
	{"unsafe", "nothing needs it but a call of librados that go-ceph does not have", []string{"store/rados"}},
}

func matches(pattern, pkg string) bool {
	if pattern == "*" {
		return true
	}
	if prefix, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(pkg, prefix+"/")
	}
	return pattern == pkg
}

// layerOf is the first layer that names the package itself, then the first pattern that fits.
func layerOf(pkg string) (layer, bool) {
	for _, exact := range []bool{true, false} {
		for _, l := range layers {
			if exact && l.of == pkg || !exact && strings.HasSuffix(l.of, "/*") && matches(l.of, pkg) {
				return l, true
			}
		}
	}
	return layer{}, false
}

// brokenLayers lists the imports of a file that its layer does not allow.
func brokenLayers(s *source) []string {
	pkg := s.dir()
	l, ok := layerOf(pkg)
	if !ok {
		return []string{s.name + ": package " + pkg + " is in no layer: add it to the table with a reason"}
	}
	var broken []string
	for _, imported := range s.imports() {
		local, inside := strings.CutPrefix(imported, module+"/")
		if inside {
			if local != pkg && !slices.ContainsFunc(l.may, func(p string) bool { return matches(p, local) }) {
				broken = append(broken, s.name+" imports "+local+": "+l.reason)
			}
			continue
		}
		if pkg == "upload" && strings.Contains(imported, ".") {
			broken = append(broken, s.name+" imports "+imported+": the vocabulary needs the standard library only")
		}
		for _, lib := range libraries {
			if (imported == lib.path || strings.HasPrefix(imported, lib.path+"/")) &&
				!slices.ContainsFunc(lib.may, func(p string) bool { return matches(p, pkg) }) {
				broken = append(broken, s.name+" imports "+imported+": "+lib.reason)
			}
		}
	}
	return broken
}

// noIO are packages that would let the vocabulary reach outside.
var noIO = []string{"context", "net", "net/http", "os", "os/exec", "io/fs", "log", "log/slog", "database/sql"}

func TestLayers(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, broken := range brokenLayers(s) {
			t.Error(broken)
		}
		if s.dir() == "upload" {
			for _, imported := range s.imports() {
				if slices.Contains(noIO, imported) {
					t.Errorf("%s imports %s: the vocabulary does no I/O", s.name, imported)
				}
			}
		}
	}
}

func TestLayersSeeWhatTheyForbid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file, imported string
		broken         bool
	}{
		{"upload/x.go", "gantry/meta", true},
		{"upload/x.go", "golang.org/x/sys/unix", true},
		{"upload/x.go", "crypto/sha1", false},
		{"meta/x.go", "gantry/store", true},
		{"meta/x.go", "gantry/meta/sqldb", true},
		{"chunkstore/disk/x.go", "gantry/chunkstore", false},
		{"chunkstore/disk/x.go", "gantry/internal/vfs", false},
		{"chunkstore/disk/x.go", "gantry/meta", true},
		{"chunkstore/disk/x.go", "gantry/config", true},
		{"store/local/x.go", "gantry/chunkstore", true},
		{"transfer/x.go", "gantry/transfer/queue", false},
		{"transfer/x.go", "gantry/transfer/queue/memory", true},
		{"server/ingest/x.go", "net/http", true},
		{"server/ingest/x.go", "gantry/server", true},
		{"server/ingest/x.go", "gantry/transfer", true},
		{"server/x.go", "gantry/server/ingest", false},
		{"server/x.go", "gantry/meta/sqldb", true},
		{"server/x.go", "github.com/labstack/echo/v4", false},
		{"client/x.go", "gantry/server", true},
		{"cmd/gantry/x.go", "gantry/meta/sqldb", false},
		{"nowhere/x.go", "fmt", true},
	} {
		s := parse(t, c.file, "package x\nimport _ \""+c.imported+"\"\n")
		if got := brokenLayers(s); (len(got) > 0) != c.broken {
			t.Errorf("%s importing %s: %v", c.file, c.imported, got)
		}
	}
}

func TestEveryRuleHasAReason(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, l := range layers {
		if l.reason == "" || seen[l.of] {
			t.Errorf("layer %s: twice, or without a reason", l.of)
		}
		seen[l.of] = true
	}
	for _, lib := range libraries {
		if lib.reason == "" {
			t.Errorf("library %s has no reason", lib.path)
		}
	}
}
