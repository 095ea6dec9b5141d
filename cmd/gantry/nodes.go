package main

import (
	"encoding/json"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func newNodesCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes of a cluster, and give lost ones up",
		Long: "List the nodes of a cluster, and give lost ones up. These commands talk to the management listener of any\n" +
			"node (--management, GANTRY_MANAGEMENT), which by default is reached from its own machine only.",
		Args: cobra.ArbitraryArgs,
		RunE: groupOnly,
	}
	cmd.AddCommand(newNodesListCommand(app), newNodesForgetCommand(app))
	return cmd
}

func newNodesListCommand(app *app) *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List nodes", Args: cobra.NoArgs}
	managementFlag(app, cmd, &address)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		m, err := openManagement(address)
		if err != nil {
			return err
		}
		defer m.Close()
		nodes, err := m.Nodes(cmd.Context())
		if err != nil {
			return err
		}
		for i, n := range nodes {
			if asJSON {
				if err := json.NewEncoder(app.stdout).Encode(n); err != nil {
					return err
				}
				continue
			}
			if i == 0 {
				fmt.Fprintf(app.stdout, "%-16s  %-9s  %-14s  %8s  %s\n", "ID", "STATE", "LAST SEEN", "STRANDED", "ADDRESS")
			}
			fmt.Fprintf(app.stdout, "%-16s  %-9s  %-14s  %8d  %s\n", n.ID, n.State, humanize.Time(n.SeenAt), n.Stranded, n.Address)
		}
		return nil
	}
	return cmd
}

func newNodesForgetCommand(app *app) *cobra.Command {
	var address string
	var yes bool
	cmd := &cobra.Command{
		Use:   "forget ID…",
		Short: "Give up nodes that will never be back",
		Long: "Give up nodes that will never be back. Content whose only copy was on one of them is lost: its files answer\n" +
			"410 until the same content is uploaded again. The node cannot start again with its directory.",
		Args: cobra.MinimumNArgs(1),
	}
	managementFlag(app, cmd, &address)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := openManagement(address)
		if err != nil {
			return err
		}
		defer m.Close()
		return each(app, args, func(id string) error {
			if !yes {
				return usageError{fmt.Errorf("what only node %s has will be lost for good; say --yes if that is meant", id)}
			}
			lost, err := m.ForgetNode(cmd.Context(), id)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(app.stdout, "%s  forgotten, %d contents lost\n", id, lost)
			return err
		})
	}
	return cmd
}
