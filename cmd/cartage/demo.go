package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// demoFlags are the choices of the demo.
type demoFlags struct {
	file, size, price, interval, unseal, transport string
	keep, http                                     bool
}

// demoResult is the last line of demo --json.
type demoResult struct {
	OK              bool    `json:"ok"`
	Root            string  `json:"root"`
	PieceCID        string  `json:"piece_cid"`
	Bytes           uint64  `json:"bytes"`
	FileBytes       int64   `json:"file_bytes"`
	Blocks          int     `json:"blocks"`
	Seconds         float64 `json:"seconds"`
	MiBPerSecond    float64 `json:"mib_per_second"`
	Transport       string  `json:"transport"`
	PricePerByte    string  `json:"price_per_byte"`
	UnsealPrice     string  `json:"unseal_price"`
	PaymentInterval uint64  `json:"payment_interval"`
	Vouchers        uint64  `json:"vouchers"`
	Owed            string  `json:"owed"`
	Vouchered       string  `json:"vouchered"`
	Redeemed        string  `json:"redeemed"`
	PaymentChannels int     `json:"payment_channels"`
	ClientStatus    string  `json:"client_status"`
	ProviderStatus  string  `json:"provider_status"`
	ContentMatches  bool    `json:"content_matches"`
	LedgerConserved bool    `json:"ledger_conserved"`
	ClientRSS       uint64  `json:"client_peak_rss_bytes"`
	ProviderRSS     uint64  `json:"provider_peak_rss_bytes"`
}

func (c *cli) demoCmd() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{Use: "demo", Short: "Sell and buy a file between three processes on this machine", Args: c.args(cobra.NoArgs),
		Long: "Demo starts a ledger, a provider and a client as processes of their own in temporary homes, provides a file, retrieves it\npaid, checks that the bytes are equal, settles and collects, and prints what happened.",
		RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context(), f) }}
	cmd.Flags().StringVar(&f.file, "file", "", "sell this file or folder")
	cmd.Flags().StringVar(&f.size, "size", "256MiB", "sell so many pseudo-random bytes")
	cmd.Flags().StringVar(&f.price, "price-per-byte", "2", "attoFIL for each byte")
	cmd.Flags().StringVar(&f.interval, "payment-interval", "1MiB", "bytes sent before a payment is due")
	cmd.Flags().StringVar(&f.unseal, "unseal-price", "0", "price before the first byte")
	cmd.Flags().StringVar(&f.transport, "transport", "auto", "auto, stream or graphsync")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "keep the homes")
	cmd.Flags().BoolVar(&f.http, "http", false, "buy from the gateway of the provider over HTTP")
	cmd.MarkFlagsMutuallyExclusive("http", "unseal-price")
	cmd.MarkFlagsMutuallyExclusive("http", "transport")
	cmd.MarkFlagsMutuallyExclusive("file", "size")
	return cmd
}

// demo is one run: its folder and its processes.
type demo struct {
	c        *cli
	f        demoFlags
	dir      string
	exe      string
	procs    []*proc
	result   demoResult
	provider *api.Node
	client   *api.Node
	address  string
	gateway  string // URL
	ledger   *ledger.Client
	closers  []func()
}

// proc is a child process.
type proc struct {
	name  string
	cmd   *exec.Cmd
	ready map[string]any
}

func (c *cli) demo(ctx context.Context, f demoFlags) (err error) {
	if err := checkTransport(f.transport); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "cartage-demo-")
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	d := &demo{c: c, f: f, dir: dir, exe: exe}
	defer func() { err = errors.Join(err, d.close()) }()
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"starting a ledger, a provider and a client", d.start},
		{"providing", d.provide},
		{"retrieving and paying", d.retrieve},
		{"settling and collecting", d.settle},
	} {
		d.say(step.what)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	d.judge(ctx)
	if err := d.print(); err != nil {
		return err
	}
	if !d.result.OK {
		return errors.New("the demo did not end as it should: see the table")
	}
	return nil
}

func (d *demo) say(what string) {
	if !d.c.json {
		note("... %v\n", what)
	}
}

func (d *demo) home(name string) config.Home { return config.Home{Dir: filepath.Join(d.dir, name)} }

