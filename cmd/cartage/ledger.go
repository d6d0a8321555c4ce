package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// servedLedger is a ledger that this process runs.
type servedLedger struct {
	url, tokenFile string
	done           chan error
	stop           context.CancelFunc
	l              *ledger.Ledger
}

func (s *servedLedger) close() {
	s.stop()
	<-s.done
	_ = s.l.Close()
}

// listenAgain takes the port of the last time if none is asked for, so that the URL stays the same.
func listenAgain(h config.Home, listen string) (net.Listener, error) {
	if host, _, err := net.SplitHostPort(listen); err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return nil, api.Errorf(api.CodeUsage, "For example --listen 127.0.0.1:4000.", "%q is not a loopback address: without TLS the ledger is served on this machine only", listen)
	}
	file := h.Path("listen")
	if data, err := os.ReadFile(file); err == nil && listen == anyPort {
		if ln, err := net.Listen("tcp", strings.TrimSpace(string(data))); err == nil {
			return ln, nil
		}
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	if err := blob.WriteFile(blob.OS{}, file, []byte(ln.Addr().String()+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

const anyPort = "127.0.0.1:0"

func openLedger(ctx context.Context, h config.Home) (*ledger.Ledger, error) {
	l, err := ledger.Open(ctx, h.Dir)
	switch {
	case errors.Is(err, store.ErrLocked):
		return nil, api.Errorf(api.CodeOther, "Its URL is in "+h.Path("api")+".", "another process serves the ledger in %s: %w", h.Dir, err)
	case errors.Is(err, ledger.ErrNotLedger):
		return nil, api.Errorf(api.CodeUsage, "Make one with cartage ledger init.", "%w", err)
	}
	return l, err
}

func serveLedger(ctx context.Context, h config.Home, listen string) (*servedLedger, error) {
	l, err := openLedger(ctx, h)
	if err != nil {
		return nil, err
	}
	if err := node.MakeToken(blob.OS{}, h.Path("token")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	token, err := node.ReadToken(h.Path("token"))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ln, err := listenAgain(h, listen)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &servedLedger{url: "http://" + ln.Addr().String(), tokenFile: h.Path("token"), done: make(chan error, 1), stop: cancel, l: l}
	if err := blob.WriteFile(blob.OS{}, h.Path("api"), []byte(s.url+"\n"), 0o600); err != nil {
		cancel()
		return nil, errors.Join(err, ln.Close(), l.Close())
	}
	go func() { s.done <- l.Serve(ctx, ln, token) }()
	return s, nil
}

func (c *cli) ledgerCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "ledger", Short: "The embedded ledger: a process and a home of its own"})
	o := ledger.Options{}
	initCmd := &cobra.Command{
		Use: "init", Short: "Make a ledger in the home", Args: c.args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(h.Dir, 0o700); err != nil {
				return err
			}
			if err := ledger.Init(h.Dir, o); err != nil {
				return err
			}
			return c.show(map[string]any{"home": h.Dir, "dev": o.Dev, "epoch": o.Epoch.String(), "settle_delay": o.SettleDelay},
				[][2]string{{"ledger", h.Dir}, {"epoch", o.Epoch.String()}, {"settle delay", fmt.Sprint(o.SettleDelay, " epochs")}, {"faucet", fmt.Sprint(o.Dev)}})
		},
	}
	initCmd.Flags().BoolVar(&o.Dev, "dev", false, "with a faucet that gives money away")
	initCmd.Flags().DurationVar(&o.Epoch, "epoch", 30*time.Second, "length of an epoch")
	initCmd.Flags().Uint64Var(&o.SettleDelay, "settle-delay", 1440, "epochs between settle and collect")
	var listen string
	serve := &cobra.Command{
		Use: "serve", Short: "Serve the ledger over loopback HTTP until SIGINT or SIGTERM", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			s, err := serveLedger(cmd.Context(), h, listen)
			if err != nil {
				return err
			}
			if c.json {
				err = printJSON(os.Stdout, map[string]any{"event": "ready", "url": s.url, "token_file": s.tokenFile})
			} else {
				fmt.Println("url       ", s.url)
				fmt.Println("token file", s.tokenFile)
				fmt.Println("ready; stop with Ctrl-C")
			}
			select {
			case <-cmd.Context().Done():
				s.close()
				return err
			case err := <-s.done: // it cannot serve, for example because somebody closed its socket
				s.stop()
				return errors.Join(err, s.l.Close())
			}
		},
	}
	serve.Flags().StringVar(&listen, "listen", anyPort, "loopback address and port")
	cmd.AddCommand(initCmd, serve, c.ledgerVerify())
	return cmd
}

// ledgerVerify checks the whole history of a ledger that nobody serves.
func (c *cli) ledgerVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Check that the state follows from the signed transactions of the log", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			l, err := openLedger(cmd.Context(), h)
			if err != nil {
				return err
			}
			defer l.Close()
			if err := l.Verify(); err != nil {
				return api.Errorf(api.CodeVerification, "The ledger was edited or its disk is bad: restore a backup.", "%w", err)
			}
			a, err := l.Audit()
			if err != nil {
				return err
			}
			return c.show(map[string]any{"ok": a.Conserved, "minted": a.Minted.String(), "accounts": a.Accounts.String(), "channels": a.Channels.String()},
				[][2]string{{"log and state", "agree"}, {"minted", a.Minted.String()}, {"in accounts", a.Accounts.String()}, {"in channels", a.Channels.String()}})
		},
	}
}
