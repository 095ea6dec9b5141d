package main

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/chunkstore"
	"gantry/chunkstore/memory"
	"gantry/chunkstore/redis"
	"gantry/config"
	"gantry/server"
)

// openView makes the view of open uploads: this node's own and, if there is a Redis, the one that all nodes
// share. The own one stands in while Redis is away.
func (n *node) openView(c *config.Config, reg prometheus.Registerer, log *slog.Logger) (chunkstore.View, error) {
	own := memory.New()
	if c.Redis == "" {
		return own, nil
	}
	var err error
	if n.redis, err = redis.New(string(c.Redis), redis.Options{Log: log, Metrics: reg}); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	return &chunkstore.Fallback{Shared: n.redis, Own: own}, nil
}

// viewChecks are those of /readyz. A node without its Redis still does all that it did alone.
func (n *node) viewChecks() []server.Check {
	if n.redis == nil {
		return nil
	}
	return []server.Check{{Name: "redis", Run: n.redis.Ping, Advisory: true}}
}
