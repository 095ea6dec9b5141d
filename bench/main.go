// Bench compares Gantry with tusd and nginx on one machine: the same files, the same directory, in turn,
// and prints tables with medians. It starts and stops the servers itself. See README.md beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

// options is what the command line says.
type options struct {
	size    int64         // of the large file, bytes
	big     int64         // of the file whose complete is timed
	small   int           // how many small files
	blobs   int           // how many blobs there are when instant uploads are counted
	rounds  int           // of every measurement
	dirs    []string      // where the servers keep their data, in turn
	servers []string      // which servers, in the order of the tables
	only    []string      // parts of names of measurements; empty: all
	limit   time.Duration // for everything
	many    bool          // several nodes, and servers, in place of the comparison
	stored  bool          // transfers to stores, in place of the comparison

	gantry, tusd, nginx string // binaries
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if place := os.Getenv(minioVariable); place != "" {
		if err := putWithMinio(ctx, place, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	size := flags.String("size", "1GiB", "size of the large file")
	big := flags.String("big", "4GiB", "size of the file whose complete is timed (tmpfs needs room for it)")
	dirs := flags.String("dirs", "/dev/shm,"+os.TempDir(), "directories to measure in, separated by commas")
	servers := flags.String("servers", "gantry,tusd,nginx", "servers to measure")
	only := flags.String("only", "", "measure only what has one of these words in its name, separated by commas")
	flags.IntVar(&o.small, "small", 10_000, "how many files of 100 KB")
	flags.IntVar(&o.blobs, "blobs", 1_000_000, "how many blobs there are when instant uploads are counted")
	flags.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	flags.DurationVar(&o.limit, "limit", 14*time.Minute, "no further measurement is begun after this time")
	flags.BoolVar(&o.many, "many", false, "measure several nodes, and what databases and Redis cost, in place of comparing servers")
	flags.BoolVar(&o.stored, "stores", false, "measure transfers to stores, in place of comparing servers")
	flags.StringVar(&o.gantry, "gantry", "bin/gantry", "the gantry binary")
	flags.StringVar(&o.tusd, "tusd", "tusd", "the tusd binary")
	flags.StringVar(&o.nginx, "nginx", "nginx", "the nginx binary")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	for _, text := range []struct {
		value string
		into  *int64
	}{{*size, &o.size}, {*big, &o.big}} {
		n, err := humanize.ParseBytes(text.value)
		if err != nil {
			return nil, err
		}
		*text.into = int64(n)
	}
	o.dirs, o.servers = strings.Split(*dirs, ","), strings.Split(*servers, ",")
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if o.size < 64<<20 || o.rounds < 1 {
		return nil, errors.New("-size is at least 64MiB and -rounds at least 1")
	}
	return o, nil
}

func (o *options) wants(name string) bool {
	return len(o.only) == 0 || slices.ContainsFunc(o.only, func(word string) bool { return strings.Contains(name, word) })
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(o.limit)
	fmt.Fprintf(out, "`bench %s` on %d × %s, %s, %s\n", strings.Join(args, " "), runtime.NumCPU(), cpuModel(), runtime.Version(), runtime.GOOS)
	for _, base := range o.dirs {
		dir, err := os.MkdirTemp(base, "gantry-bench-")
		if err != nil {
			return err
		}
		b := &bench{options: o, dir: dir, out: out, deadline: deadline}
		err = b.all(ctx, fmt.Sprintf("%s (%s)", filepath.Clean(base), fileSystem(base)))
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}

// bench measures in one directory.
type bench struct {
	*options
	dir      string
	out      io.Writer
	deadline time.Time

	env       []string // of Gantry
	clustered bool     // Gantry's nodes are to find each other
}

func (b *bench) late() bool { return time.Now().After(b.deadline) }

func (b *bench) all(ctx context.Context, where string) error {
	if err := b.warm(); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n## %s\n\n", where)
	switch {
	case b.many:
		return b.severalNodes(ctx)
	case b.stored:
		return b.stores(ctx)
	}
	if err := b.compare(ctx); err != nil {
		return err
	}
	if slices.Contains(b.servers, "gantry") {
		return b.alone(ctx)
	}
	return nil
}

// warm writes and deletes as much as the measurements will: on virtual machines the first touch of a
// page of memory costs more than all that is measured here.
func (b *bench) warm() error {
	f, err := os.Create(filepath.Join(b.dir, "warm"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	need := max(2*b.size, b.big+b.size) + int64(b.small)*smallSize
	for written := int64(0); written < need; written += int64(len(buffer)) {
		if _, err := f.Write(buffer); err != nil {
			return errors.Join(fmt.Errorf("no room for %s in %s: choose a smaller -size and -big", humanize.IBytes(uint64(need)), b.dir), err, f.Close())
		}
	}
	return f.Close()
}

// compare prints the table of all servers at the same work.
func (b *bench) compare(ctx context.Context) error {
	fmt.Fprintf(b.out, "| work | server | MB/s | ÷ Gantry | CPU s/GB | with transfer | peak MB |\n|---|---|--:|--:|--:|--:|--:|\n")
	for _, w := range workloads(b.options) {
		if !b.wants(w.name) {
			continue
		}
		samples := make(map[string][]sample)
		for round := range b.rounds {
			if b.late() && round > 0 {
				break
			}
			for i := range b.servers {
				name := b.servers[(i+round)%len(b.servers)] // nobody is always first
				if name == "nginx" && w.parallel {
					continue // nginx cannot put one file together from several requests
				}
				s, err := b.measure(ctx, name, w)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", name, w.name, err)
				}
				samples[name] = append(samples[name], s)
			}
		}
		ours := median(samples["gantry"], sample.rate)
		for _, name := range b.servers {
			all := samples[name]
			if len(all) == 0 {
				continue
			}
			ratio, after := "–", "–"
			if ours > 0 {
				ratio = fmt.Sprintf("%.2f", median(all, sample.rate)/ours)
			}
			if name == "gantry" {
				after = fmt.Sprintf("%.2f", median(all, sample.cpuWithTransfer))
			}
			fmt.Fprintf(b.out, "| %s | %s | %.0f | %s | %.2f | %s | %.0f |\n", w.name, name,
				median(all, sample.rate), ratio, median(all, sample.cpuPerGB), after, median(all, sample.peakMB))
		}
	}
	fmt.Fprintln(b.out, "\nMedians. CPU and memory (VmHWM) are the server's alone, until the last answer; \"with transfer\" until the files are"+
		" verified in the store. Gantry hashes and checks everything and has flushed it when it answers; tusd and nginx do neither.")
	return nil
}

// measure runs one piece of work against a fresh server.
func (b *bench) measure(ctx context.Context, name string, w workload) (s sample, err error) {
	srv, err := b.start(ctx, name)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	before, begun := srv.cpu(), time.Now()
	if err := w.do(ctx, srv); err != nil {
		return sample{}, err
	}
	s = sample{wall: time.Since(begun), bytes: w.bytes, cpu: srv.cpu() - before, peak: srv.peak()}
	if name == "gantry" {
		if err := srv.drained(ctx); err != nil {
			return sample{}, err
		}
		s.cpuAfter = srv.cpu() - before
	}
	return s, nil
}

// sample is one measurement.
type sample struct {
	wall          time.Duration
	bytes         int64
	cpu, cpuAfter time.Duration
	peak          int64
	idle          int64 // resident before, bytes; 0: not known
}

func (s sample) rate() float64            { return float64(s.bytes) / 1e6 / s.wall.Seconds() }
func (s sample) cpuPerGB() float64        { return s.cpu.Seconds() / (float64(s.bytes) / 1e9) }
func (s sample) cpuWithTransfer() float64 { return s.cpuAfter.Seconds() / (float64(s.bytes) / 1e9) }
func (s sample) peakMB() float64          { return float64(s.peak) / 1e6 }
func (s sample) addedMB() float64         { return float64(s.peak-s.idle) / 1e6 }

// median is the median of one figure of all samples, 0 if there are none.
func median[S any](all []S, figure func(S) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	values := make([]float64, len(all))
	for i, s := range all {
		values[i] = figure(s)
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 0 {
		return (values[mid-1] + values[mid]) / 2
	}
	return values[mid]
}
