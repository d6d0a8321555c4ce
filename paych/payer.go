package paych

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// outChannel is a channel that we pay into. Total and Promised are sums over its lanes, so that a voucher costs the
// same however many came before it.
type outChannel struct {
	ID       string // of the record: the address is unknown until the channel exists
	From, To address.Address
	Address  address.Address // undefined while it is being created
	Amount   abi.TokenAmount // confirmed deposit
	Promised abi.TokenAmount // best vouchers of all lanes
	Reserved abi.TokenAmount // what open deals may still ask for, spent part included
	NextLane uint64
	Settling bool
	Pending  abi.TokenAmount // on its way
	Intent   []byte          // written before a message is sent
	Msg      *cid.Cid
}

func (c *outChannel) fields() []wire.Field {
	return []wire.Field{
		wire.Text("id", &c.ID), wire.Address("from", &c.From), wire.Address("to", &c.To),
		optAddr("address", &c.Address), wire.Amount("amount", &c.Amount), wire.Amount("promised", &c.Promised),
		wire.Amount("reserved", &c.Reserved), wire.Uint("nextLane", &c.NextLane), wire.Bool("settling", &c.Settling),
		wire.Amount("pending", &c.Pending), bytesField("intent", &c.Intent),
		wire.Nullable("msg", &c.Msg, func(v *cid.Cid) wire.Field { return wire.Cid("msg", v) }),
	}
}

// payer is the owner of one outbound channel.
type payer struct {
	mu       sync.Mutex // short: never held across chain calls or disk flushes
	work     sync.Mutex // one message in flight for a pair
	rec      outChannel
	lanes    map[uint64]*laneRecord
	reserved []abi.TokenAmount // granted, not on a lane yet
}

// free is what a new deal can have without a further deposit; mu is held.
func (p *payer) free() abi.TokenAmount {
	f := big.Sub(p.rec.Amount, p.rec.Reserved)
	for _, r := range p.reserved {
		f = big.Sub(f, r)
	}
	if f.LessThan(big.Zero()) {
		return big.Zero()
	}
	return f
}

func (c *outChannel) key() datastore.Key { return datastore.NewKey("/o/pair/" + c.ID) }

// Ready is the answer to a request for funds: a channel, or a message to wait for.
type Ready struct {
	Channel address.Address
	Wait    cid.Cid
}

// GetOrCreate makes amount more available for one deal between two addresses: from what is free on the open channel,
// else by a deposit. Requests of one pair that arrive together share one message.
func (m *Manager) GetOrCreate(ctx context.Context, from, to address.Address, amount abi.TokenAmount) (Ready, error) {
	from, err := m.chain.ResolveKey(ctx, from)
	if err != nil {
		return Ready{}, err
	}
	if to, err = m.chain.ResolveKey(ctx, to); err != nil {
		return Ready{}, err
	}
	p, err := m.pair(ctx, from, to)
	if err != nil {
		return Ready{}, err
	}
	if p.take(amount) {
		return Ready{Channel: p.rec.Address}, nil
	}
	p.work.Lock()
	defer p.work.Unlock()
	if p.take(amount) {
		return Ready{Channel: p.rec.Address}, nil
	}
	if err := m.finish(ctx, p); err != nil {
		return Ready{}, err
	}
	if p.take(amount) {
		return Ready{Channel: p.rec.Address}, nil
	}
	return m.deposit(ctx, p, amount)
}

// take reserves amount if it is free on a ready channel.
func (p *payer) take(amount abi.TokenAmount) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.Address.Empty() || p.rec.Settling || p.free().LessThan(amount) {
		return false
	}
	p.reserved = append(p.reserved, amount)
	return true
}

// deposit sends one message for what is missing: a new channel, or funds for the open one. work is held.
func (m *Manager) deposit(ctx context.Context, p *payer, amount abi.TokenAmount) (Ready, error) {
	p.mu.Lock()
	rec := p.rec
	missing := big.Sub(amount, p.free())
	p.mu.Unlock()
	op := Op{Kind: OpCreate, From: rec.From, To: rec.To, Value: missing, Intent: uuid.New()}
	if !rec.Address.Empty() {
		op.Kind, op.Channel = OpAddFunds, rec.Address
	}
	balance, err := m.chain.Balance(ctx, rec.From)
	if err != nil {
		return Ready{}, err
	}
	if balance.LessThan(missing) {
		return Ready{}, fmt.Errorf("%w: %s has %s, the deal needs %s more", ErrWalletFunds, rec.From, balance, missing)
	}
	rec.Intent, rec.Pending = op.Intent[:], missing
	if err := m.save(ctx, p, rec); err != nil {
		return Ready{}, err
	}
	msg, err := m.chain.Submit(ctx, op)
	if err != nil {
		return Ready{}, err
	}
	rec.Msg = &msg
	if err := m.save(ctx, p, rec); err != nil {
		return Ready{}, err
	}
	p.mu.Lock()
	p.reserved = append(p.reserved, amount)
	p.mu.Unlock()
	return Ready{Channel: rec.Address, Wait: msg}, nil
}

