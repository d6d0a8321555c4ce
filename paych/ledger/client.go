package ledger

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/reason"
	pay "github.com/cartage-dev/cartage/paych"
)

// ErrUnavailable means that the ledger cannot be reached at the moment.
var ErrUnavailable error = reason.LedgerAway.Errorf("ledger is not reachable")

// ErrUnauthorised means that the ledger does not take the token.
var ErrUnauthorised error = reason.TokenUnknown.Errorf("ledger refuses the token")

// Client is a paych.Chain over a ledger of another process. It signs with the keys of a wallet.
type Client struct {
	API
	wallet pay.Signer
	url    string

	mu    sync.Mutex
	info  *Info
	locks map[address.Address]*sync.Mutex
}

var _ pay.Chain = (*Client)(nil)

// DialOption changes how a ledger is reached.
type DialOption func(*http.Transport) error

// PinCertificate takes a TLS server with exactly this certificate (PEM), whatever name or address it is reached by.
func PinCertificate(data []byte) DialOption {
	return func(t *http.Transport) error {
		block, _ := pem.Decode(data)
		if block == nil || block.Type != "CERTIFICATE" {
			return errors.New("there is no certificate in the pinned PEM file of the ledger")
		}
		t.TLSClientConfig = &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // in favour of the check below, which is stricter than names and authorities
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
					return errors.New("the server has another certificate than the pinned one")
				}
				return nil
			},
		}
		return nil
	}
}

// Dial returns a client of the ledger at url: http://127.0.0.1:4000, https://host:4000 or unix:///path/of/the/socket. It does not
// connect yet, so that a node can start before its ledger.
func Dial(ctx context.Context, url, token string, wallet pay.Signer, options ...DialOption) (*Client, func(), error) {
	c := &Client{wallet: wallet, url: url, locks: map[address.Address]*sync.Mutex{}}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	for _, o := range options {
		if err := o(t); err != nil {
			return nil, nil, err
		}
	}
	base := strings.TrimSuffix(url, "/")
	if path, ok := strings.CutPrefix(url, "unix://"); ok {
		base = "http://ledger"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	} else if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return nil, nil, fmt.Errorf("ledger URL %q must begin with http://, https:// or unix://", url)
	}
	closer, err := jsonrpc.NewMergeClient(ctx, base+"/rpc/v1", "Ledger", []any{&c.API},
		http.Header{"Authorization": {"Bearer " + token}}, jsonrpc.WithTimeout(30*time.Second), jsonrpc.WithErrors(rpcErrors()), jsonrpc.WithHTTPClient(&http.Client{Transport: tokenChecked{t}}))
	if err != nil {
		return nil, nil, err
	}
	return c, func() {
		closer()
		t.CloseIdleConnections()
	}, nil
}

func (c *Client) unavailable(err error) error {
	if err == nil {
		return nil
	}
	var conn *jsonrpc.RPCConnectionError
	switch {
	case errors.Is(err, ErrUnauthorised):
		return fmt.Errorf("%w at %s", ErrUnauthorised, c.url)
	case errors.As(err, &conn), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w at %s: %w", ErrUnavailable, c.url, err)
	}
	return err
}

func (c *Client) network(ctx context.Context) (*Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.info == nil {
		info, err := c.API.Info(ctx)
		if err != nil {
			return nil, c.unavailable(err)
		}
		c.info = info
	}
	return c.info, nil
}

// NetworkID is the name of the ledger, which never changes.
func (c *Client) NetworkID(ctx context.Context) (string, error) {
	info, err := c.network(ctx)
	if err != nil {
		return "", err
	}
	return info.Network, nil
}

// Head implements paych.Head.
func (c *Client) Head(ctx context.Context) ([]byte, abi.ChainEpoch, error) {
	h, err := c.API.Head(ctx)
	if err != nil {
		return nil, 0, c.unavailable(err)
	}
	return binary.BigEndian.AppendUint64(nil, h.Epoch), abi.ChainEpoch(h.Epoch), nil
}

