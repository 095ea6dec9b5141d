package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gantry/config"
	"gantry/server/ingest"
)

func newDoctorCommand(app *app) *cobra.Command {
	var opt ingest.ExamineOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check a data directory: database against bytes, both ways",
		Long: "Check a data directory: that every file has its bytes, that nothing lies around unused, and with\n" +
			"--deep that all digests are right. Says what it would repair; --repair does it. The server must not\n" +
			"run on the directory. Exit code 1 means that problems were found and not repaired.",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	config.AddDataFlags(flags)
	flags.BoolVar(&opt.Deep, "deep", false, "read all bytes and compare their digests")
	flags.BoolVar(&opt.Repair, "repair", false, "repair what is found")
	flags.BoolVar(&asJSON, "json", false, "one JSON object per finding")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), app.environ)
		if err != nil {
			return usageError{err}
		}
		return nodeFailure(examine(cmd, app, &c, opt, asJSON))
	}
	return cmd
}

func examine(cmd *cobra.Command, app *app, c *config.Config, opt ingest.ExamineOptions, asJSON bool) (err error) {
	ctx := cmd.Context()
	// To a database made now all bytes would be garbage, and a mistyped directory would be well.
	mark := databaseName
	if c.Database != "" {
		mark = databaseMark
	}
	if _, err := os.Stat(filepath.Join(c.Data, mark)); err != nil {
		return fmt.Errorf("%s has no data of Gantry's that could be checked: %w", c.Data, err)
	}
	n, err := openNode(ctx, c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	found, open := 0, 0
	err = n.ingest.Examine(ctx, opt, func(f ingest.Finding) {
		found++
		if !f.Repaired {
			open++
		}
		if asJSON {
			_ = json.NewEncoder(app.stdout).Encode(f)
			return
		}
		would := "would repair: "
		if f.Repaired {
			would = "repaired: "
		}
		fmt.Fprintf(app.stdout, "%s  %s\n    %s%s\n", f.ID, f.Problem, would, f.Repair)
	})
	if err != nil {
		return err
	}
	if !asJSON {
		switch {
		case found == 0:
			fmt.Fprintln(app.stdout, "no problems found")
		case open == 0:
			fmt.Fprintf(app.stdout, "%s found and repaired\n", plural(found, "problem"))
		default:
			fmt.Fprintf(app.stdout, "%s found; run with --repair to repair\n", plural(open, "problem"))
		}
	}
	if open > 0 {
		return reported{exitSome} // the findings are printed already
	}
	return nil
}