// spawn starts a child of this program and waits for its ready line.
func (d *demo) spawn(name string, args ...string) (*proc, error) {
	log, err := os.Create(filepath.Join(d.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p := &proc{name: name, cmd: exec.Command(d.exe, append([]string{"--json", "--home", d.home(name).Dir}, args...)...)}
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	d.procs = append(d.procs, p)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.ready)
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s did not start: %w\n%s", name, err, text)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p, nil
}

// demoSettleDelay, in epochs of 200 ms, is the shortest that a development ledger may have.
const demoSettleDelay = 50

func (d *demo) start(ctx context.Context) error {
	lh := d.home("ledger")
	if err := os.MkdirAll(lh.Dir, 0o700); err != nil {
		return err
	}
	if err := ledger.Init(lh.Dir, ledger.Options{Dev: true, Epoch: 200 * time.Millisecond, SettleDelay: demoSettleDelay}); err != nil {
		return err
	}
	l, err := d.spawn("ledger", "ledger", "serve")
	if err != nil {
		return err
	}
	url, tokenFile := fmt.Sprint(l.ready["url"]), fmt.Sprint(l.ready["token_file"])
	for _, name := range []string{"provider", "client"} {
		if _, err := node.Init(d.home(name), node.InitOptions{LedgerURL: url, LedgerTokenFile: tokenFile}); err != nil {
			return err
		}
	}
	args := []string{"daemon", "--provide"}
	if d.f.http {
		args = append(args, "--gateway", "127.0.0.1:0")
	}
	if d.provider, err = d.daemon(ctx, "provider", args...); err != nil {
		return err
	}
	if d.f.http {
		d.gateway = fmt.Sprint(d.procs[1].ready["gateway"].([]any)[0])
	}
	d.address = fmt.Sprint(d.procs[1].ready["addresses"].([]any)[0])
	if d.client, err = d.daemon(ctx, "client", "daemon"); err != nil {
		return err
	}
	token, err := node.ReadToken(tokenFile)
	if err != nil {
		return err
	}
	chain, done, err := ledger.Dial(ctx, url, token, nil)
	if err != nil {
		return err
	}
	d.ledger, d.closers = chain, append(d.closers, done)
	if d.f.free() {
		return nil
	}
	// Redeeming needs an account, and an account begins with money.
	for _, n := range []*api.Node{d.client, d.provider} {
		if _, err := n.Faucet(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f demoFlags) free() bool { return f.price == "0" && f.unseal == "0" }

func (d *demo) daemon(ctx context.Context, name string, args ...string) (*api.Node, error) {
	p, err := d.spawn(name, args...)
	if err != nil {
		return nil, err
	}
	token, err := node.ReadToken(d.home(name).Path("token"))
	if err != nil {
		return nil, err
	}
	n, done, err := api.Dial(ctx, fmt.Sprint(p.ready["api"]), token)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, done)
	return n, nil
}

func (d *demo) provide(ctx context.Context) error {
	if d.f.file == "" {
		n, err := parseSize(d.f.size)
		if err != nil {
			return err
		}
		d.f.file = filepath.Join(d.dir, "data.bin")
		if err := pseudoRandom(d.f.file, int64(n)); err != nil {
			return err
		}
	}
	src, err := filepath.Abs(d.f.file)
	if err != nil {
		return err
	}
	d.f.file = src
	if d.result.FileBytes, err = treeSize(src); err != nil {
		return err
	}
	a, err := d.provider.Ask(ctx)
	if err != nil {
		return err
	}
	if err := change(a, d.f.price, "", d.f.unseal, d.f.interval, "0"); err != nil {
		return err
	}
	if a, err = d.provider.SetAsk(ctx, *a); err != nil {
		return err
	}
	p, err := d.provider.Provide(ctx, src)
	if err != nil {
		return err
	}
	d.result.Root, d.result.PieceCID = p.Root, p.PieceCID
	d.result.PricePerByte, d.result.UnsealPrice, d.result.PaymentInterval = a.PricePerByte, a.UnsealPrice, a.PaymentInterval
	return nil
}

// pseudoRandom writes n bytes that are the same each time.
func pseudoRandom(name string, n int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte([]byte("cartage demo, fixed seed, 32 byt"))), n)
	return errors.Join(err, f.Close())
}

func (d *demo) retrieve(ctx context.Context) error {
	if d.f.http {
		return d.retrieveHTTP(ctx)
	}
	offers, err := d.client.Find(ctx, d.result.Root, []string{d.address})
	if err != nil {
		return err
	}
	r, err := d.client.Retrieve(ctx, api.RetrieveRequest{CID: d.result.Root, Provider: d.address, Budget: offers[0].Price, MaxExposure: 1 << 30, Transport: d.f.transport})
	if err != nil {
		return err
	}
	if r, err = d.c.follow(ctx, ctx, d.client, r, holder{}); err != nil {
		return err
	}
	d.result.Bytes, d.result.Blocks, d.result.Seconds = r.Received, r.Blocks, r.Seconds
	d.result.MiBPerSecond, d.result.Transport, d.result.Vouchers = float64(r.Received)/(1<<20)/r.Seconds, r.Transport, r.Vouchers
	f := retrieveFlags{out: filepath.Join(d.dir, "retrieved")}
	if err := f.claim(); err != nil {
		return err
	}
	if err := errors.Join(f.write(ctx, d.c, r.CarPath), f.release()); err != nil {
		return err
	}
	d.result.ContentMatches, err = sameTree(d.f.file, f.out)
	return errors.Join(err, d.statuses(ctx))
}

// statuses waits a moment for the provider's side to end as well.
func (d *demo) statuses(ctx context.Context) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		mine, err := d.client.Deals(ctx)
		if err != nil {
			return err
		}
		theirs, err := d.provider.Deals(ctx)
		if err != nil {
			return err
		}
		if len(mine) == 1 && len(theirs) == 1 {
			d.result.ClientStatus, d.result.ProviderStatus = mine[0].Status, theirs[0].Status
			d.result.Owed, d.result.Vouchered = mine[0].Owed, theirs[0].Vouchered
			if mine[0].Final && theirs[0].Final {
				return nil
			}
		}
		if time.Now().After(end) {
			return nil
		}
	}
}
