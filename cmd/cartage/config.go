package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
)

// configVerbs are the verbs about the configuration of a home.
type configVerbs struct{ *cli }

func configCmd(c *cli) *cobra.Command {
	v := configVerbs{c}
	cmd := c.group(&cobra.Command{Use: "config", Short: "The configuration of this node: config.toml, the environment and flags",
		Long: "The configuration of this node. A flag wins over a variable of the environment (CARTAGE_TABLE_KEY), that over config.toml, and that over the default."})
	cmd.AddCommand(v.showCmd(), v.getCmd(), v.setCmd(), v.validateCmd(), v.editCmd(), v.reloadCmd())
	return cmd
}

// logCmd changes what the running daemon logs.
func logCmd(c *cli) *cobra.Command {
	v := configVerbs{c}
	cmd := c.group(&cobra.Command{Use: "log", Short: "What the daemon logs"})
	cmd.AddCommand(&cobra.Command{Use: "level [LEVEL]", Short: "Show or change the level of the log: debug, info, warn or error", Args: v.args(cobra.MaximumNArgs(1)),
		Long:    "Show or change the level of the log: debug, info, warn or error. A running daemon follows at once; the level is kept in config.toml as log.level.",
		Example: "  cartage log level debug",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return v.showKey(cmd.Context(), "log.level")
			}
			h, err := v.home()
			if err != nil {
				return err
			}
			if err := h.Edit(map[string]string{"log.level": args[0]}); err != nil {
				return err
			}
			return v.tell(cmd.Context(), h)
		}})
	return cmd
}

// keys are those of the daemon, or, with none running, those of the home.
func (v configVerbs) keys(ctx context.Context) ([]api.ConfigKey, error) {
	h, err := v.home()
	if err != nil {
		return nil, err
	}
	remote, done, err := node.Dial(ctx, h)
	if err != nil {
		return nil, err
	}
	if remote != nil {
		defer done()
		return remote.ConfigShow(ctx)
	}
	l, err := node.ReadConfig(h)
	if err != nil {
		return nil, err
	}
	for _, w := range l.Warnings {
		note("cartage: %v\n", errors.New(w))
	}
	return node.ConfigKeys(&l.Config, l.Origin), nil
}

func (v configVerbs) showCmd() *cobra.Command {
	var origin, changed bool
	cmd := &cobra.Command{Use: "show", Short: "Show every key with its value", Args: v.args(cobra.NoArgs),
		Example: "  cartage config show --changed --origin",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := v.keys(cmd.Context())
			if err != nil {
				return err
			}
			shown := []api.ConfigKey{}
			for _, k := range list {
				if !changed || k.Value != k.Default {
					shown = append(shown, k)
				}
			}
			header := []string{"KEY", "VALUE"}
			if origin {
				header = append(header, "ORIGIN")
			}
			return table(v.cli, shown, header, func(k api.ConfigKey) []string {
				if origin {
					return []string{k.Key, k.Value, k.Origin}
				}
				return []string{k.Key, k.Value}
			}, "every key has its default")
		}}
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value is from: default, config.toml:LINE, a variable, a flag, or live after a reload")
	cmd.Flags().BoolVar(&changed, "changed", false, "only keys that differ from their default")
	return cmd
}

func (v configVerbs) getCmd() *cobra.Command {
	return &cobra.Command{Use: "get KEY", Short: "Print the value of a key", Args: v.args(cobra.ExactArgs(1)),
		Example: "  cartage config get retrieval.max_exposure",
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.showKey(cmd.Context(), args[0])
		}}
}

func (v configVerbs) showKey(ctx context.Context, name string) error {
	k, err := config.Lookup(name)
	if err != nil {
		return err
	}
	list, err := v.keys(ctx)
	if err != nil {
		return err
	}
	for _, row := range list {
		if row.Key != k.Name {
			continue
		}
		if v.json {
			return printJSON(os.Stdout, row)
		}
		say("%s\n", row.Value)
	}
	return nil
}

