package paych

import (
	"context"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
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
	rec      outChannel
	lanes    map[uint64]*laneRecord
	reserved map[string]abi.TokenAmount // granted to a deal, not on a lane yet
	held     abi.TokenAmount            // their sum
	queue    []*request
	working  bool          // a goroutine serves the queue
	flight   *flight       // the message in flight, if this process sent it
	looking  chan struct{} // held while the chain is asked about the channel
	seen     time.Time     // when the chain was last asked about it
	missed   time.Time     // when it last gave no answer
	trouble  error         // why the result of the message in flight is not known yet
}

// address is that of the channel, once it is there.
func (p *payer) address() address.Address {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.Address
}

// free is what a new deal can have without a further deposit; mu is held.
func (p *payer) free() abi.TokenAmount {
	f := big.Sub(big.Sub(p.rec.Amount, p.rec.Reserved), p.held)
	if f.LessThan(big.Zero()) {
		return big.Zero()
	}
	return f
}

func newPayer(rec outChannel) *payer {
	return &payer{rec: rec, looking: make(chan struct{}, 1), lanes: map[uint64]*laneRecord{}, reserved: map[string]abi.TokenAmount{}, held: big.Zero()}
}

// hold grants amount to a deal; mu is held.
func (p *payer) hold(deal string, amount abi.TokenAmount) {
	if old, ok := p.reserved[deal]; ok {
		amount = big.Add(amount, old)
		p.held = big.Sub(p.held, old)
	}
	p.reserved[deal] = amount
	p.held = big.Add(p.held, amount)
}

// drop takes a grant back and returns it; mu is held.
func (p *payer) drop(deal string) (abi.TokenAmount, bool) {
	amount, ok := p.reserved[deal]
	if ok {
		delete(p.reserved, deal)
		p.held = big.Sub(p.held, amount)
	}
	return amount, ok
}

func (c *outChannel) key() datastore.Key { return datastore.NewKey("/o/pair/" + c.ID) }

// Ready is the answer to a request for funds: a channel, or a message to wait for.
type Ready struct {
	Channel address.Address
	Wait    cid.Cid
}

// save changes what the chain said of a channel, and nothing else.
func (m *Manager) save(ctx context.Context, p *payer, f func(rec *outChannel)) error {
	return m.change(ctx, p, func() (*laneRecord, error) {
		f(&p.rec)
		return nil, nil
	})
}

// change lets f change the record of a channel and at most one lane, and stores both in one synced batch. Batches of a
// channel are applied in the order of the changes; the flush is outside the lock, so that several share it. When f or
// the store fails nothing has changed.
func (m *Manager) change(ctx context.Context, p *payer, f func() (*laneRecord, error)) error {
	if err := m.note(ctx, p, f); err != nil {
		return err
	}
	return m.ds.Sync(ctx, datastore.NewKey("/"))
}

// note is change for what nobody acts on before the next change: it is on stable storage with that at the latest, as the store keeps the
// order of its writes.
func (m *Manager) note(ctx context.Context, p *payer, f func() (*laneRecord, error)) error {
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
	return err
}
