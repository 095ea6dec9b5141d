package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
			"image has no other program. Exit code 0: it can, 1: it cannot or does not answer. Of gantry transfer give its\n" +
			"management address.",
		Args: cobra.NoArgs,
	}
	managementFlag(app, cmd, &address)
	cmd.Flags().BoolVar(&live, "live", false, "only whether it answers")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !strings.Contains(address, "://") {
			address = "http://" + address // as settings have it
		}
		lacking := askHealth(cmd.Context(), strings.TrimSuffix(address, "/"), live)
		if lacking == "" {
			_, err := fmt.Fprintln(app.stdout, "ok")
			return err
		}
		fmt.Fprintln(app.stdout, lacking)
		return reported{exitSome} // whatever the cause: a health check knows no other code
	}
	return cmd
}

// askHealth returns in one line what a server lacks; "" if nothing.
func askHealth(ctx context.Context, address string, live bool) string {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	path := "/readyz"
	if live {
		path = "/healthz"
	}
	silent := func(why any) string { return fmt.Sprintf("the server at %s does not say how it is: %v", address, why) }
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+path, nil)
	if err != nil {
		return silent(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the address is told already
		}
		return silent(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return ""
	}
	var answer struct {
		Checks []struct {
			Name, Reason string
			OK           bool
		}
	}
	// Whatever the body is: what it does not say, the status does.
	_ = json.NewDecoder(resp.Body).Decode(&answer)
	var lacking []string
	for _, check := range answer.Checks {
		if !check.OK {
			lacking = append(lacking, check.Name+": "+check.Reason)
		}
	}
	if len(lacking) == 0 {
		return silent("it answered " + resp.Status)
	}
	return strings.ReplaceAll(strings.Join(lacking, "; "), "\n", " ")
}
