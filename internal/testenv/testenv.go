// Package testenv says how tests deal with what is not there. A test never skips itself: it calls this
// package, which is loud on a developer's machine and fails in CI, so that nothing goes untested unseen.
package testenv

import (
	"fmt"
	"os"
	"testing"
)

// Need skips the test unless there is what it needs; with CI=true it fails instead. what names the
// thing and how to get it.
func Need(t testing.TB, there bool, what string) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested: %s", what)
	}
	t.Skipf("NOT TESTED: %s", what)
}

// Server names a kind of real server that tests run against. Its environment variable says where one
// is; `scripts/services env` prints them all.
type Server string

// The kinds of server.
const (
	MySQL        Server = "GANTRY_TEST_MYSQL"         // MariaDB: a data source name that may create databases
	MySQLReplica Server = "GANTRY_TEST_MYSQL_REPLICA" // a read-only replica of it
	Postgres     Server = "GANTRY_TEST_POSTGRES"      // a URL that may create databases
	Redis        Server = "GANTRY_TEST_REDIS"         // a URL
	RedisCluster Server = "GANTRY_TEST_REDIS_CLUSTER" // URLs, separated by commas
	RabbitMQ     Server = "GANTRY_TEST_RABBITMQ"      // a URL
	Ceph         Server = "GANTRY_TEST_CEPH"          // the S3 gateway: a URL with access and secret key
	S3           Server = "GANTRY_TEST_S3"            // an S3 server that has checksums: a URL with access and secret key
	RADOS        Server = "GANTRY_TEST_RADOS"         // the same cluster without it: the path of a ceph.conf that may do all, with a pool "gantry"
)

// Address returns where a server is. Without one the test is skipped or, in CI, failed. It notes for
// the table at the end of `make test` that the suite has met the server, or has not.
func Address(t testing.TB, s Server) string {
	t.Helper()
	address := os.Getenv(string(s))
	note(t, s, address != "")
	Need(t, address != "", fmt.Sprintf("%s is not set; `make test` starts the servers, or: eval \"$(scripts/services up)\"", s))
	return address
}

// note appends a line to the file named by GANTRY_TEST_REPORT: the suite's directory, the server, and
// whether it was met or is missing.
func note(t testing.TB, s Server, met bool) {
	t.Helper()
	path := os.Getenv("GANTRY_TEST_REPORT")
	if path == "" {
		return
	}
	word := "missing"
	if met {
		word = "met"
	}
	dir, err := os.Getwd() // of the package under test
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "%s\t%s\t%s\n", dir, s, word)
	if closeErr := f.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
}
