package ledger

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/rpc"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Info is what a client must know to sign for this ledger.
type Info struct {
	Network     string // hex
	EpochNanos  uint64
	SettleDelay uint64
	Schema      uint64
	Dev         bool
	Operator    address.Address
}

// HeadInfo is where the ledger is.
type HeadInfo struct {
	Epoch       uint64
	LogPosition uint64
	LogHash     string
}

// AccountInfo is an account.
type AccountInfo struct {
	Key     address.Address
	Balance abi.TokenAmount
	Seq     uint64
	Exists  bool
}

// LaneInfo is a redeemed lane.
type LaneInfo struct {
	Lane     uint64
	Redeemed abi.TokenAmount
	Nonce    uint64
}

// ChannelInfo is a payment channel.
type ChannelInfo struct {
	Address         address.Address
	From, To        address.Address
	Balance, ToSend abi.TokenAmount
	SettlingAt      uint64
	MinSettleHeight uint64
	OpenedAt        uint64
	Collected       bool
	Lanes           []LaneInfo
}

// ReceiptInfo is the outcome of a transaction.
type ReceiptInfo struct {
	ExitCode uint64
	Message  string
	Epoch    uint64
	Position uint64
	Channel  address.Address
}

// AuditInfo is the sum of everything: it is conserved when the parts make the whole.
type AuditInfo struct {
	Minted    abi.TokenAmount
	Accounts  abi.TokenAmount
	Channels  abi.TokenAmount
	Conserved bool
}

// API is the RPC surface `Ledger.*`. The struct of functions is the typed client.
type API struct {
	Info    func(ctx context.Context) (*Info, error)
	Head    func(ctx context.Context) (*HeadInfo, error)
	Account func(ctx context.Context, addr address.Address) (*AccountInfo, error)
	Channel func(ctx context.Context, addr address.Address) (*ChannelInfo, error)
	Lanes   func(ctx context.Context, addr address.Address, from uint64) ([]LaneInfo, error)
	Submit  func(ctx context.Context, tx []byte) (cid.Cid, error)
	Receipt func(ctx context.Context, c cid.Cid) (*ReceiptInfo, error)
	Lookup  func(ctx context.Context, from address.Address, intent []byte) (string, error)
	Faucet  func(ctx context.Context, to address.Address) (cid.Cid, error)
	Audit   func(ctx context.Context) (*AuditInfo, error)
}

// service answers the RPC.
type service struct {
	l     *Ledger
	paces *paces
}

// Info answers Ledger.Info.
func (s service) Info(context.Context) (*Info, error) {
	n := s.l.net
	return &Info{hex.EncodeToString(n.ID), n.Epoch, n.SettleDelay, n.Schema, n.Dev, n.Operator}, nil
}

// Head answers Ledger.Head.
func (s service) Head(context.Context) (*HeadInfo, error) {
	m, err := newView(s.l.kv).meta()
	if err != nil {
		return nil, err
	}
	return &HeadInfo{s.l.epoch(m), m.Position, hex.EncodeToString(m.Hash)}, nil
}

// Account answers Ledger.Account; an unknown account has nothing.
func (s service) Account(_ context.Context, addr address.Address) (*AccountInfo, error) {
	v := newView(s.l.kv)
	a, err := v.account(addr, false, nil)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return &AccountInfo{Key: addr, Balance: big.Zero()}, nil
	}
	return &AccountInfo{a.Key, a.Balance, a.Seq, true}, nil
}

// Channel answers Ledger.Channel, or nil when there is none.
func (s service) Channel(ctx context.Context, addr address.Address) (*ChannelInfo, error) {
	c, err := newView(s.l.kv).channel(addr)
	if err != nil || c == nil {
		return nil, err
	}
	out := &ChannelInfo{c.Address, c.From, c.To, c.Balance, c.ToSend, c.SettlingAt, c.MinSettleHeight, c.OpenedAt, c.Collected, nil}
	out.Lanes, err = s.Lanes(ctx, addr, 0)
	return out, err
}

