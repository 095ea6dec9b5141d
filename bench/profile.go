package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// shares are the groups of functions that the profile is summed up into.
var shares = []struct{ name, functions string }{
	{"SHA-1", "sha1"}, {"SHA-256 (Merkle tree)", "sha256"}, {"CRC-32C", "crc32"}, {"system calls (network and files)", "Syscall"},
}

// profile tells what the processor does while files go up and on to the store.
func (b *bench) profile(ctx context.Context) ([]string, error) {
	const period = 6 * time.Second
	var rows []string
	err := b.with(ctx, func(s *server) error {
		file := filepath.Join(b.dir, "profile")
		defer os.Remove(file)
		group, gctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			c, err := dial(gctx, s.management)
			if err != nil {
				return err
			}
			defer c.close()
			_, profile, err := c.do("GET", fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(period.Seconds())), "", nil)
			if err != nil {
				return err
			}
			return os.WriteFile(file, profile, 0o600)
		})
		group.Go(func() error {
			size := min(b.size, 256<<20)
			for begun := time.Now(); time.Since(begun) < period; {
				if err := s.putFile(gctx, size, 4); err != nil {
					return err
				}
				if err := s.drained(gctx); err != nil {
					return err
				}
			}
			return nil
		})
		if err := group.Wait(); err != nil {
			return err
		}
		top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodefraction=0", b.gantry, file).Output()
		if err != nil {
			return fmt.Errorf("go tool pprof: %w", err)
		}
		sums := make([]float64, len(shares))
		for line := range strings.Lines(string(top)) {
			fields := strings.Fields(line) // flat flat% sum% cum cum% name
			if len(fields) < 6 {
				continue
			}
			percent, err := strconv.ParseFloat(strings.TrimSuffix(fields[1], "%"), 64)
			if err != nil {
				continue
			}
			for i, share := range shares {
				if strings.Contains(fields[5], share.functions) {
					sums[i] += percent
				}
			}
		}
		for i, share := range shares {
			rows = append(rows, fmt.Sprintf("| share of CPU, upload and transfer: %s | %.0f %% |", share.name, sums[i]))
		}
		return nil
	})
	return rows, err
}
