package main

import (
	"context"
	"errors"
	"fmt"
	"github.com/cartage-dev/cartage/internal/reason"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/rpc"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// servedLedger is a ledger that this process runs.
type servedLedger struct {
	url, tokenFile, certFile string
	done                     chan error
	stop                     context.CancelFunc
	l                        *ledger.Ledger
}

func (s *servedLedger) close() {
	s.stop()
	<-s.done
	_ = s.l.Close()
}

// serveOptions are the choices of ledger serve.
type serveOptions struct {
	listen  string // host:port, or unix for the socket in the home
	tls     bool
	confirm bool
}

const (
	anyPort    = "127.0.0.1:0"
	unixSocket = "unix"
)

// listenAgain takes the port of the last time if none is asked for, so that the URL stays the same.
func listenAgain(h config.Home, o serveOptions) (net.Listener, error) {
	if o.listen == unixSocket {
		return listenUnix(h.Path("ledger.sock"))
	}
	if host, _, err := net.SplitHostPort(o.listen); err != nil || !o.tls && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return nil, api.Errorf(api.CodeUsage, "For example --listen 127.0.0.1:4000, --listen unix, or --listen 0.0.0.0:4000 --tls.",
			"%q is not a loopback address: without TLS the ledger is served on this machine only", o.listen)
	}
	file := h.Path("listen")
	if data, err := os.ReadFile(file); err == nil && o.listen == anyPort {
		if ln, err := net.Listen("tcp", strings.TrimSpace(string(data))); err == nil {
			return ln, nil
		}
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, err
	}
	if err := blob.WriteFile(blob.OS{}, file, []byte(ln.Addr().String()+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// listenUnix listens on a socket that only this user may open. One that a killed process left is replaced: the store is locked by us.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

func openLedger(ctx context.Context, h config.Home, options ...ledger.Option) (*ledger.Ledger, error) {
	if _, err := os.Stat(h.Dir); err == nil {
		if err := h.CheckPrivate(); err != nil {
			return nil, err
		}
	}
	l, err := ledger.Open(ctx, h.Dir, options...)
	switch {
	case errors.Is(err, store.ErrLocked):
		return nil, reason.HomeBusy.Errorf("another process serves the ledger in %s: %w", h.Dir, err).WithHint("Its URL is in " + h.Path("api") + ".")
	case errors.Is(err, ledger.ErrNotLedger):
		return nil, api.Errorf(api.CodeUsage, "Make one with cartage ledger init.", "%w", err)
	}
	return l, err
}

func serveLedger(ctx context.Context, h config.Home, o serveOptions) (*servedLedger, error) {
	var options []ledger.Option
	if o.confirm {
		options = append(options, ledger.ConfirmClock())
	}
	l, err := openLedger(ctx, h, options...)
	if err != nil {
		return nil, err
	}
	s := &servedLedger{tokenFile: h.Path("token"), done: make(chan error, 1), l: l}
	ln, token, err := s.listen(h, o)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := blob.WriteFile(blob.OS{}, h.Path("api"), []byte(s.url+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, ln.Close(), l.Close())
	}
	ctx, s.stop = context.WithCancel(ctx)
	go func() { s.done <- l.Serve(ctx, ln, token) }()
	return s, nil
}

// listen opens the listener, and says under which URL and with which files it is reached.
func (s *servedLedger) listen(h config.Home, o serveOptions) (net.Listener, string, error) {
	if err := node.MakeToken(blob.OS{}, s.tokenFile); err != nil {
		return nil, "", err
	}
	token, err := node.ReadToken(s.tokenFile)
	if err != nil {
		return nil, "", err
	}
	ln, err := listenAgain(h, o)
	if err != nil {
		return nil, "", err
	}
	switch {
	case o.listen == unixSocket:
		s.url = "unix://" + ln.Addr().String()
	case !o.tls:
		s.url = "http://" + ln.Addr().String()
	default:
		cert, file, err := ledger.Certificate(blob.OS{}, h.Dir)
		if err != nil {
			return nil, "", errors.Join(err, ln.Close())
		}
		s.url, s.certFile = "https://"+reachable(ln.Addr().(*net.TCPAddr)), file
		ln = rpc.Encrypt(ln, cert)
	}
	return ln, token, nil
}

// reachable is the address of a listener for those who connect: one of every interface is reached on this machine by its loopback.
func reachable(a *net.TCPAddr) string {
	if a.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", a.Port)
	}
	return a.String()
}

func (c *cli) ledgerCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "ledger", Short: "The embedded ledger: a process and a home of its own"})
	cmd.AddCommand(c.ledgerInit(), c.ledgerServe(), c.ledgerInfo(), c.ledgerMint(), c.ledgerVerify(), c.ledgerRepair())
	return cmd
}

func (c *cli) ledgerInit() *cobra.Command {
	o := ledger.Options{}
	cmd := &cobra.Command{
		Use: "init", Short: "Make a ledger in the home", Args: c.args(cobra.NoArgs),
		Long: "Make a ledger in the home. Somebody who is paid must look at the ledger at least once in each settle delay: with the defaults that is\n" +
			"12 h (1,440 epochs of 30 s), and of a development ledger a minute (300 epochs of 200 ms). Below 10 s nodes take no payments.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			devDefaults(cmd, &o)
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
	cmd.Flags().BoolVar(&o.Dev, "dev", false, "with a faucet that gives money away")
	cmd.Flags().DurationVar(&o.Epoch, "epoch", 30*time.Second, "length of an epoch")
	cmd.Flags().Uint64Var(&o.SettleDelay, "settle-delay", 1440, "epochs between settle and collect")
	return cmd
}

// devDefaults gives a development ledger short epochs, where none were asked for.
func devDefaults(cmd *cobra.Command, o *ledger.Options) {
	if !o.Dev || cmd.Flags().Changed("epoch") || cmd.Flags().Changed("settle-delay") {
		return
	}
	o.Epoch, o.SettleDelay = 200*time.Millisecond, 300
}

func (c *cli) ledgerServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the ledger until SIGINT or SIGTERM: over loopback HTTP, a Unix socket, or TLS", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			s, err := serveLedger(cmd.Context(), h, o)
			if err != nil {
				return err
			}
			if err := c.ledgerReady(s); err != nil {
				s.close()
				return err
			}
			select {
			case <-cmd.Context().Done():
				s.close()
				return nil
			case err := <-s.done: // it cannot serve, for example because somebody closed its socket
				s.stop()
				return errors.Join(err, s.l.Close())
			}
		},
	}
	cmd.Flags().StringVar(&o.listen, "listen", anyPort, "address and port (loopback, unless with --tls), or unix for a socket in the home")
	cmd.Flags().BoolVar(&o.tls, "tls", false, "over TLS, with a certificate that is made in the home")
	cmd.Flags().BoolVar(&o.confirm, "confirm-clock", false, "the clock is right although it is far ahead of the last use")
	return cmd
}

func (c *cli) ledgerReady(s *servedLedger) error {
	if c.json {
		return printJSON(os.Stdout, map[string]any{"event": "ready", "url": s.url, "token_file": s.tokenFile, "cert_file": s.certFile})
	}
	say("url         %v\n", s.url)
	say("token file  %v\n", s.tokenFile)
	if s.certFile != "" {
		say("certificate %v\n", s.certFile)
		say("            other machines need both files, and the name or address of this one in the URL:\n")
		say("            cartage init --ledger URL --ledger-token-file FILE --ledger-cert FILE\n")
	}
	say("ready; stop with Ctrl-C\n")
	return nil
}
