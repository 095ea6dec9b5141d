package e2e

import (
	"flag"
	"testing"

	"gantry/internal/testenv"
)

// setup is what all servers of a run stand on.
var setup = flag.String("setup", "embedded", "embedded; mariadb: with Redis and RabbitMQ; postgres: with a Redis Cluster and RabbitMQ")

// environment is the settings of a new server on the set-up of this run. It has a database of its own.
func environment(t testing.TB) []string {
	t.Helper()
	database, redis := testenv.MySQL, testenv.Redis
	switch *setup {
	case "embedded":
		return nil
	case "mariadb":
	case "postgres":
		database, redis = testenv.Postgres, testenv.RedisCluster
	default:
		t.Fatalf("there is no set-up %q", *setup)
	}
	return []string{
		"GANTRY_DATABASE=" + testenv.Database(t, database, testenv.Address(t, database)),
		"GANTRY_REDIS=" + testenv.Address(t, redis),
		"GANTRY_QUEUE=" + testenv.Address(t, testenv.RabbitMQ),
	}
}
