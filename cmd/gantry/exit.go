package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gantry/client"
)

// Exit codes; they are part of the interface.
const (
	exitOK          = 0
	exitSome        = 1
	exitUsage       = 2
	exitLocal       = 3
	exitAuth        = 4
	exitTemporary   = 5
	exitRejected    = 6
	exitInterrupted = 130
)

func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `What the exit codes mean:

    0  all done
    1  some files failed and others did not, or another error; doctor found problems
    2  the command line is wrong
    3  a local file cannot be read or written, or changed while it was uploaded
    4  the server wants (another) token
    5  the server cannot be reached or is busy: the same command may work later
    6  the server refuses: too large, no such file, a conflict
  130  interrupted; after put and get the same command goes on where it stopped

When all files of one command fail for reasons of one kind the code is that kind's, not 1.`,
	}
}

// errInterrupted is why the context ends on the first Ctrl-C.
var errInterrupted = errors.New("interrupted")

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// nodeError is a failure of a command that is a node itself. An address that is in use or a disk that
// fails is not "the server cannot be reached".
type nodeError struct{ error }

func (e nodeError) Unwrap() error { return e.error }

func nodeFailure(err error) error {
	if _, told := errors.AsType[reported](err); err == nil || told {
		return err
	}
	return nodeError{err}
}

// ambiguousError is a name that several files have.
type ambiguousError struct {
	name  string
	files []client.File
}

func (e *ambiguousError) Error() string {
	return fmt.Sprintf("%d files are called %q; say which by its id", len(e.files), e.name)
}

// reported is a failure whose cause was told already.
type reported struct{ code int }

func (e reported) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[reported](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*ambiguousError](err); ok {
		return exitUsage
	}
	if errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if _, ok := errors.AsType[nodeError](err); ok {
		return exitSome
	}
	if _, ok := errors.AsType[*client.LocalError](err); ok {
		return exitLocal
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok { // standard output, on a disk that is full
		return exitLocal
	}
	if client.IsUnauthenticated(err) || client.IsForbidden(err) {
		return exitAuth
	}
	if client.IsTemporary(err) {
		return exitTemporary
	}
	if _, ok := errors.AsType[*client.Error](err); ok {
		return exitRejected
	}
	return exitSome
}

// merge is the exit code of a command with several files.
func merge(codes []int, succeeded int) int {
	if len(codes) == 0 {
		return exitOK
	}
	for _, c := range codes {
		if c == exitInterrupted {
			return c
		}
		if c != codes[0] || succeeded > 0 {
			return exitSome
		}
	}
	return codes[0]
}

// explain tells the user why a command failed, and what to do about it.
func (a *app) explain(err error) {
	if err == nil {
		return
	}
	if _, ok := errors.AsType[reported](err); ok {
		return
	}
	fmt.Fprintln(a.stderr, "gantry: "+withAdvice(message(err), err))
}

// withAdvice adds what to do about an error, indented, to a text about it.
func withAdvice(text string, err error) string {
	for _, line := range advice(err) {
		text += "\n        " + line
	}
	return text
}

// message is an error in a line for people.
func message(err error) string {
	if exitCode(err) == exitTemporary {
		if _, ok := errors.AsType[*client.Error](err); !ok {
			at := ""
			if u, ok := errors.AsType[*url.Error](err); ok {
				if parsed, err := url.Parse(u.URL); err == nil {
					at = fmt.Sprintf(" at %s://%s", parsed.Scheme, parsed.Host)
				}
			}
			return oneLine("the server" + at + " cannot be reached: " + client.Reason(err))
		}
	}
	// Several errors that were joined are a line each.
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' })
	return oneLine(strings.Join(lines, "; "))
}

// advice is what to do about an error, in lines.
func advice(err error) []string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return []string{
			"Is it running? \"gantry serve\" starts one here; --server or GANTRY_SERVER, and for transfers",
			"--management or GANTRY_MANAGEMENT, name another.",
		}
	case client.IsUnauthenticated(err):
		return []string{"Give the server's token with --token-file FILE, GANTRY_TOKEN_FILE or GANTRY_TOKEN."}
	case errors.Is(err, client.ErrExists):
		return []string{"--force overwrites it."}
	}
	var lines []string
	if several, ok := errors.AsType[*ambiguousError](err); ok {
		for _, f := range several.files {
			lines = append(lines, fmt.Sprintf("%s  %9s  %s", f.ID, humanize.IBytes(uint64(f.Size)), f.CreatedAt.Local().Format(time.DateTime)))
		}
	}
	return lines
}

// oneLine keeps control characters, which a server or a file name may contain, off the terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}
