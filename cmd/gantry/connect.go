package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"golang.org/x/time/rate"

	"gantry/client"
)

// connection is the flags by which client commands find their server.
type connection struct {
	server    string
	tokenFile string
}

func (c *connection) flags(app *app, flags *pflag.FlagSet) {
	flags.StringVar(&c.server, "server", app.env("GANTRY_SERVER", client.DefaultBaseURL), "the server's address (GANTRY_SERVER)")
	flags.StringVar(&c.tokenFile, "token-file", app.env("GANTRY_TOKEN_FILE", ""), "file with the server's token (GANTRY_TOKEN_FILE; GANTRY_TOKEN is the token itself)")
}

func (c *connection) options(app *app) client.Options {
	opt := client.Options{BaseURL: withScheme(c.server), UserAgent: "gantry/" + version()}
	if c.tokenFile != "" {
		opt.Token = client.TokenFile(c.tokenFile)
	} else if token := app.env("GANTRY_TOKEN", ""); token != "" {
		opt.Token = client.StaticToken(token)
	}
	return opt
}

// open makes the client; change adds to its options.
func (c *connection) open(app *app, change func(*client.Options)) (*client.Client, error) {
	opt := c.options(app)
	if change != nil {
		change(&opt)
	}
	cl, err := client.New(opt)
	if err != nil {
		return nil, usageError{fmt.Errorf("%q is not the address of a server, like %s", c.server, client.DefaultBaseURL)}
	}
	return cl, nil
}

// carriage is the flags of the commands that move bytes.
type carriage struct {
	parallel  int
	limit     size
	retryFor  time.Duration
	json      bool
	quiet     bool
	chunkSize size
}

func (c *carriage) flags(flags *pflag.FlagSet) {
	flags.IntVar(&c.parallel, "parallel", client.DefaultParallel, "requests at a time")
	flags.Var(&c.limit, "bwlimit", "bytes per second at the most, like 10MiB")
	flags.DurationVar(&c.retryFor, "retry-for", client.DefaultRetryFor, "give up after so long without any progress; 0: at the first failure")
	flags.BoolVar(&c.json, "json", false, "one JSON object per event on standard output")
	flags.BoolVarP(&c.quiet, "quiet", "q", false, "no progress, only results and errors")
}

func (c *carriage) check() error {
	if c.parallel < 1 || c.parallel > 64 {
		return usageError{errors.New("--parallel is a number from 1 to 64")}
	}
	if c.retryFor < 0 {
		return usageError{errors.New("--retry-for is not negative")}
	}
	return nil
}

func (c *carriage) apply(opt *client.Options) {
	opt.Parallel, opt.ChunkSize, opt.RetryFor = c.parallel, int64(c.chunkSize), c.retryFor
	if c.retryFor == 0 {
		opt.RetryFor = -1
	}
	if c.limit > 0 {
		// A tenth of a second's worth at a time keeps the line even without many small writes.
		opt.Limit = rate.NewLimiter(rate.Limit(c.limit), int(min(max(c.limit/10, 4<<10), 1<<20)))
	}
}

// size is a number of bytes as a flag: "8MiB", "64k", "1048576".
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*s))
}

// Set parses the flag.
func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > 1<<50 {
		return fmt.Errorf("%q is not a size like 8MiB", text)
	}
	*s = size(n)
	return nil
}

// Type names the flag's value in the help text.
func (s *size) Type() string { return "size" }

// stateDir is where unfinished uploads are remembered, "" if there is no place.
func (a *app) stateDir() string {
	if dir := a.env("XDG_STATE_HOME", ""); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gantry", "uploads")
	}
	home := cmp.Or(a.env("HOME", ""), a.env("USERPROFILE", ""))
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".local", "state", "gantry", "uploads")
}

// find returns the file that an argument names: an id, or a path and name that one file has.
func find(ctx context.Context, c *client.Client, arg string) (client.File, error) {
	if looksLikeID(arg) {
		f, err := c.File(ctx, arg)
		if !client.IsNotFound(err) {
			return f, err
		}
	}
	files, err := withName(ctx, c, arg)
	switch {
	case err != nil:
		return client.File{}, err
	case len(files) == 0:
		return client.File{}, &client.Error{
			Status: 404, Code: "not_found", Title: "Not found",
			Detail: fmt.Sprintf("There is no file %q", arg),
		}
	case len(files) > 1:
		return client.File{}, &ambiguousError{arg, files}
	}
	return files[0], nil
}

// looksLikeID reports whether an argument may be a file's id: 26 characters of base32hex.
func looksLikeID(arg string) bool {
	if len(arg) != 26 {
		return false
	}
	for _, c := range arg {
		if (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	return true
}
