package node

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
	"github.com/cartage-dev/cartage/paych/lotus"
)

// Options of opening a home.
type Options struct {
	Provide   bool
	Reading   bool // of a home whose disk takes no writes: nothing is changed, nobody is reached
	Rescue    bool // with Reading: of a home whose store is damaged, what can be read
	Listen    []string
	LedgerURL string // overrides the configuration
	TokenFile string
	// Chain is ledger or lotus; what the configuration says if it is empty.
	Chain          string
	LotusAPI       string // overrides the configuration, as LotusTokenFile does
	LotusTokenFile string
	Passphrase     string // of the wallet; empty: its keys are not encrypted
	Log            *slog.Logger
	LogLevel       *slog.LevelVar             // of Log, which follows log.level of the configuration; nil: it does not
	Version        string                     // as in Parts
	Host           host.Host                  // as in Parts
	Selling        func() error               // as in Parts
	Money          paych.Chain                // the chain itself, instead of all the above
	Set            func(*config.Loaded) error // changes the configuration of this run; nil: nothing is changed
}

// chain applies the options to a configuration and tells whether the chain is a Filecoin one.
func (o *Options) chain(cfg *config.Loaded) (bool, error) {
	for _, f := range []struct{ value, key, flag string }{
		{o.LedgerURL, "ledger.url", "--ledger"}, {o.TokenFile, "ledger.token_file", "--ledger-token-file"},
		{o.LotusAPI, "lotus.api", "--lotus-api"}, {o.LotusTokenFile, "lotus.token_file", "--lotus-token-file"},
	} {
		if f.value == "" {
			continue
		}
		if err := cfg.Override(f.key, f.value, f.flag); err != nil {
			return false, err
		}
	}
	switch {
	case o.Chain == "ledger":
		return false, nil
	case o.Chain == "lotus" && cfg.Lotus.API == "":
		return false, api.Errorf(api.CodeUsage, "Name it with --lotus-api URL, or in [lotus] of config.toml.", "no Lotus API is given")
	case o.Chain == "lotus":
		return true, nil
	case o.Chain != "":
		return false, api.Errorf(api.CodeUsage, "Say ledger or lotus.", "%q is no chain", o.Chain)
	case cfg.Lotus.API != "" && cfg.Ledger.URL != "":
		return false, api.Errorf(api.CodeUsage, "Choose with --chain ledger or --chain lotus.", "the configuration has a ledger and a Lotus node")
	}
	return cfg.Lotus.API != "", nil
}

// Opened is a node with the resources that it was opened on.
type Opened struct {
	*Node
	state datastore.Batching
	done  func()
}

// Open opens a home and runs a node on it. A home has one node at a time.
func Open(ctx context.Context, h config.Home, o Options) (*Opened, error) {
	cfg, err := configured(h, o)
	if err != nil {
		return nil, err
	}
	if err := h.CheckPrivate(); err != nil {
		return nil, err
	}
	filecoin, err := o.chain(cfg)
	if err != nil {
		return nil, err
	}
	key, err := readKey(h.Path("libp2p.key"))
	if err != nil {
		return nil, err
	}
	wallet, err := OpenWallet(h, o.Passphrase)
	if err != nil {
		return nil, err
	}
	evmKeys, err := OpenEVMKeys(h, o.Passphrase)
	if err != nil {
		return nil, err
	}
	open := store.Open
	if o.Reading {
		open = store.OpenReading
	}
	openState := open
	if o.Rescue {
		openState = func(dir string) (datastore.Batching, error) { return store.OpenRescue(ctx, dir) }
	}
	state, err := openState(h.Path("state"))
	if errors.Is(err, store.ErrLocked) {
		return nil, api.ErrorOf(reason.HomeBusy.Errorf("another cartage process has %s open: %w", h.Dir, err).WithHint("Stop it first, or use another --home."))
	}
	if err != nil {
		return nil, err
	}
	parts := Parts{LogLevel: o.LogLevel, Home: h, Config: cfg.Config, Origin: cfg.Origin, Fixed: cfg.Fixed, Key: key, Wallet: wallet, State: state, FS: blob.OS{}, Provide: o.Provide, Reading: o.Reading, Listen: o.Listen, Log: o.Log, Version: o.Version,
		Host: o.Host, Selling: o.Selling, Chain: o.Money,
		OpenBlocks: func() (datastore.Batching, error) { return open(h.Path("blocks")) }}
	parts.EVMKeys = evmKeys
	done := func() {}
	switch {
	case o.Money != nil:
	case filecoin:
		done, err = dialLotus(ctx, &parts)
	case cfg.Ledger.URL != "":
		done, err = dialLedger(ctx, &parts)
	}
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	n, err := Build(ctx, parts)
	if err != nil {
		done()
		return nil, errors.Join(err, state.Close())
	}
	return &Opened{n, state, done}, nil
}

