// Package lotus is a Filecoin chain for payment channels, through the JSON-RPC API of a Lotus node: channels and vouchers are
// managed here, the node reads the state and sends messages (payments spec 3.8 and 3.9, self-managed). It needs a token with the
// permission "sign", and the wallet of the node must hold the keys that send messages.
package lotus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	amt "github.com/filecoin-project/go-amt-ipld/v4"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	initactor "github.com/filecoin-project/go-state-types/builtin/v8/init"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	cbor "github.com/ipfs/go-ipld-cbor"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
	pay "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/shared"
)

var (
	// ErrNodeUnavailable means that the node cannot be reached at the moment; what was asked may be asked again.
	ErrNodeUnavailable = errors.New("the Lotus node is not reachable")
	// ErrNodeBehind means that the head of the node is too old to begin anything.
	ErrNodeBehind = errors.New("the Lotus node is behind the chain")
	// ErrAuth means that the node does not take the token, or not for this.
	ErrAuth = errors.New("the Lotus node refuses the token")
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
	case has("401", "missing permission", "Unauthorized"):
		return fmt.Errorf("%w: %w: it needs the permission sign", ErrAuth, err)
	case errors.As(err, &conn), errors.Is(err, context.DeadlineExceeded), has("connection refused", "connection reset", "EOF", "http status 5", "sendRequest failed", "broken pipe"):
		return fmt.Errorf("%w: %w", ErrNodeUnavailable, err)
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
		if !shared.Sleep(ctx, wait/2+rand.N(wait/2)) {
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
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[a] = k // an account has one key for ever
	return k, nil
}

// Balance implements paych.Reader.
func (c *Chain) Balance(ctx context.Context, a address.Address) (abi.TokenAmount, error) {
	return read(ctx, c, func(ctx context.Context) (big.Int, error) { return c.api.WalletBalance(ctx, a) })
}

// errNothing is an answer of null where there has to be something.
var errNothing = errors.New("the Lotus node answers nothing")

// gone tells whether an error says that there is no actor.
func gone(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "actor not found") || strings.Contains(err.Error(), "actor code is not account"))
}

func (c *Chain) actor(ctx context.Context, ch address.Address, at []cid.Cid) (*ActorState, error) {
	a, err := read(ctx, c, func(ctx context.Context) (*ActorState, error) { return c.api.StateReadState(ctx, ch, at) })
	if err == nil && a == nil {
		err = errNothing
	}
	return a, err
}

// Channel implements paych.Reader. An actor that is gone although its address is known to the chain was collected.
func (c *Chain) Channel(ctx context.Context, ch address.Address) (*pay.ChannelInfo, error) {
	h, err := c.head(ctx)
	if err != nil {
		return nil, err
	}
	a, err := c.actor(ctx, ch, h.Cids)
	if gone(err) {
		_, lerr := read(ctx, c, func(ctx context.Context) (address.Address, error) { return c.api.StateLookupID(ctx, ch, h.Cids) })
		if lerr == nil {
			return &pay.ChannelInfo{Address: ch, Balance: big.Zero(), ToSend: big.Zero(), Collected: true, Lanes: map[uint64]pay.LaneInfo{}}, nil
		}
		if gone(lerr) {
			return nil, fmt.Errorf("%w: %s", pay.ErrUnknownChannel, ch)
		}
		err = lerr
	}
	if err != nil {
		return nil, err
	}
	var s ChannelState
	if err := json.Unmarshal(a.State, &s); err != nil || !s.LaneStates.Defined() {
		return nil, fmt.Errorf("%w: the state of %s is none of a payment channel (%v)", pay.ErrUnknownChannel, ch, err)
	}
	info := &pay.ChannelInfo{Address: ch, Balance: a.Balance, ToSend: s.ToSend, SettlingAt: s.SettlingAt, MinSettleHeight: s.MinSettleHeight}
	if info.From, err = c.ResolveKey(ctx, s.From); err != nil {
		return nil, err
	}
	if info.To, err = c.ResolveKey(ctx, s.To); err != nil {
		return nil, err
	}
	if info.Lanes, err = c.lanes(ctx, s.LaneStates); err != nil {
		return nil, fmt.Errorf("lanes of %s: %w", ch, err)
	}
	deep, err := c.isDeep(ctx, ch, h.Height)
	if !deep {
		info.OpenedAt = h.Height
	}
	return info, err
}

