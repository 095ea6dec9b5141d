package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Addresses have passwords in them, which must not be seen in logs, messages or dumps.
func TestAddresses(t *testing.T) {
	const address = "redis://:s3cr3t@one.example:6379,redis://u:s3cr3t/@two.example:6379/0?sentinel_password=s3cr3t&x=y"
	c, err := load(t, []string{"GANTRY_REDIS=" + address})
	if err != nil || string(c.Redis) != address {
		t.Fatalf("got %q, %v", string(c.Redis), err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("redis", "redis", c.Redis)
	slog.New(slog.NewTextHandler(&log, nil)).Info("redis", "redis", c.Redis)
	fmt.Fprintf(&log, "%v %s %q %x %+v %v", c.Redis, c.Redis, c.Redis, c.Redis, c, &c)
	if text := log.String(); strings.Contains(text, "s3cr3t") || strings.Contains(text, "733363") || !strings.Contains(text, "two.example") {
		t.Errorf("printed: %s", text)
	}
}