// ReadConfig is the configuration of a home.
func ReadConfig(h config.Home) (*config.Loaded, error) {
	cfg, err := h.Read(os.Environ())
	if errors.Is(err, config.ErrNoHome) {
		return nil, api.Errorf(api.CodeUsage, "Make one with cartage init.", "%w", err)
	}
	return cfg, err
}

// configured is the configuration of a home with what is changed for this run.
func configured(h config.Home, o Options) (*config.Loaded, error) {
	cfg, err := ReadConfig(h)
	if err == nil && o.Set != nil {
		err = o.Set(cfg)
	}
	if err != nil {
		return nil, err
	}
	if o.Log != nil {
		for _, w := range cfg.Warnings {
			o.Log.Warn("configuration", "warning", w)
		}
	}
	return cfg, nil
}

// MarkRestored notes in a home that no process has open that it was put back from a backup, or that it goes on without what is missing from
// its store.
func MarkRestored(ctx context.Context, h config.Home) error {
	if _, err := ReadConfig(h); err != nil {
		return err
	}
	state, err := store.Open(h.Path("state"))
	if errors.Is(err, store.ErrLocked) {
		return api.ErrorOf(reason.HomeBusy.Errorf("a cartage process has %s open, and may have paid already: %w", h.Dir, err).WithHint("Stop it first."))
	}
	if errors.Is(err, reason.StateRolledBack) {
		if err = store.Accept(h.Path("state")); err == nil {
			state, err = store.Open(h.Path("state"))
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(paych.MarkRestored(ctx, (&Node{parts: Parts{State: state}}).space(payments)), state.Close())
}

// OpenWallet opens the wallet of a home.
func OpenWallet(h config.Home, passphrase string) (*paych.Wallet, error) {
	return openKeys(h.Path("wallet"), passphrase)
}

// OpenEVMKeys opens the keys of EVM chains of a home, which have the pass phrase of its wallet.
func OpenEVMKeys(h config.Home, passphrase string) (*paych.Wallet, error) {
	return openKeys(h.Path("wallet", "evm"), passphrase)
}

func openKeys(dir, passphrase string) (*paych.Wallet, error) {
	w, err := paych.OpenWallet(blob.OS{}, dir, paych.WithPassphrase(passphrase))
	if errors.Is(err, paych.ErrSealed) || errors.Is(err, paych.ErrPassphrase) {
		return nil, api.ErrorOf(reason.WalletLocked.Errorf("%w", err).WithHint("Name the file that holds it with --wallet-passphrase-file FILE, or set CARTAGE_WALLET_PASSPHRASE_FILE."))
	}
	return w, err
}

func dialLotus(ctx context.Context, p *Parts) (func(), error) {
	cfg := lotus.Config{URL: p.Config.Lotus.API}
	if f := p.Config.Lotus.TokenFile; f != "" {
		t, err := ReadToken(f)
		if err != nil {
			return nil, api.ErrorOf(reason.TokenMissing.Errorf("%w", err).WithHint("Set it with --lotus-token-file FILE."))
		}
		cfg.Token = t
	}
	c, done, err := lotus.Dial(ctx, cfg)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "It looks like http://127.0.0.1:1234/rpc/v1.", "%w", err)
	}
	p.Chain = c
	return done, nil
}

func dialLedger(ctx context.Context, p *Parts) (func(), error) {
	token := ""
	if f := p.Config.Ledger.TokenFile; f != "" {
		t, err := ReadToken(f)
		if err != nil {
			return nil, api.ErrorOf(reason.TokenMissing.Errorf("%w", err).WithHint("Set it with cartage init --ledger-token-file FILE."))
		}
		token = t
	}
	var options []ledger.DialOption
	if f := p.Config.Ledger.CertFile; f != "" {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, api.Errorf(api.CodeUsage, "Set it with cartage init --ledger-cert FILE.", "read the certificate of the ledger: %w", err)
		}
		options = append(options, ledger.PinCertificate(pem))
	}
	c, done, err := ledger.Dial(ctx, p.Config.Ledger.URL, token, p.Wallet, options...)
	if err != nil {
		return nil, err
	}
	p.Chain = c
	return done, nil
}

// Close ends the node and closes its stores.
func (o *Opened) Close(ctx context.Context) error {
	err := o.Node.Close(ctx)
	o.done()
	return errors.Join(err, o.state.Close())
}