// lanePage is how many lanes one answer holds.
const lanePage = 1000

// Lanes answers Ledger.Lanes: a page of the redeemed lanes of a channel, from a number on.
func (s service) Lanes(_ context.Context, addr address.Address, from uint64) ([]LaneInfo, error) {
	prefix := []byte(keyLane + string(addr.Bytes()))
	var out []LaneInfo
	var bad error
	err := s.l.kv.ScanFrom(prefix, append(bytes.Clone(prefix), u64(from)...), func(key, value []byte) bool {
		var ln lane
		if bad = wire.DecodeTuple(value, "lane", ln.fields()); bad != nil {
			return false
		}
		out = append(out, LaneInfo{be64(key[len(prefix):]), ln.Redeemed, ln.Nonce})
		return len(out) < lanePage
	})
	return out, errors.Join(err, bad)
}

func be64(b []byte) (n uint64) {
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// Submit answers Ledger.Submit. The signature is checked first: nobody uses up the pace of another.
func (s service) Submit(ctx context.Context, tx []byte) (cid.Cid, error) {
	t, err := s.l.check(tx)
	if err == nil {
		err = s.paces.wait(ctx, t.From)
	}
	if err != nil {
		return cid.Undef, refusalOf(err)
	}
	id, err := s.l.submit(ctx, t, tx)
	return id, refusalOf(err)
}

// Receipt answers Ledger.Receipt, or nil when the transaction is unknown.
func (s service) Receipt(_ context.Context, c cid.Cid) (*ReceiptInfo, error) {
	r, err := newView(s.l.kv).receipt(string(c.Bytes()))
	if err != nil || r == nil {
		return nil, err
	}
	return &ReceiptInfo{r.ExitCode, r.Message, r.Epoch, r.Position, r.Channel}, nil
}

// Lookup answers Ledger.Lookup: the CID that an intent became, or an empty text.
func (s service) Lookup(_ context.Context, from address.Address, intent []byte) (string, error) {
	b, err := newView(s.l.kv).get(keyIntent + string(from.Bytes()) + string(intent))
	if err != nil || b == nil {
		return "", err
	}
	c, err := cid.Cast(b)
	return c.String(), err
}

// Faucet answers Ledger.Faucet.
func (s service) Faucet(ctx context.Context, to address.Address) (cid.Cid, error) {
	return s.l.Faucet(ctx, to)
}

// Audit answers Ledger.Audit.
func (s service) Audit(context.Context) (*AuditInfo, error) { return s.l.Audit() }

// Audit adds everything up (I1).
func (l *Ledger) Audit() (*AuditInfo, error) {
	m, err := newView(l.kv).meta()
	if err != nil {
		return nil, err
	}
	a := &AuditInfo{Minted: m.Minted, Accounts: big.Zero(), Channels: big.Zero()}
	var bad error
	err = l.kv.Scan([]byte(keyAccount), func(_, value []byte) bool {
		var acc account
		if bad = wire.DecodeTuple(value, "account", acc.fields()); bad == nil {
			a.Accounts = big.Add(a.Accounts, acc.Balance)
		}
		return bad == nil
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, err
	}
	err = l.kv.Scan([]byte(keyChannel), func(_, value []byte) bool {
		var c channel
		if bad = wire.DecodeTuple(value, "channel", c.fields()); bad == nil {
			a.Channels = big.Add(a.Channels, c.Balance)
		}
		return bad == nil
	})
	a.Conserved = a.Minted.Equals(big.Add(a.Accounts, a.Channels))
	return a, errors.Join(err, bad)
}

// Serve answers RPC until ctx ends, on a loopback port, a Unix socket or a listener of rpc.Encrypt. Every call needs the bearer token.
func (l *Ledger) Serve(ctx context.Context, ln net.Listener, token string) error {
	srv := jsonrpc.NewServer(jsonrpc.WithServerErrors(rpcErrors()), jsonrpc.WithMaxRequestSize(maxBody))
	srv.Register("Ledger", service{l, newPaces()})
	return rpc.Serve(ctx, ln, token, paced(srv))
}
