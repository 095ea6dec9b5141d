// Gantry is a self-hosted upload server and its client in one program: "gantry serve" runs a node,
// "gantry put" and its like talk to one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var listening sync.WaitGroup
	listening.Go(func() {
		if _, open := <-signals; !open {
			return
		}
		cancel(errInterrupted) // commands finish what they must
		if _, open := <-signals; open {
			os.Exit(exitInterrupted)
		}
	})
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	signal.Stop(signals)
	close(signals)
	listening.Wait()
	os.Exit(code)
}

// app is what a command has of the world.
type app struct {
	environ        []string // as os.Environ returns it
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run runs one command line, without the program's name, and returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := &app{environ, stdin, stdout, stderr}
	root := newRootCommand(app)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if _, told := errors.AsType[reported](err); err != nil && !told && errors.Is(context.Cause(ctx), errInterrupted) {
		err = errInterrupted
	}
	app.explain(err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "        See \"%s --help\".\n", cmd.CommandPath())
	}
	return exitCode(err)
}

// env returns an environment variable, or otherwise if it is not set or empty.
func (a *app) env(name, otherwise string) string {
	value := ""
	for _, entry := range a.environ { // the last one counts, as in os/exec
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	if value == "" {
		return otherwise
	}
	return value
}

// isTerminal reports whether a person looks at w or types into r.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Groups of the help text.
const (
	groupServer = "server"
	groupFiles  = "files"
	groupMore   = "more"
)

func newRootCommand(app *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "gantry",
		Short: "Upload server with resumable and instant uploads, and its client",
		Long: "Gantry is a self-hosted upload server, and the client for it.\n\n" +
			"  gantry serve              run a server here, nothing else needed\n" +
			"  gantry put movie.mkv      upload; interrupted, the same command goes on\n" +
			"  gantry ls                 what is there\n" +
			"  gantry get movie.mkv      download",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          groupOnly,
		Version:       version(),
	}
	root.SetVersionTemplate("gantry {{.Version}}\n")
	// A command with commands below it is not run by itself.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", 1))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: groupFiles, Title: "Files:"},
		&cobra.Group{ID: groupServer, Title: "Server:"},
		&cobra.Group{ID: groupMore, Title: "More:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupFiles, newPutCommand(app), newGetCommand(app), newListCommand(app), newStatCommand(app),
		newMoveCommand(app), newRemoveCommand(app), newUploadsCommand(app))
	add(groupServer, newServeCommand(app), newTransferCommand(app), newDoctorCommand(app), newMigrateCommand(app), newMigrateDBCommand(app), newTransfersCommand(app), newNodesCommand(app), newHealthCommand(app))
	add(groupMore, newVersionCommand(app))
	root.AddCommand(newExitCodesTopic())
	root.SetHelpCommandGroupID(groupMore)
	root.SetCompletionCommandGroupID(groupMore)
	checkArgs(root)
	return root
}

// groupOnly is what a command does that only has commands below it.
func groupOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{errors.New(text)}
}

// checkArgs makes wrong arguments of any command a usageError.
func checkArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkArgs(sub)
	}
}
