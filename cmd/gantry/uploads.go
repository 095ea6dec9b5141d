package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gantry/client"
	"gantry/upload"
)

func newUploadsCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uploads",
		Short: "List and cancel unfinished uploads",
		Args:  cobra.ArbitraryArgs,
		RunE:  groupOnly,
	}
	cmd.AddCommand(newUploadsListCommand(app), newUploadsCancelCommand(app))
	return cmd
}

func newUploadsListCommand(app *app) *cobra.Command {
	var server connection
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List unfinished uploads",
		Args:    cobra.NoArgs,
	}
	server.flags(app, cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per upload")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := server.open(app, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		rows := 0
		for u, err := range c.Uploads(cmd.Context()) {
			if err != nil {
				return err
			}
			if asJSON {
				if err := json.NewEncoder(app.stdout).Encode(u); err != nil {
					return err
				}
				continue
			}
			if rows == 0 {
				fmt.Fprintf(app.stdout, "%-34s  %9s  %9s  %5s  %-14s  %s\n", "ID", "RECEIVED", "SIZE", "", "LAST CHUNK", "NAME")
			}
			rows++
			total, share := "unknown", ""
			if u.Size != nil {
				total = humanize.IBytes(uint64(*u.Size))
				share = percent(u.ReceivedBytes, *u.Size)
			}
			name := client.File{Name: u.Name, Path: u.Path}
			fmt.Fprintf(app.stdout, "%-34s  %9s  %9s  %5s  %-14s  %s\n", u.ID, humanize.IBytes(uint64(u.ReceivedBytes)), total, share,
				humanize.Time(u.UpdatedAt), oneLine(name.FullName()))
		}
		return nil
	}
	return cmd
}

func newUploadsCancelCommand(app *app) *cobra.Command {
	var server connection
	cmd := &cobra.Command{
		Use:     "cancel ID…",
		Aliases: []string{"rm"},
		Short:   "Cancel unfinished uploads and delete what they sent",
		Args:    cobra.MinimumNArgs(1),
	}
	server.flags(app, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := server.open(app, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		return each(app, args, func(id string) error { return c.Cancel(cmd.Context(), id) })
	}
	return cmd
}

func newTransfersCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfers",
		Short: "List, retry and cancel transfers to the store",
		Long: "List, retry and cancel transfers to the store. These commands talk to the server's management\n" +
			"listener (--management, GANTRY_MANAGEMENT), which by default is reached from its own machine only.",
		Args: cobra.ArbitraryArgs,
		RunE: groupOnly,
	}
	cmd.AddCommand(newTransfersListCommand(app),
		newTransferChangeCommand(app, "retry", "Try transfers again now", (*client.Management).RetryTransfer),
		newTransferChangeCommand(app, "cancel", "Stop transfers; their bytes stay where they are", (*client.Management).CancelTransfer))
	return cmd
}

// management opens the management listener that --management names.
func openManagement(address string) (*client.Management, error) {
	m, err := client.NewManagement(client.Options{BaseURL: withScheme(address), UserAgent: "gantry/" + version()})
	if err != nil {
		return nil, usageError{fmt.Errorf("%q is not the address of a management listener, like %s", address, client.DefaultManagementURL)}
	}
	return m, nil
}

func newTransfersListCommand(app *app) *cobra.Command {
	var address string
	var states []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List transfers, newest first",
		Args:    cobra.NoArgs,
	}
	managementFlag(app, cmd, &address)
	cmd.Flags().StringSliceVar(&states, "state", nil, "only these: queued, running, verifying, stored, retrying, dead, cancelled")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per transfer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		m, err := openManagement(address)
		if err != nil {
			return err
		}
		defer m.Close()
		wanted := make([]upload.TransferState, len(states))
		for i, s := range states {
			wanted[i] = upload.TransferState(s)
		}
		transfers, err := m.Transfers(cmd.Context(), wanted...)
		if err != nil {
			return err
		}
		for i, t := range transfers {
			if asJSON {
				if err := json.NewEncoder(app.stdout).Encode(t); err != nil {
					return err
				}
				continue
			}
			if i == 0 {
				fmt.Fprintf(app.stdout, "%-26s  %-9s  %-10s  %9s  %5s  %8s  %-14s  %s\n", "ID", "STATE", "STORE", "SIZE", "SENT", "ATTEMPTS", "CHANGED", "LAST ERROR")
			}
			fmt.Fprintf(app.stdout, "%-26s  %-9s  %-10s  %9s  %5s  %8d  %-14s  %s\n", t.ID, t.State, t.Store, humanize.IBytes(uint64(t.Size)),
				percent(t.Bytes, t.Size), t.Attempts, humanize.Time(t.UpdatedAt), oneLine(t.LastError))
		}
		return nil
	}
	return cmd
}

func managementFlag(app *app, cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "management", app.env("GANTRY_MANAGEMENT", client.DefaultManagementURL), "the management listener's address (GANTRY_MANAGEMENT)")
}

func newTransferChangeCommand(app *app, name, short string,
	do func(*client.Management, context.Context, string) (client.AdminTransfer, error),
) *cobra.Command {
	var address string
	cmd := &cobra.Command{Use: name + " ID…", Short: short, Args: cobra.MinimumNArgs(1)}
	managementFlag(app, cmd, &address)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := openManagement(address)
		if err != nil {
			return err
		}
		defer m.Close()
		return each(app, args, func(id string) error {
			t, err := do(m, cmd.Context(), id)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(app.stdout, "%s  %s\n", t.ID, t.State)
			return err
		})
	}
	return cmd
}

// withScheme lets a server's address be what it is for "serve": HOST:PORT, without a scheme.
func withScheme(address string) string {
	if _, _, err := net.SplitHostPort(address); err != nil || strings.Contains(address, "://") {
		return address
	}
	return "http://" + address
}