// finish waits for the message in flight of a pair and takes over its result; one whose fate is unknown after a crash
// is looked up by its intent. work is held.
func (m *Manager) finish(ctx context.Context, p *payer) error {
	p.mu.Lock()
	rec := p.rec
	p.mu.Unlock()
	if len(rec.Intent) == 0 {
		return nil
	}
	if rec.Msg == nil {
		msg, err := m.chain.Lookup(ctx, rec.From, uuid.UUID(rec.Intent))
		if err != nil {
			return err
		}
		if !msg.Defined() {
			rec.Intent, rec.Pending = nil, big.Zero()
			return m.save(ctx, p, rec)
		}
		rec.Msg = &msg
	}
	r, err := m.chain.Wait(ctx, *rec.Msg)
	if err != nil {
		return err
	}
	msg := *rec.Msg
	if r.ExitCode == 0 {
		rec.Amount = big.Add(rec.Amount, rec.Pending)
		rec.Address = r.Channel
	}
	rec.Intent, rec.Msg, rec.Pending = nil, nil, big.Zero()
	if err := m.save(ctx, p, rec); err != nil {
		return err
	}
	if r.ExitCode != 0 {
		return fmt.Errorf("message %s failed with exit code %d: %s", msg, r.ExitCode, r.Message)
	}
	m.mu.Lock()
	m.byAddr[rec.Address] = p
	m.mu.Unlock()
	return nil
}

func (m *Manager) save(ctx context.Context, p *payer, rec outChannel) error {
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	// Sums may have moved while the chain was asked.
	rec.Promised, rec.Reserved, rec.NextLane = p.rec.Promised, p.rec.Reserved, p.rec.NextLane
	p.rec = rec
	err = put(ctx, b, rec.key(), &rec)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return store.Commit(ctx, m.ds, b)
}

// WaitReady waits for a message of GetOrCreate; it may be called again, also after a restart.
func (m *Manager) WaitReady(ctx context.Context, msg cid.Cid) (address.Address, error) {
	r, err := m.chain.Wait(ctx, msg)
	if err != nil {
		return address.Undef, err
	}
	if r.ExitCode != 0 {
		return address.Undef, fmt.Errorf("message %s failed with exit code %d: %s", msg, r.ExitCode, r.Message)
	}
	info, err := m.chain.Channel(ctx, r.Channel)
	if err != nil {
		return address.Undef, err
	}
	p, err := m.pair(ctx, info.From, info.To)
	if err != nil {
		return address.Undef, err
	}
	p.work.Lock()
	defer p.work.Unlock()
	return r.Channel, m.finish(ctx, p)
}

// AllocateLane returns a lane that was never used.
func (m *Manager) AllocateLane(ctx context.Context, ch address.Address) (uint64, error) {
	p, err := m.outbound(ch)
	if err != nil {
		return 0, err
	}
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	lane := &laneRecord{Channel: ch, Lane: p.rec.NextLane, Amount: big.Zero(), Reserved: p.free()}
	if len(p.reserved) > 0 {
		lane.Reserved, p.reserved = p.reserved[0], p.reserved[1:]
	}
	p.rec.NextLane++
	p.rec.Reserved = big.Add(p.rec.Reserved, lane.Reserved)
	p.lanes[lane.Lane] = lane
	rec := p.rec
	err = errors.Join(put(ctx, b, rec.key(), &rec), put(ctx, b, laneKey("o", ch, lane.Lane), lane))
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return lane.Lane, store.Commit(ctx, m.ds, b)
}

