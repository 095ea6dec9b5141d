package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTime is how long a server may take to say how it is; the checks of /readyz have 5 s.
const healthTime = 8 * time.Second

func newHealthCommand(app *app) *cobra.Command {
	var address string
	var live bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a server whether it can do its work; for containers",
		Long: "Ask a server whether it can do its work, and say what it lacks. For the health check of a container, whose\n" +
			"image has no other program. Exit code 0: it can. Of gantry transfer give its management address.",
		Args: cobra.NoArgs,
	}
	managementFlag(app, cmd, &address)
	cmd.Flags().BoolVar(&live, "live", false, "only whether it answers")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !strings.Contains(address, "://") {
			address = "http://" + address // as settings have it
		}
		lacking, err := askHealth(cmd.Context(), strings.TrimSuffix(address, "/"), live)
		if err != nil {
			return fmt.Errorf("the server at %s does not say how it is: %w", address, err)
		}
		if lacking == "" {
			_, err := fmt.Fprintln(app.stdout, "ok")
			return err
		}
		fmt.Fprintln(app.stdout, lacking)
		return reported{exitSome}
	}
	return cmd
}

// askHealth returns what a server lacks, a line for each; "" if nothing.
func askHealth(ctx context.Context, address string, live bool) (lacking string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	path := "/readyz"
	if live {
		path = "/healthz"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return "", nil
	}
	var answer struct {
		Checks []struct {
			Name, Reason string
			OK           bool
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Checks) == 0 {
		return "", fmt.Errorf("it answered %s", resp.Status)
	}
	var lines []string
	for _, check := range answer.Checks {
		if !check.OK {
			lines = append(lines, check.Name+": "+check.Reason)
		}
	}
	return strings.Join(lines, "\n"), nil
}
