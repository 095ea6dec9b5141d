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
	var asJSON, adopt bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check a data directory: database against bytes, both ways",
		Long: "Check a data directory: that every file has its bytes, that nothing lies around unused, and with\n" +
			"--deep that all digests are right. Says what it would repair; --repair does it. The server must not\n" +
			"run on the directory. Exit code 1 means that problems were found and not repaired.\n\n" +
			"With --store it checks a store of the configuration instead: that it can be reached, that the\n" +
			"credentials may do what a server does there, and the bucket's settings. The server may run.",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	config.AddDataFlags(flags)
	flags.Lookup("store").Usage = "check this store of the configuration, and not the data directory"
	flags.BoolVar(&opt.Deep, "deep", false, "read all bytes and compare their digests")
	flags.BoolVar(&opt.Repair, "repair", false, "repair what is found")
	flags.BoolVar(&asJSON, "json", false, "one JSON object per finding")
	flags.BoolVar(&adopt, "adopt", false, "with --store: what is in the store is this server's, whatever it says")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), app.environ)
		if err != nil {
			return usageError{err}
		}
		if cmd.Flags().Changed("store") {
			return nodeFailure(examineStore(cmd.Context(), app, &c, c.Store, adopt, asJSON))
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
	told := findings{app: app, asJSON: asJSON}
	if err := n.ingest.Examine(ctx, opt, told.add); err != nil {
		return err
	}
	return told.end()
}

// findings prints what is found wrong.
type findings struct {
	app         *app
	asJSON      bool
	found, open int
}

func (t *findings) add(f ingest.Finding) {
	if !f.Note {
		t.found++
	}
	if !f.Note && !f.Repaired {
		t.open++
	}
	if t.asJSON {
		_ = json.NewEncoder(t.app.stdout).Encode(f)
		return
	}
	would := "would repair: "
	switch {
	case f.Note:
		would = "note: "
	case f.Repaired:
		would = "repaired: "
	}
	fmt.Fprintf(t.app.stdout, "%s  %s\n    %s%s\n", f.ID, f.Problem, would, f.Repair)
}

// end tells how many there were. What was not repaired is a failure.
func (t *findings) end() error {
	if !t.asJSON {
		switch {
		case t.found == 0:
			fmt.Fprintln(t.app.stdout, "no problems found")
		case t.open == 0:
			fmt.Fprintf(t.app.stdout, "%s found and repaired\n", plural(t.found, "problem"))
		default:
			fmt.Fprintf(t.app.stdout, "%s found; run with --repair to repair\n", plural(t.open, "problem"))
		}
	}
	if t.open > 0 {
		return reported{exitSome} // the findings are printed already
	}
	return nil
}
