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

// outRecord is a channel that we pay into. Total and Promised are sums over its lanes, so that a voucher costs the
// same however many came before it.
type outRecord struct {
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

func (c *outRecord) fields() []wire.Field {
	return []wire.Field{
		wire.Text("id", &c.ID), wire.Address("from", &c.From), wire.Address("to", &c.To),
		wire.OptAddress("address", &c.Address), wire.Amount("amount", &c.Amount), wire.Amount("promised", &c.Promised),
		wire.Amount("reserved", &c.Reserved), wire.Uint("nextLane", &c.NextLane), wire.Bool("settling", &c.Settling),
		wire.Amount("pending", &c.Pending), wire.Bytes("intent", &c.Intent, 1024),
		wire.Nullable("msg", &c.Msg, func(v *cid.Cid) wire.Field { return wire.Cid("msg", v) }),
	}
}

// outChannel is the owner of one outbound channel.
type outChannel struct {
	mu           sync.Mutex // short: never held across chain calls or disk flushes
	rec          outRecord
	lanes        map[uint64]*laneRecord
	reserved     map[string]abi.TokenAmount // granted to a deal, not on a lane yet
	reservedSum  abi.TokenAmount            // their sum
	queue        []*fundsRequest
	serving      bool            // a goroutine serves the queue
	message      *depositMessage // the message in flight, if this process sent it
	askingChain  chan struct{}   // held while the chain is asked about the channel
	askedAt      time.Time       // when the chain was last asked about it
	unansweredAt time.Time       // when it last gave no answer
	messageErr   error           // why the result of the message in flight is not known yet
}

// address is that of the channel, once it is there.
func (p *outChannel) address() address.Address {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.Address
}

// freeFunds is what a new deal can have without a further deposit; mu is held.
func (p *outChannel) freeFunds() abi.TokenAmount {
	f := big.Sub(big.Sub(p.rec.Amount, p.rec.Reserved), p.reservedSum)
	if f.LessThan(big.Zero()) {
		return big.Zero()
	}
	return f
}

func newOutChannel(rec outRecord) *outChannel {
	return &outChannel{rec: rec, askingChain: make(chan struct{}, 1), lanes: map[uint64]*laneRecord{}, reserved: map[string]abi.TokenAmount{}, reservedSum: big.Zero()}
}

// reserve grants amount to a deal; mu is held.
func (p *outChannel) reserve(deal string, amount abi.TokenAmount) {
	if old, ok := p.reserved[deal]; ok {
		amount = big.Add(amount, old)
		p.reservedSum = big.Sub(p.reservedSum, old)
	}
	p.reserved[deal] = amount
	p.reservedSum = big.Add(p.reservedSum, amount)
}

// unreserve takes a grant back and returns it; mu is held.
func (p *outChannel) unreserve(deal string) (abi.TokenAmount, bool) {
	amount, ok := p.reserved[deal]
	if ok {
		delete(p.reserved, deal)
		p.reservedSum = big.Sub(p.reservedSum, amount)
	}
	return amount, ok
}

func (c *outRecord) recordKey() datastore.Key { return datastore.NewKey("/o/pair/" + c.ID) }

// Ready is the answer to a request for funds: a channel, or a message to wait for.
type Ready struct {
	Channel address.Address
	Wait    cid.Cid
}

// updateRecord changes what the chain said of a channel, and nothing else.
func (o *outChannels) updateRecord(ctx context.Context, p *outChannel, f func(rec *outRecord)) error {
	return o.updateSynced(ctx, p, func() (*laneRecord, error) {
		f(&p.rec)
		return nil, nil
	})
}

// updateSynced lets f change the record of a channel and at most one lane, and stores both in one synced batch. Batches of a
// channel are applied in the order of the changes; the flush is outside the lock, so that several share it. When f or
// the store fails nothing has changed.
func (o *outChannels) updateSynced(ctx context.Context, p *outChannel, f func() (*laneRecord, error)) error {
	if err := o.updateLazy(ctx, p, f); err != nil {
		return err
	}
	return o.ds.Sync(ctx, datastore.NewKey("/"))
}

// updateLazy is change for what nobody acts on before the next change: it is on stable storage with that at the latest, as the store keeps the
// order of its writes.
func (o *outChannels) updateLazy(ctx context.Context, p *outChannel, f func() (*laneRecord, error)) error {
	b, err := o.ds.Batch(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	before := p.rec
	lane, err := f()
	if err == nil {
		err = putRecord(ctx, b, p.rec.recordKey(), &p.rec)
	}
	if err == nil && lane != nil {
		err = putRecord(ctx, b, laneKey("o", lane.Channel, lane.Lane), lane)
	}
	if err == nil && lane != nil && lane.Deal != "" {
		err = putRecord(ctx, b, dealKey("o", lane.Deal), &dealRef{lane.Channel, lane.Lane})
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