// Finality implements paych.Head: what the ledger answered is final.
func (c *Client) Finality() abi.ChainEpoch { return 0 }

// Timing implements paych.Head.
func (c *Client) Timing(ctx context.Context) (pay.Timing, error) {
	info, err := c.network(ctx)
	if err != nil {
		return pay.Timing{}, err
	}
	return pay.Timing{Epoch: time.Duration(info.EpochNanos), SettleDelay: abi.ChainEpoch(info.SettleDelay), Dev: info.Dev}, nil
}

// ResolveKey implements paych.Reader: accounts of the ledger are key addresses.
func (c *Client) ResolveKey(_ context.Context, a address.Address) (address.Address, error) {
	if p := a.Protocol(); p != address.SECP256K1 && p != address.BLS {
		return address.Undef, fmt.Errorf("%s is not a key address (f1 or f3)", a)
	}
	return a, nil
}

// Balance implements paych.Reader.
func (c *Client) Balance(ctx context.Context, a address.Address) (abi.TokenAmount, error) {
	acc, err := c.API.Account(ctx, a)
	if err != nil {
		return big.Zero(), c.unavailable(err)
	}
	return acc.Balance, nil
}

// Channel implements paych.Reader.
func (c *Client) Channel(ctx context.Context, ch address.Address) (*pay.ChannelInfo, error) {
	i, err := c.API.Channel(ctx, ch)
	if err != nil {
		return nil, c.unavailable(err)
	}
	if i == nil {
		return nil, fmt.Errorf("%w: %s", pay.ErrUnknownChannel, ch)
	}
	out := &pay.ChannelInfo{
		Address: i.Address, From: i.From, To: i.To, Balance: i.Balance, ToSend: i.ToSend, SettlingAt: abi.ChainEpoch(i.SettlingAt),
		MinSettleHeight: abi.ChainEpoch(i.MinSettleHeight), OpenedAt: abi.ChainEpoch(i.OpenedAt), Collected: i.Collected, Lanes: map[uint64]pay.LaneInfo{},
	}
	for page := i.Lanes; len(page) > 0; {
		for _, l := range page {
			out.Lanes[l.Lane] = pay.LaneInfo{Redeemed: l.Redeemed, Nonce: l.Nonce}
		}
		if len(page) < lanePage {
			break
		}
		if page, err = c.API.Lanes(ctx, ch, page[len(page)-1].Lane+1); err != nil {
			return nil, c.unavailable(err)
		}
	}
	return out, nil
}

func (c *Client) lock(a address.Address) *sync.Mutex {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locks[a] == nil {
		c.locks[a] = &sync.Mutex{}
	}
	return c.locks[a]
}

// Submit implements paych.Submitter. The same intent is one transaction, however often it is submitted.
func (c *Client) Submit(ctx context.Context, op pay.Op) (cid.Cid, error) {
	info, err := c.network(ctx)
	if err != nil {
		return cid.Undef, err
	}
	key, err := c.wallet.Key(op.From)
	if err != nil {
		return cid.Undef, err
	}
	t, err := transaction(op)
	if err != nil {
		return cid.Undef, err
	}
	if t.Network, err = hex.DecodeString(info.Network); err != nil {
		return cid.Undef, err
	}
	l := c.lock(op.From)
	l.Lock()
	defer l.Unlock()
	if known, err := c.Lookup(ctx, op.From, op.Intent); err != nil || known.Defined() {
		return known, err
	}
	for try := 0; ; try++ {
		id, err := c.send(ctx, t, key)
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, ErrIntentReused): // by an attempt whose answer was lost
			return c.Lookup(ctx, op.From, op.Intent)
		case errors.Is(err, ErrWrongSeq) && try < 4:
		case errors.Is(err, ErrRefused) && !errors.Is(err, ErrQueueFull):
			return id, fmt.Errorf("%w: %w", pay.ErrRefused, err)
		default:
			return id, c.unavailable(err)
		}
	}
}

