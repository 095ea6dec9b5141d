package e2e

import (
	"flag"
	"testing"

	"gantry/internal/testenv"
)

// setup is what all servers of a run stand on.
var setup = flag.String("setup", "embedded", "embedded; mariadb: with Redis and RabbitMQ; postgres: with a Redis Cluster and RabbitMQ")

// databaseAndRedis are the kinds of servers of this run's set-up; nothing if it is embedded.
func databaseAndRedis(t testing.TB) (database, redis testenv.Server) {
	t.Helper()
	switch *setup {
	case "embedded":
		return "", ""
	case "mariadb":
		return testenv.MySQL, testenv.Redis
	case "postgres":
		return testenv.Postgres, testenv.RedisCluster
	}
	t.Fatalf("there is no set-up %q", *setup)
	return "", ""
}

// environment is the settings of a new server on the set-up of this run. It has a database of its own.
func environment(t testing.TB) []string {
	t.Helper()
	database, redis := databaseAndRedis(t)
	if database == "" {
		return nil
	}
	return []string{
		"GANTRY_DATABASE=" + testenv.Database(t, database, testenv.Address(t, database)),
		"GANTRY_REDIS=" + testenv.Address(t, redis),
		"GANTRY_QUEUE=" + testenv.Address(t, testenv.RabbitMQ),
	}
}