// CreateVoucher signs the total amount of a lane for a deal. The voucher, the deal it belongs to and the bytes it covers
// are one synced commit; the same amount again returns the same voucher (D8).
func (m *Manager) CreateVoucher(ctx context.Context, deal string, ch address.Address, lane uint64, amount abi.TokenAmount, covers uint64) (*paych.SignedVoucher, bool, error) {
	p, err := m.outbound(ch)
	if err != nil {
		return nil, false, err
	}
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return nil, false, err
	}
	v, replayed, err := m.prepareVoucher(ctx, p, b, deal, lane, amount, covers)
	if err != nil || replayed {
		return v, replayed, err
	}
	// The flush is outside the lock: vouchers of several deals share it.
	return v, false, m.ds.Sync(ctx, datastore.NewKey("/"))
}

func (m *Manager) prepareVoucher(ctx context.Context, p *payer, b datastore.Batch, deal string, n uint64, amount abi.TokenAmount, covers uint64) (*paych.SignedVoucher, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[n]
	switch {
	case l == nil:
		return nil, false, fmt.Errorf("lane %d of %s was not allocated", n, p.rec.Address)
	case l.Deal != "" && l.Deal != deal:
		return nil, false, fmt.Errorf("%w: lane %d belongs to %s", ErrLaneBound, n, l.Deal)
	case l.Voucher != nil && l.Amount.Equals(amount):
		return l.Voucher, true, nil
	case amount.LessThanEqual(l.Amount):
		return nil, false, fmt.Errorf("%w: lane %d promised %s, asked for %s", ErrAmountNotIncreasing, n, l.Amount, amount)
	case p.rec.Settling:
		return nil, false, fmt.Errorf("%w: %s", ErrChannelSettling, p.rec.Address)
	}
	promised := big.Add(p.rec.Promised, big.Sub(amount, l.Amount))
	if promised.GreaterThan(p.rec.Amount) {
		return nil, false, &ShortfallError{big.Sub(promised, p.rec.Amount)}
	}
	v := &paych.SignedVoucher{ChannelAddr: p.rec.Address, Lane: n, Nonce: l.Nonce + 1, Amount: amount, Merges: []paych.Merge{}}
	key, err := m.wallet.Key(p.rec.From)
	if err != nil {
		return nil, false, err
	}
	if err := SignVoucher(key, v); err != nil {
		return nil, false, err
	}
	next := *l
	next.Deal, next.Nonce, next.Amount, next.Bytes, next.Voucher = deal, v.Nonce, amount, covers, v
	rec := p.rec
	rec.Promised = promised
	err = errors.Join(put(ctx, b, laneKey("o", rec.Address, n), &next), put(ctx, b, rec.key(), &rec),
		put(ctx, b, dealKey("o", deal), &dealRef{rec.Address, n}))
	if err == nil {
		err = b.Commit(ctx)
	}
	if err != nil {
		return nil, false, err
	}
	*l, p.rec = next, rec
	return v, false, nil
}

// Funds describes the money of an outbound channel.
type Funds struct {
	Confirmed, Pending, Queued, Promised abi.TokenAmount
	Wait                                 *cid.Cid
}

// Available reports the money of an outbound channel.
func (m *Manager) Available(ctx context.Context, ch address.Address) (Funds, error) {
	p, err := m.outbound(ch)
	if err != nil {
		return Funds{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return Funds{p.rec.Amount, p.rec.Pending, big.Zero(), p.rec.Promised, p.rec.Msg}, nil
}

// ReleaseDeal gives back what a deal that has ended reserved and did not spend. It may be called again.
func (m *Manager) ReleaseDeal(ctx context.Context, deal string) error {
	var ref dealRef
	found, err := get(ctx, m.ds, dealKey("o", deal), &ref)
	if err != nil || !found {
		return err
	}
	p, err := m.outbound(ref.Channel)
	if err != nil {
		return err
	}
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[ref.Lane]
	if l == nil || l.Closed {
		return nil
	}
	l.Closed = true
	p.rec.Reserved = big.Add(big.Sub(p.rec.Reserved, l.Reserved), l.Amount)
	l.Reserved = l.Amount
	rec := p.rec
	err = errors.Join(put(ctx, b, laneKey("o", ref.Channel, ref.Lane), l), put(ctx, b, rec.key(), &rec))
	if err != nil {
		return err
	}
	return b.Commit(ctx)
}

// Free is what a new deal between two addresses can have without a deposit.
func (m *Manager) Free(from, to address.Address) abi.TokenAmount {
	m.mu.Lock()
	p := m.pairs[pairOf(from, to)]
	m.mu.Unlock()
	if p == nil {
		return big.Zero()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.Address.Empty() || p.rec.Settling {
		return big.Zero()
	}
	return p.free()
}
