package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/ui"
)

// dashboardCmd opens the dashboard of the daemon in a browser.
func (o operator) dashboardCmd() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "dashboard", Short: "Open the dashboard of the daemon in a browser", Args: o.c.args(cobra.NoArgs),
		Long:    "Dashboard asks the daemon for a page that signs you in once, within a minute, and opens it. Nobody else can use it after you.\n\nExit codes: 0, 3 no daemon runs on the home.",
		Example: "  cartage dashboard\n  cartage dashboard --print",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.c.onNode(cmd.Context(), func(ctx context.Context, n *api.Node) error { return o.openDashboard(ctx, n, show) }, true)
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "print the address instead of opening it")
	return cmd
}

func (o operator) openDashboard(ctx context.Context, n *api.Node, show bool) error {
	page, err := n.DashboardCode(ctx)
	if err != nil {
		return err
	}
	if o.c.json {
		return printSchema(os.Stdout, "dashboard", page)
	}
	if !show && isTerminal(os.Stdout) && openBrowser(ctx, page.URL) == nil {
		say("opened %s\n", page.URL)
		return nil
	}
	say("%s\n", page.URL)
	note("good for one use within %s\n", ui.Lasting(time.Duration(page.Seconds*float64(time.Second))))
	return nil
}

// openBrowser opens a page with the program that the system has for it.
func openBrowser(ctx context.Context, url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	return exec.CommandContext(ctx, name, args...).Start()
}
