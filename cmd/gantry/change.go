package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gantry/client"
)

func newRemoveCommand(app *app) *cobra.Command {
	var server connection
	var yes bool
	cmd := &cobra.Command{
		Use:   "rm ID|NAME…",
		Short: "Delete files",
		Long:  "Delete files. Asks before each one if a terminal is there to answer, unless --yes is given.",
		Args:  cobra.MinimumNArgs(1),
	}
	server.flags(app, cmd.Flags())
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := server.open(app, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		answers := bufio.NewReader(app.stdin)
		return each(app, args, func(arg string) error {
			f, err := find(cmd.Context(), c, arg)
			if err != nil {
				return err
			}
			if !yes && isTerminal(app.stdin) {
				fmt.Fprintf(app.stderr, "delete %s (%s)? [y/N] ", oneLine(f.FullName()), humanize.IBytes(uint64(f.Size)))
				if !confirmed(answers) {
					return nil
				}
			}
			return c.Delete(cmd.Context(), f.ID)
		})
	}
	return cmd
}

func confirmed(r *bufio.Reader) bool {
	line, err := r.ReadString('\n')
	if err != nil && err != io.EOF {
		return false
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}

func newMoveCommand(app *app) *cobra.Command {
	var server connection
	cmd := &cobra.Command{
		Use:   "mv ID|NAME NEW",
		Short: "Rename or move a file",
		Long: "Rename or move a file. NEW is its path and name; with \"/\" at the end only the path:\n\n" +
			"  gantry mv img1.jpg holiday/beach.jpg\n  gantry mv img1.jpg holiday/\n  gantry mv holiday/beach.jpg /",
		Args: cobra.ExactArgs(2),
	}
	server.flags(app, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		folder, name := path.Split(args[1])
		folder = strings.Trim(folder, "/")
		if args[1] == "" {
			return usageError{errors.New("the new name is empty")}
		}
		c, err := server.open(app, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		f, err := find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		change := client.FileChange{Path: &folder}
		if name != "" {
			change.Name = &name
		}
		f, err = c.Update(cmd.Context(), f.ID, change)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(app.stdout, "%s  %s\n", f.ID, oneLine(f.FullName()))
		return err
	}
	return cmd
}