func (c *Client) send(ctx context.Context, t *Tx, key *pay.Key) (cid.Cid, error) {
	acc, err := c.API.Account(ctx, t.From)
	if err != nil {
		return cid.Undef, err
	}
	if !acc.Exists && t.Kind != KindMint {
		return cid.Undef, fmt.Errorf("%w: %s has none", pay.ErrWalletFunds, t.From)
	}
	h, err := c.API.Head(ctx)
	if err != nil {
		return cid.Undef, err
	}
	t.Seq, t.ValidUntil = acc.Seq, h.Epoch+validFor
	if err := t.Sign(key); err != nil {
		return cid.Undef, err
	}
	data, err := t.Encode()
	if err != nil {
		return cid.Undef, err
	}
	return c.API.Submit(ctx, data)
}

func transaction(op pay.Op) (*Tx, error) {
	t := &Tx{From: op.From, To: op.Channel, Value: big.Zero(), Intent: op.Intent[:]}
	if !op.Value.Nil() {
		t.Value = op.Value
	}
	switch op.Kind {
	case pay.OpCreate:
		t.Kind, t.To = KindCreate, op.To
	case pay.OpAddFunds:
		t.Kind = KindAddFunds
	case pay.OpSettle:
		t.Kind = KindSettle
	case pay.OpCollect:
		t.Kind = KindCollect
	case pay.OpRedeem:
		t.Kind = KindRedeem
		p := redeemParams{paych.UpdateChannelStateParams{Sv: *op.Voucher, Secret: op.Secret}}
		var err error
		if t.Params, err = p.encode(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("operation %d is unknown", op.Kind)
	}
	return t, nil
}

// Wait implements paych.Submitter.
func (c *Client) Wait(ctx context.Context, msg cid.Cid) (*pay.Receipt, error) {
	r, err := c.API.Receipt(ctx, msg)
	if err != nil {
		return nil, c.unavailable(err)
	}
	if r == nil {
		return nil, fmt.Errorf("transaction %s is not on the ledger", msg)
	}
	return &pay.Receipt{ExitCode: exitcode.ExitCode(r.ExitCode), Message: r.Message, Channel: r.Channel, Epoch: abi.ChainEpoch(r.Epoch)}, nil
}

// Lookup implements paych.Submitter for any signer of the wallet.
func (c *Client) Lookup(ctx context.Context, from address.Address, intent uuid.UUID) (cid.Cid, error) {
	s, err := c.API.Lookup(ctx, from, intent[:])
	if err != nil || s == "" {
		return cid.Undef, c.unavailable(err)
	}
	return cid.Decode(s)
}

// Mint creates money with the operator's key, which the wallet must hold, and returns when it is on the ledger.
func (c *Client) Mint(ctx context.Context, to address.Address, amount abi.TokenAmount) (cid.Cid, error) {
	info, err := c.network(ctx)
	if err != nil {
		return cid.Undef, err
	}
	key, err := c.wallet.Key(info.Operator)
	if err != nil {
		return cid.Undef, fmt.Errorf("only the operator of the ledger mints: %w", err)
	}
	intent := uuid.New()
	t := &Tx{From: info.Operator, Kind: KindMint, To: to, Value: amount, Intent: intent[:]}
	if t.Network, err = hex.DecodeString(info.Network); err != nil {
		return cid.Undef, err
	}
	l := c.lock(info.Operator)
	l.Lock()
	defer l.Unlock()
	id, err := c.send(ctx, t, key)
	if err != nil {
		return id, c.unavailable(err)
	}
	r, err := c.Wait(ctx, id)
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("mint failed: %s", r.Message)
	}
	return id, err
}

// FaucetTo asks a development ledger for money.
func (c *Client) FaucetTo(ctx context.Context, to address.Address) error {
	_, err := c.API.Faucet(ctx, to)
	return c.unavailable(err)
}
