package paych

import (
	"context"
	"fmt"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

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
		wire.OptAddress("address", &c.Address), wire.Amount("amount", &c.Amount), wire.Amount("promised", &c.Promised),
		wire.Amount("reserved", &c.Reserved), wire.Uint("nextLane", &c.NextLane), wire.Bool("settling", &c.Settling),
		wire.Amount("pending", &c.Pending), wire.Bytes("intent", &c.Intent, 1024),
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
	asked    abi.TokenAmount   // granted when the message in flight succeeds
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
	if ch, ok := p.take(amount); ok {
		return Ready{Channel: ch}, nil
	}
	p.work.Lock()
	defer p.work.Unlock()
	if err := m.finish(ctx, p); err != nil {
		return Ready{}, err
	}
	if ch, ok := p.take(amount); ok {
		return Ready{Channel: ch}, nil
	}
	return m.deposit(ctx, p, amount)
}

// take reserves amount if it is free on a ready channel.
func (p *payer) take(amount abi.TokenAmount) (address.Address, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.Address.Empty() || p.rec.Settling || p.free().LessThan(amount) {
		return address.Undef, false
	}
	p.reserved = append(p.reserved, amount)
	return p.rec.Address, true
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
	p.asked = amount
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
	p.grant(r.ExitCode == 0)
	if err := r.failure(msg); err != nil {
		return err
	}
	m.mu.Lock()
	m.byAddr[rec.Address] = p
	m.mu.Unlock()
	return nil
}

// grant turns what the message in flight was for into a reservation, or forgets it.
func (p *payer) grant(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok && !p.asked.Nil() {
		p.reserved = append(p.reserved, p.asked)
	}
	p.asked = abi.TokenAmount{}
}

// save stores what the chain said of a channel.
func (m *Manager) save(ctx context.Context, p *payer, rec outChannel) error {
	return m.change(ctx, p, func() (*laneRecord, error) {
		// Sums may have moved while the chain was asked.
		rec.Promised, rec.Reserved, rec.NextLane = p.rec.Promised, p.rec.Reserved, p.rec.NextLane
		p.rec = rec
		return nil, nil
	})
}

// change lets f change the record of a channel and at most one lane, and stores both in one synced batch. Batches of a
// channel are applied in the order of the changes; the flush is outside the lock, so that several share it. When f or
// the store fails nothing has changed.
func (m *Manager) change(ctx context.Context, p *payer, f func() (*laneRecord, error)) error {
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	before := p.rec
	lane, err := f()
	if err == nil {
		err = put(ctx, b, p.rec.key(), &p.rec)
	}
	if err == nil && lane != nil {
		err = put(ctx, b, laneKey("o", lane.Channel, lane.Lane), lane)
	}
	if err == nil && lane != nil && lane.Deal != "" {
		err = put(ctx, b, dealKey("o", lane.Deal), &dealRef{lane.Channel, lane.Lane})
	}
	if err == nil {
		err = b.Commit(ctx)
	}
	if err != nil {
		p.rec = before
	} else if lane != nil {
		p.lanes[lane.Lane] = lane
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return m.ds.Sync(ctx, datastore.NewKey("/"))
}

// WaitReady waits for a message of GetOrCreate; it may be called again, also after a restart.
func (m *Manager) WaitReady(ctx context.Context, msg cid.Cid) (address.Address, error) {
	r, err := m.chain.Wait(ctx, msg)
	if err != nil {
		return address.Undef, err
	}
	if err := r.failure(msg); err != nil {
		return address.Undef, err
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