// isDeep tells whether a channel was there already as many epochs ago as a message needs to count.
func (c *Chain) isDeep(ctx context.Context, ch address.Address, height abi.ChainEpoch) (bool, error) {
	c.mu.Lock()
	deep := c.deep[ch]
	c.mu.Unlock()
	if deep || height <= confidence {
		return deep, nil
	}
	t, err := read(ctx, c, func(ctx context.Context) (*TipSet, error) {
		return c.api.ChainGetTipSetByHeight(ctx, height-confidence, nil)
	})
	if err == nil && t == nil {
		err = errNothing
	}
	if err != nil {
		return false, err
	}
	switch _, err := c.actor(ctx, ch, t.Cids); {
	case gone(err):
		return false, nil
	case err != nil:
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deep[ch] = true
	return true, nil
}

// objects reads the nodes of an AMT out of the chain.
type objects struct {
	ctx context.Context
	c   *Chain
}

// Get implements the blockstore of an IPLD store.
func (o objects) Get(ctx context.Context, k cid.Cid) (blocks.Block, error) {
	data, err := read(ctx, o.c, func(ctx context.Context) ([]byte, error) { return o.c.api.ChainReadObj(ctx, k) })
	if err != nil {
		return nil, err
	}
	got, err := k.Prefix().Sum(data)
	if err != nil || !got.Equals(k) {
		return nil, fmt.Errorf("the Lotus node answers other bytes for %s (%w)", k, errors.Join(err, pay.ErrDecode))
	}
	return blocks.NewBlockWithCid(data, k)
}

// Put implements the blockstore of an IPLD store.
func (objects) Put(context.Context, blocks.Block) error { return errors.New("the chain is read only") }

// maxLanes bounds what is read of a channel.
const maxLanes = 1 << 16

func (c *Chain) lanes(ctx context.Context, root cid.Cid) (map[uint64]pay.LaneInfo, error) {
	store := cbor.NewCborStore(objects{ctx, c})
	arr, err := amt.LoadAMT(ctx, store, root, amt.UseTreeBitWidth(paych.LaneStatesAmtBitwidth))
	if err != nil {
		return nil, err
	}
	if arr.Len() > maxLanes {
		return nil, fmt.Errorf("%w: %d lanes", pay.ErrLaneLimit, arr.Len())
	}
	out := map[uint64]pay.LaneInfo{}
	err = arr.ForEach(ctx, func(i uint64, v *cbg.Deferred) error {
		var l paych.LaneState
		if err := l.UnmarshalCBOR(bytes.NewReader(v.Raw)); err != nil {
			return err
		}
		out[i] = pay.LaneInfo{Redeemed: l.Redeemed, Nonce: l.Nonce}
		return nil
	})
	return out, err
}

// Submit implements paych.Submitter. The node makes one message of an intent, however often it is pushed.
func (c *Chain) Submit(ctx context.Context, op pay.Op) (cid.Cid, error) {
	if err := c.fresh(ctx); err != nil {
		return cid.Undef, err
	}
	msg, err := c.message(ctx, op)
	if err != nil {
		return cid.Undef, err
	}
	spec := &SendSpec{MaxFee: big.Zero(), MsgUuid: op.Intent.String()}
	sent, err := read(ctx, c, func(ctx context.Context) (*SignedMessage, error) { return c.api.MpoolPushMessage(ctx, msg, spec) })
	if err != nil {
		return cid.Undef, err
	}
	if sent == nil || !sent.CID.Defined() {
		return cid.Undef, errors.New("the Lotus node does not say what became of the message")
	}
	return sent.CID, nil
}

// message is the message of a change.
func (c *Chain) message(ctx context.Context, op pay.Op) (*Message, error) {
	m := &Message{From: op.From, To: op.Channel, Value: big.Zero(), GasFeeCap: big.Zero(), GasPremium: big.Zero()}
	switch op.Kind {
	case pay.OpCreate:
		code, err := c.code(ctx)
		if err != nil {
			return nil, err
		}
		ctor, err := wire.Encode(&paych.ConstructorParams{From: op.From, To: op.To})
		if err != nil {
			return nil, err
		}
		if m.Params, err = wire.Encode(&initactor.ExecParams{CodeCID: code, ConstructorParams: ctor}); err != nil {
			return nil, err
		}
		m.To, m.Method, m.Value = initActor(), 2, op.Value
	case pay.OpAddFunds:
		m.Value = op.Value
	case pay.OpRedeem:
		params, err := wire.Encode(&paych.UpdateChannelStateParams{Sv: *op.Voucher, Secret: op.Secret})
		if err != nil {
			return nil, err
		}
		m.Method, m.Params = 2, params
	case pay.OpSettle:
		m.Method = 3
	case pay.OpCollect:
		m.Method = 4
	default:
		return nil, fmt.Errorf("change of kind %d is unknown", op.Kind)
	}
	return m, nil
}

func initActor() address.Address {
	a, _ := address.NewIDAddress(1) // cannot fail
	return a
}

// code is the code of payment channels in the present version of the network.
func (c *Chain) code(ctx context.Context) (cid.Cid, error) {
	v, err := read(ctx, c, func(ctx context.Context) (uint, error) { return c.api.StateNetworkVersion(ctx, nil) })
	if err != nil {
		return cid.Undef, err
	}
	codes, err := read(ctx, c, func(ctx context.Context) (map[string]cid.Cid, error) { return c.api.StateActorCodeCIDs(ctx, v) })
	if err != nil {
		return cid.Undef, err
	}
	code, ok := codes["paymentchannel"]
	if !ok || !code.Defined() {
		return cid.Undef, fmt.Errorf("network version %d has no payment channel actor", v)
	}
	return code, nil
}

// Wait implements paych.Submitter. It asks again when a proxy cut the wait, or the node was away.
func (c *Chain) Wait(ctx context.Context, msg cid.Cid) (*pay.Receipt, error) {
	wait := 200 * time.Millisecond
	for {
		l, err := c.api.StateWaitMsg(ctx, msg, uint64(confidence), -1, true)
		if err = mapped(err); err == nil {
			c.reached(nil)
		}
		switch {
		case err == nil && l != nil:
			return c.receipt(ctx, msg, l)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			err = ErrNodeUnavailable
		}
		if !errors.Is(err, ErrNodeUnavailable) {
			return nil, fmt.Errorf("wait for message %s: %w", msg, err)
		}
		if !shared.Sleep(ctx, wait/2+rand.N(wait/2)) {
			return nil, ctx.Err()
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// receipt names the channel of a change: a create returns its address, other messages were sent to it.
func (c *Chain) receipt(ctx context.Context, msg cid.Cid, l *MsgLookup) (*pay.Receipt, error) {
	r := &pay.Receipt{ExitCode: l.Receipt.ExitCode, Epoch: l.Height}
	if r.ExitCode != 0 {
		r.Message = r.ExitCode.String()
		return r, nil
	}
	var ret initactor.ExecReturn
	if len(l.Receipt.Return) > 0 && wire.Decode(l.Receipt.Return, &ret) == nil {
		r.Channel = ret.RobustAddress
		return r, nil
	}
	m, err := read(ctx, c, func(ctx context.Context) (*Message, error) { return c.api.ChainGetMessage(ctx, msg) })
	if err == nil && m == nil {
		err = errNothing
	}
	if err != nil {
		return nil, err
	}
	r.Channel = m.To
	return r, nil
}

// Lookup implements paych.Submitter: the node knows what was pushed under an intent, so that a push that is repeated is the same one.
func (c *Chain) Lookup(context.Context, address.Address, uuid.UUID) (cid.Cid, error) {
	return cid.Undef, nil
}
