package testenv_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"gantry/internal/testenv"
)

// recorder is a testing.TB that notes how the test ended instead of ending it.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.ended = "failed"; runtime.Goexit() }
func (r *recorder) Skipf(string, ...any)  { r.ended = "skipped"; runtime.Goexit() }

// ending says how a test that does f ends.
func ending(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
		r.ended = "ran"
	}()
	<-done
	return r.ended
}

func TestNeed(t *testing.T) {
	for _, c := range []struct {
		ci    string
		there bool
		want  string
	}{
		{"true", true, "ran"}, {"", true, "ran"}, {"true", false, "failed"}, {"", false, "skipped"},
	} {
		t.Setenv("CI", c.ci)
		if got := ending(t, func(t testing.TB) { testenv.Need(t, c.there, "the moon") }); got != c.want {
			t.Errorf("CI=%q, there %v: %s, want %s", c.ci, c.there, got, c.want)
		}
	}
}

func TestAddress(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report")
	t.Setenv("GANTRY_TEST_REPORT", report)
	for _, c := range []struct{ ci, address, want string }{
		{"true", "redis://there", "ran"}, {"", "redis://there", "ran"}, {"true", "", "failed"}, {"", "", "skipped"},
	} {
		t.Setenv("CI", c.ci)
		t.Setenv(string(testenv.Redis), c.address)
		got := ending(t, func(tb testing.TB) {
			if a := testenv.Address(tb, testenv.Redis); a != c.address {
				t.Errorf("Address is %q, want %q", a, c.address)
			}
		})
		if got != c.want {
			t.Errorf("CI=%q, address %q: %s, want %s", c.ci, c.address, got, c.want)
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	line := dir + "\t" + string(testenv.Redis) + "\t"
	want := line + "met\n" + line + "met\n" + line + "missing\n" + line + "missing\n"
	if got, err := os.ReadFile(report); err != nil || string(got) != want {
		t.Errorf("report: %q, %v; want %q", got, err, want)
	}
}

// Whatever scripts/services says is there can be connected to.
func TestServersAreThere(t *testing.T) {
	for _, s := range []testenv.Server{testenv.MySQL, testenv.MySQLReplica, testenv.Postgres, testenv.Redis, testenv.RedisCluster, testenv.RabbitMQ} {
		t.Run(strings.TrimPrefix(string(s), "GANTRY_TEST_"), func(t *testing.T) {
			addresses := regexp.MustCompile(`@(?:tcp\()?([\w.-]+:\d+)`).FindAllStringSubmatch(testenv.Address(t, s), -1)
			if len(addresses) == 0 {
				t.Fatal("there is no host and port in the variable")
			}
			for _, a := range addresses {
				conn, err := net.Dial("tcp", a[1])
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}
