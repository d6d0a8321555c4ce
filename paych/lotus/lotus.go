// Package lotus is a Filecoin chain for payment channels, through the JSON-RPC API of a Lotus node: channels and vouchers are
// managed here, the node reads the state and sends messages (payments spec 3.8 and 3.9, self-managed). It needs a token with the
// permission "sign", and the wallet of the node must hold the keys that send messages.
package lotus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	pay "github.com/cartage-dev/cartage/paych"
)

var (
	// ErrNodeUnavailable means that the node cannot be reached at the moment; what was asked may be asked again.
	ErrNodeUnavailable error = reason.LedgerAway.Errorf("the Lotus node is not reachable")
	// ErrNodeBehind means that the head of the node is too old to begin anything.
	ErrNodeBehind error = reason.LedgerAway.Errorf("the Lotus node is behind the chain")
	// ErrAuth means that the node does not take the token, or not for this.
	ErrAuth error = reason.TokenUnknown.Errorf("the Lotus node refuses the token")
)

// confidence is how many epochs deep a message counts.
const confidence abi.ChainEpoch = 5

// Config is how a node is reached.
type Config struct {
	URL   string // http(s)://host:1234/rpc/v1 or ws(s)://...
	Token string
	// MaxAge is how old the head may be; 10 epochs of 30 s when 0, negative for any age.
	MaxAge time.Duration
	// CallTime bounds a call that reads; 30 s when 0.
	CallTime time.Duration
	// Rest is how long a node is left alone that did not answer five times in a row; 10 s when 0.
	Rest time.Duration
}

// Chain implements paych.Chain. It is safe for concurrent use.
type Chain struct {
	api API
	cfg Config

	mu   sync.Mutex
	bad  int                                 // failures to reach the node in a row
	shut time.Time                           // until then it is not asked
	deep map[address.Address]bool            // channels that were seen deep enough in the chain
	keys map[address.Address]address.Address // id address to key address
}

var _ pay.Chain = (*Chain)(nil)

// Dial returns the chain behind a node. It does not ask it anything yet, so that a node of ours can start before its Lotus node.
func Dial(ctx context.Context, cfg Config) (*Chain, func(), error) {
	if cfg.CallTime == 0 {
		cfg.CallTime = 30 * time.Second
	}
	if cfg.Rest == 0 {
		cfg.Rest = 10 * time.Second
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 10 * 30 * time.Second
	}
	c := &Chain{cfg: cfg, deep: map[address.Address]bool{}, keys: map[address.Address]address.Address{}}
	head := http.Header{}
	if cfg.Token != "" {
		head.Set("Authorization", "Bearer "+cfg.Token)
	}
	stop, err := jsonrpc.NewMergeClient(ctx, cfg.URL, Namespace, []any{&c.api}, head, jsonrpc.WithTimeout(24*time.Hour))
	if err != nil {
		return nil, nil, fmt.Errorf("Lotus API %q: %w", cfg.URL, err)
	}
	return c, func() { stop() }, nil
}

// mapped gives an error of the node its name here. A token is never part of it.
func mapped(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	text := err.Error()
	has := func(list ...string) bool {
		for _, s := range list {
			if strings.Contains(text, s) {
				return true
			}
		}
		return false
	}
	var conn *jsonrpc.RPCConnectionError
	switch {
	case has("http status 401", "401 Unauthorized", "missing permission"):
		return fmt.Errorf("%w: %w: it needs the permission sign", ErrAuth, err)
	case errors.As(err, &conn), errors.Is(err, context.DeadlineExceeded), has("sendRequest failed", "http status 5", "unmarshaling response", "websocket connection closed"):
		return fmt.Errorf("%w: %w", ErrNodeUnavailable, err)
	case has("GasFeeCap", "gas fee cap", "MaxFee"):
		return fmt.Errorf("%w: %w", pay.ErrFee, err)
	case has("not enough funds", "insufficient funds"):
		return fmt.Errorf("%w: %w", pay.ErrWalletFunds, err)
	case has("nonce too low"):
		return fmt.Errorf("%w: %w", pay.ErrStaleNonce, err)
	case has("wallet does not have key", "key not found", "failed to find key"):
		return fmt.Errorf("%w: the wallet of the Lotus node: %w", pay.ErrNoKey, err)
	}
	return err
}

// tries is how often a read is asked again. After so many failures in a row the node is left alone for a while, so that those who can do
// without it do not wait each time.
const tries = 5