func (v configVerbs) setCmd() *cobra.Command {
	return &cobra.Command{Use: "set KEY VALUE", Short: "Change a key in config.toml; comments and everything else stay", Args: v.args(cobra.ExactArgs(2)),
		Long:    "Change a key in config.toml; comments and everything else stay. The file is checked whole and replaced in one step. A running daemon is told.",
		Example: "  cartage config set retrieval.cache_bytes 20GiB\n  cartage config set limits.deals_peer 32",
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := v.home()
			if err != nil {
				return err
			}
			if err := h.Edit(map[string]string{args[0]: args[1]}); err != nil {
				return err
			}
			return v.tell(cmd.Context(), h)
		}}
}

// tell lets a running daemon take a changed file over.
func (v configVerbs) tell(ctx context.Context, h config.Home) error {
	remote, done, err := node.Dial(ctx, h)
	if err != nil {
		return err
	}
	change := &api.ConfigChange{Applied: []string{}, Restart: []string{}}
	if remote != nil {
		defer done()
		if change, err = remote.ConfigReload(ctx); err != nil {
			return err
		}
	}
	if v.json {
		return printJSON(os.Stdout, change)
	}
	switch {
	case remote == nil:
		say("written; no daemon runs on this home\n")
	case len(change.Applied)+len(change.Restart) == 0:
		say("nothing differs from what the daemon runs with\n")
	}
	if len(change.Applied) > 0 {
		say("in force: %s\n", strings.Join(change.Applied, ", "))
	}
	if len(change.Restart) > 0 {
		say("at the next start of the daemon: %s\n", strings.Join(change.Restart, ", "))
	}
	return nil
}

func (v configVerbs) validateCmd() *cobra.Command {
	return &cobra.Command{Use: "validate [FILE]", Short: "Check config.toml, or another file, and tell all its faults", Args: v.args(cobra.MaximumNArgs(1)),
		Example: "  cartage config validate",
		RunE: func(_ *cobra.Command, args []string) error {
			h, err := v.home()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				_, err = node.ReadConfig(h)
			} else {
				var text []byte
				if text, err = os.ReadFile(args[0]); err == nil {
					err = config.Check(args[0], text)
				}
			}
			if err != nil {
				return err
			}
			if v.json {
				return printJSON(os.Stdout, map[string]any{"valid": true})
			}
			say("valid\n")
			return nil
		}}
}

func (v configVerbs) editCmd() *cobra.Command {
	return &cobra.Command{Use: "edit", Short: "Edit a copy of config.toml with $VISUAL or $EDITOR; it is taken if it is valid", Args: v.args(cobra.NoArgs),
		Example: "  EDITOR=nano cartage config edit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := v.home()
			if err != nil {
				return err
			}
			text, err := editCopy(cmd.Context(), h)
			if err != nil {
				return err
			}
			if err := h.Replace(text); err != nil {
				return err
			}
			return v.tell(cmd.Context(), h)
		}}
}

// editCopy is the configuration after somebody edited a copy of it.
func editCopy(ctx context.Context, h config.Home) (text []byte, err error) {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		return nil, reason.Usage.Errorf("neither VISUAL nor EDITOR is set").WithHint("Say EDITOR=nano cartage config edit, or use cartage config set.")
	}
	if text, err = os.ReadFile(h.Path("config.toml")); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "cartage-config-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return nil, err
	}
	edit := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", name)
	edit.Stdin, edit.Stdout, edit.Stderr = os.Stdin, os.Stderr, os.Stderr
	if err := edit.Run(); err != nil {
		return nil, reason.Interrupted.Errorf("%s: %w", editor, err).WithHint("The configuration is as it was.")
	}
	return os.ReadFile(name)
}

func (v configVerbs) reloadCmd() *cobra.Command {
	return &cobra.Command{Use: "reload", Short: "Let the running daemon read its configuration again", Args: v.args(cobra.NoArgs),
		Long:    "Let the running daemon read its configuration again. If it holds, all keys that a running daemon takes over are in force at once; if not, none. SIGHUP does the same.",
		Example: "  cartage config reload",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := v.home()
			if err != nil {
				return err
			}
			if _, err := node.ReadConfig(h); err != nil {
				return err
			}
			remote, done, err := node.Dial(cmd.Context(), h)
			if err != nil {
				return err
			}
			if remote == nil {
				return reason.DaemonAway.Errorf("no daemon runs on %s", h.Dir)
			}
			done()
			return v.tell(cmd.Context(), h)
		}}
}
