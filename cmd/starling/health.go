package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
)

func newHealth() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask the node on this machine whether it is ready",
		Long: "Ask the node on this machine, on the first address of admin.listen, whether it is\n" +
			"ready. Prints what it answers; exit status 1 if it is not. For containers, in\n" +
			"which there is no other program that could ask.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configOf(cmd)
			if err != nil {
				return err
			}
			answer, err := askReady(cmd.Context(), cfg.Admin.Listen)
			cmd.Print(answer)
			return err
		},
	}
}

// askReady asks the node that listens there, and returns its answer.
func askReady(ctx context.Context, listen []string) (string, error) {
	if len(listen) == 0 {
		return "", usageError{errors.New("admin.listen: is empty, so nobody can ask the node")}
	}
	host, port, err := net.SplitHostPort(listen[0])
	if err != nil {
		return "", usageError{fmt.Errorf("admin.listen: %w", err)}
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1" // no name: a container may have nobody who knows it
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("is the node ready: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("is the node ready: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return string(answer), errors.New("the node is not ready")
	}
	return string(answer), nil
}
