package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gantry/client"
	"gantry/upload"
)

func newListCommand(app *app) *cobra.Command {
	var server connection
	var asJSON bool
	var limit int
	var q client.FileQuery
	var folder string
	cmd := &cobra.Command{
		Use:   "ls [NAME]",
		Short: "List files, newest first",
		Long:  "List files, newest first. NAME selects those that have it in their name, in any case.",
		Args:  cobra.MaximumNArgs(1),
	}
	server.flags(app, cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per file")
	cmd.Flags().StringVar(&folder, "path", "", "only files with exactly this path; \"\" are those without one")
	cmd.Flags().StringVar(&q.Sort, "sort", "-created_at", "created_at, name or size; with \"-\" before it the other way round")
	cmd.Flags().IntVarP(&limit, "limit", "n", 0, "at most so many files; 0: all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("path") {
			q.Path = &folder
		}
		if len(args) > 0 {
			q.Name = args[0]
		}
		q.Limit = 1000
		if limit > 0 {
			q.Limit = min(limit, q.Limit)
		}
		c, err := server.open(app, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		table := fileTable{w: app.stdout, json: asJSON}
		for f, err := range c.Files(cmd.Context(), q) {
			if err != nil {
				return err
			}
			if err := table.row(&f); err != nil {
				return err
			}
			if table.rows == limit {
				break
			}
		}
		return nil
	}
	return cmd
}

// fileTable writes files as they come, so that a long list begins at once.
type fileTable struct {
	w    io.Writer
	json bool
	rows int
}

func (t *fileTable) row(f *client.File) (err error) {
	if t.json {
		err = json.NewEncoder(t.w).Encode(f)
	} else {
		if t.rows == 0 {
			if _, err := fmt.Fprintf(t.w, "%-26s  %9s  %-16s  %-9s  %s\n", "ID", "SIZE", "CREATED", "STATE", "NAME"); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(t.w, "%-26s  %9s  %-16s  %-9s  %s\n", f.ID, humanize.IBytes(uint64(f.Size)),
			f.CreatedAt.Local().Format("2006-01-02 15:04"), fileState(f), oneLine(f.FullName()))
	}
	t.rows++
	return err
}

// fileState is in one word where a file's bytes are.
func fileState(f *client.File) string {
	switch {
	case f.Location == "store":
		return "stored"
	case f.Location == "lost":
		return "lost"
	case f.Transfer != nil:
		return string(f.Transfer.State)
	}
	return f.Location
}

func newStatCommand(app *app) *cobra.Command {
	var server connection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stat ID|NAME…",
		Short: "Show all about a file",
		Args:  cobra.MinimumNArgs(1),
	}
	server.flags(app, cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := server.open(app, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		return each(app, args, func(arg string) error {
			f, err := find(cmd.Context(), c, arg)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(app.stdout).Encode(f)
			}
			return writeFile(app.stdout, &f)
		})
	}
	return cmd
}

func writeFile(w io.Writer, f *client.File) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s  %s\n", key, oneLine(fmt.Sprintf(format, args...)))
	}
	line("name", "%s", f.FullName())
	line("id", "%s", f.ID)
	line("size", "%s (%s bytes)", humanize.IBytes(uint64(f.Size)), humanize.Comma(f.Size))
	line("sha1", "%s", cmp.Or(known(f.SHA1), "not known yet"))
	line("type", "%s", f.ContentType)
	line("created", "%s", f.CreatedAt.Local().Format(time.RFC3339))
	line("updated", "%s", f.UpdatedAt.Local().Format(time.RFC3339))
	for key, value := range f.Metadata {
		line("metadata", "%s = %s", key, value)
	}
	line("location", "%s", f.Location)
	if t := f.Transfer; t != nil {
		line("transfer", "%s", transferText(t))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func transferText(t *client.Transfer) string {
	text := fmt.Sprintf("%s %s", t.State, t.ID)
	if t.Bytes > 0 && t.Bytes < t.Size {
		text += fmt.Sprintf(", %s of %s", humanize.IBytes(uint64(t.Bytes)), humanize.IBytes(uint64(t.Size)))
	}
	if t.Attempts > 1 {
		text += fmt.Sprintf(", attempt %d", t.Attempts)
	}
	if !t.NextAt.IsZero() {
		text += ", next " + humanize.Time(t.NextAt)
	}
	if t.LastError != "" {
		text += ": " + t.LastError
	}
	return text
}

// each does the same with all arguments and goes on after a failure. With several arguments each
// failure names its own.
func each(app *app, args []string, do func(arg string) error) error {
	if len(args) == 1 {
		return do(args[0])
	}
	var codes []int
	for _, arg := range args {
		if err := do(arg); err != nil {
			app.explain(fmt.Errorf("%s: %w", oneLine(arg), err))
			codes = append(codes, exitCode(err))
			if exitCode(err) == exitInterrupted {
				break
			}
		}
	}
	if len(codes) == 0 {
		return nil
	}
	return reported{merge(codes, len(args)-len(codes))}
}

// known is a SHA-1 as text, "" if the server does not know it yet.
func known(sum upload.SHA1) string {
	if sum.IsZero() {
		return ""
	}
	return sum.String()
}