// reached notes whether the node answered.
func (c *Chain) reached(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !errors.Is(err, ErrNodeUnavailable) {
		c.bad, c.shut = 0, time.Time{}
		return
	}
	if c.bad++; c.bad >= tries {
		c.shut = time.Now().Add(c.cfg.Rest)
	}
}

// resting tells whether the node is left alone.
func (c *Chain) resting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.shut)
}

// read asks something that changes nothing, again after growing pauses while the node cannot be reached.
func read[T any](ctx context.Context, c *Chain, ask func(ctx context.Context) (T, error)) (T, error) {
	wait := 200 * time.Millisecond
	for i := 1; ; i++ {
		if c.resting() {
			var none T
			return none, fmt.Errorf("%w: it did not answer %d times in a row", ErrNodeUnavailable, tries)
		}
		cctx, cancel := context.WithTimeout(ctx, c.cfg.CallTime)
		v, err := ask(cctx)
		cancel()
		err = mapped(err)
		if ctx.Err() == nil {
			c.reached(err)
		}
		if err == nil || i == tries || !errors.Is(err, ErrNodeUnavailable) || ctx.Err() != nil {
			return v, err
		}
		if !lifecycle.Sleep(ctx, wait/2+rand.N(wait/2)) {
			return v, ctx.Err()
		}
		wait *= 2
	}
}

func (c *Chain) head(ctx context.Context) (*TipSet, error) {
	h, err := read(ctx, c, func(ctx context.Context) (*TipSet, error) { return c.api.ChainHead(ctx) })
	if err != nil {
		return nil, err
	}
	if h == nil || len(h.Cids) == 0 {
		return nil, errors.New("the Lotus node has no head")
	}
	return h, nil
}

// Head implements paych.Head: the token is the CIDs of the tipset in order.
func (c *Chain) Head(ctx context.Context) ([]byte, abi.ChainEpoch, error) {
	h, err := c.head(ctx)
	if err != nil {
		return nil, 0, err
	}
	var token []byte
	for _, k := range h.Cids {
		token = append(token, k.Bytes()...)
	}
	return token, h.Height, nil
}

// fresh refuses to begin something on a node whose head is too old.
func (c *Chain) fresh(ctx context.Context) error {
	h, err := c.head(ctx)
	if err != nil || c.cfg.MaxAge < 0 || len(h.Blocks) == 0 {
		return err
	}
	if age := time.Since(time.Unix(int64(h.Blocks[0].Timestamp), 0)); age > c.cfg.MaxAge {
		return fmt.Errorf("%w: its head, epoch %d, is %s old", ErrNodeBehind, h.Height, age.Round(time.Second))
	}
	return nil
}

// Finality implements paych.Head.
func (c *Chain) Finality() abi.ChainEpoch { return confidence }

// Timing implements paych.Head: Filecoin's epochs and the settle delay of its payment channels.
func (c *Chain) Timing(context.Context) (pay.Timing, error) {
	return pay.Timing{Epoch: builtin.EpochDurationSeconds * time.Second, SettleDelay: paych.SettleDelay}, nil
}

// ResolveKey implements paych.Reader.
func (c *Chain) ResolveKey(ctx context.Context, a address.Address) (address.Address, error) {
	if p := a.Protocol(); p == address.SECP256K1 || p == address.BLS {
		return a, nil
	}
	c.mu.Lock()
	k, ok := c.keys[a]
	c.mu.Unlock()
	if ok {
		return k, nil
	}
	k, err := read(ctx, c, func(ctx context.Context) (address.Address, error) { return c.api.StateAccountKey(ctx, a, nil) })
	if err != nil {
		return address.Undef, fmt.Errorf("key of %s: %w", a, err)
	}
	if p := k.Protocol(); p != address.SECP256K1 && p != address.BLS { // what such an account signs, nobody can redeem (payments spec 1.5)
		return address.Undef, fmt.Errorf("%w: %s is the account %s, which has no key that vouchers are signed with (f1 or f3)", pay.ErrBadSignature, a, k)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[a] = k // an account has one key for ever
	return k, nil
}

// Balance implements paych.Reader.
func (c *Chain) Balance(ctx context.Context, a address.Address) (abi.TokenAmount, error) {
	return read(ctx, c, func(ctx context.Context) (big.Int, error) { return c.api.WalletBalance(ctx, a) })
}
