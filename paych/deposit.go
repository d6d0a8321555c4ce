package paych

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// retryWait bounds the pause between two attempts to hear of a message in flight.
const (
	minRetryWait = 100 * time.Millisecond
	maxRetryWait = 30 * time.Second
)

// fundsRequest is one call of GetOrCreate that waits for funds.
type fundsRequest struct {
	deal      string
	amount    abi.TokenAmount
	answer    chan fundsAnswer
	abandoned bool // the caller is gone; guarded by the mutex of its channel
}

type fundsAnswer struct {
	ready Ready
	err   error
}

// depositor brings money into the channels that this node pays into: one message at a time for each.
type depositor struct {
	chain Chain
	out   *outChannels

	ctx    context.Context // of its messages; ended by Close
	cancel context.CancelFunc
	group  lifecycle.Group
}

func newDepositor(ctx context.Context, chain Chain, out *outChannels) *depositor {
	d := &depositor{chain: chain, out: out}
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return d
}

// GetOrCreate makes amount more available for one deal between two addresses: from what is free on the open channel,
// else by a deposit. There is one message in flight for a pair; requests that arrive meanwhile share the next one
// (docs/protocol/payments.md 3.3). A caller whose ctx ends leaves the queue. A deal that has a lane already, and may have forgotten it
// in a crash, gets what that has reserved, and no second deposit.
func (d *depositor) GetOrCreate(ctx context.Context, deal string, from, to address.Address, amount abi.TokenAmount) (Ready, error) {
	from, err := d.chain.ResolveKey(ctx, from)
	if err != nil {
		return Ready{}, err
	}
	if to, err = d.chain.ResolveKey(ctx, to); err != nil {
		return Ready{}, err
	}
	if amount.Nil() || amount.LessThan(big.Zero()) {
		return Ready{}, fmt.Errorf("%w: %s asked for", ErrAmount, amount)
	}
	p, err := d.usableChannel(ctx, from, to)
	if err != nil {
		return Ready{}, err
	}
	if amount.IsZero() {
		p.mu.Lock()
		defer p.mu.Unlock()
		return Ready{Channel: p.rec.Address}, nil
	}
	if l, err := d.out.unusedLane(ctx, p, deal); err != nil || l != nil && l.Reserved.GreaterThanEqual(amount) {
		return Ready{Channel: p.address()}, err
	}
	if err := d.out.checkSpending(deal); err != nil {
		return Ready{}, fmt.Errorf("no funds for deal %s: %w", deal, err)
	}
	r := &fundsRequest{deal: deal, amount: amount, answer: make(chan fundsAnswer, 1)}
	if err := d.enqueue(p, r); err != nil {
		return Ready{}, err
	}
	select {
	case a := <-r.answer:
		return a.ready, a.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.queue = slices.DeleteFunc(p.queue, func(q *fundsRequest) bool { return q == r })
	p.mu.Unlock()
	r.abandon(p)
	return Ready{}, ctx.Err()
}

// abandon takes back what a request was granted although nobody waits for it any more: at once, or when it is.
func (r *fundsRequest) abandon(p *outChannel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.abandoned = true
	p.unreserve(r.deal)
	if p.message != nil {
		delete(p.message.grants, r.deal)
	}
}

// usableChannel returns the owner of the open channel of a pair. One that the other side is closing is given up, and the next
// deal gets a new one; while the chain is away, what was last known counts.
func (d *depositor) usableChannel(ctx context.Context, from, to address.Address) (*outChannel, error) {
	p, err := d.out.channelBetween(from, to)
	if err != nil || p.address().Empty() {
		return p, err
	}
	closing, err := d.isClosing(ctx, p)
	if err != nil || !closing {
		return p, err
	}
	if err := d.out.updateRecord(ctx, p, func(r *outRecord) { r.Settling = true }); err != nil {
		return nil, err
	}
	return d.out.channelBetween(from, to)
}

// isClosing asks the chain whether a channel is being closed. Calls that come while it is asked share the next answer. A chain that did
// not answer is not asked again for a while.
func (d *depositor) isClosing(ctx context.Context, p *outChannel) (bool, error) {
	asked := time.Now()
	select {
	case p.askingChain <- struct{}{}:
		defer func() { <-p.askingChain }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	p.mu.Lock()
	known := p.rec.Settling || p.askedAt.After(asked) || time.Since(p.unansweredAt) < stateTTL
	closing := p.rec.Settling
	p.mu.Unlock()
	if known {
		return closing, nil
	}
	began := time.Now()
	info, err := d.chain.Channel(ctx, p.address())
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.unansweredAt = time.Now()
		return false, ctx.Err()
	}
	p.askedAt = began
	return info.SettlingAt != 0 || info.Collected, nil
}

// enqueue adds a request and sees to it that somebody works on the queue. A nil request only wakes the worker.
func (d *depositor) enqueue(p *outChannel, r *fundsRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r != nil {
		p.queue = append(p.queue, r)
	}
	if p.serving {
		return nil
	}
	if p.serving = d.group.Go(func() { d.serveQueue(p) }); !p.serving {
		p.queue = nil
		return ErrClosed
	}
	return nil
}

// serveQueue serves the queue of a pair until nothing waits and no message is in flight.
func (d *depositor) serveQueue(p *outChannel) {
	for wait := minRetryWait; ; {
		err := d.completeMessage(d.ctx, p)
		p.mu.Lock()
		if errors.Is(err, errNotWanted) { // the next request goes on with the message
			p.serving = len(p.queue) > 0
			more := p.serving
			p.mu.Unlock()
			if more {
				continue
			}
			return
		}
		batch := p.queue
		p.queue, p.messageErr = nil, err
		if err != nil && p.hasMessage() { // the chain is away: nobody is kept waiting for it, but the message stays ours
			p.mu.Unlock()
			failRequests(batch, err)
			if !lifecycle.Sleep(d.ctx, wait) {
				p.abandonQueue()
				return
			}
			wait = min(2*wait, maxRetryWait)
			continue
		}
		if len(batch) == 0 {
			p.serving = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		wait = minRetryWait
		d.serveBatch(p, batch)
		if d.ctx.Err() != nil {
			p.abandonQueue()
			return
		}
	}
}

// abandonQueue ends the work on a queue when the manager is closed.
func (p *outChannel) abandonQueue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	failRequests(p.queue, ErrClosed)
	p.queue, p.serving = nil, false
}

func failRequests(batch []*fundsRequest, err error) {
	for _, r := range batch {
		r.answer <- fundsAnswer{err: err}
	}
}

// errChannelRetired means that the channel is being closed: requests go to the next one of the pair.
var errChannelRetired = errors.New("the payment channel is being closed")

// serveBatch gives what is free to the smallest requests first and makes one deposit for all others.
func (d *depositor) serveBatch(p *outChannel, batch []*fundsRequest) {
	slices.SortStableFunc(batch, func(a, b *fundsRequest) int { return big.Cmp(a.amount, b.amount) })
	for {
		if batch = p.grantRequests(batch); len(batch) == 0 {
			return
		}
		ready, enough, err := d.depositForBatch(d.ctx, p, batch)
		switch {
		case errors.Is(err, errChannelRetired):
			d.passToNextChannel(p, batch)
			return
		case enough: // something was given back meanwhile
			continue
		}
		for _, r := range batch {
			r.answer <- fundsAnswer{ready, err}
		}
		return
	}
}

// passToNextChannel hands requests to the next channel of the pair.
func (d *depositor) passToNextChannel(p *outChannel, batch []*fundsRequest) {
	for _, r := range batch {
		next, err := d.out.channelBetween(p.rec.From, p.rec.To)
		if err == nil {
			err = d.enqueue(next, r)
		}
		if err != nil {
			r.answer <- fundsAnswer{err: err}
		}
	}
}

// depositForBatch sends one message for what a batch lacks: a new channel, or funds for the open one.
func (d *depositor) depositForBatch(ctx context.Context, p *outChannel, batch []*fundsRequest) (ready Ready, enough bool, err error) {
	f := &depositMessage{done: make(chan struct{}), grants: map[string]abi.TokenAmount{}}
	total := big.Zero()
	p.mu.Lock()
	for _, r := range batch {
		if r.abandoned {
			continue
		}
		sum := r.amount
		if old, ok := f.grants[r.deal]; ok {
			sum = big.Add(sum, old)
		}
		f.grants[r.deal] = sum
		total = big.Add(total, r.amount)
	}
	rec := p.rec
	if rec.Settling && !rec.Address.Empty() {
		p.mu.Unlock()
		return Ready{}, false, errChannelRetired
	}
	missing := big.Sub(total, p.freeFunds())
	if enough = missing.LessThanEqual(big.Zero()) && !rec.Address.Empty(); !enough {
		p.message = f
		p.reserve(withMessage, big.Max(big.Zero(), big.Sub(total, missing)))
	}
	p.mu.Unlock()
	if enough {
		return Ready{}, true, nil
	}
	ready, err = d.sendDeposit(ctx, p, f, rec, missing)
	if err != nil {
		p.mu.Lock()
		p.message = nil
		p.unreserve(withMessage)
		p.mu.Unlock()
		close(f.done)
	}
	return ready, false, err
}

// withMessage is the key under which what is free is kept for the deals of the message in flight: it brings only the rest.
const withMessage = "message in flight"

func (d *depositor) sendDeposit(ctx context.Context, p *outChannel, f *depositMessage, rec outRecord, missing abi.TokenAmount) (Ready, error) {
	if missing.LessThanEqual(big.Zero()) { // all who wanted it are gone
		return Ready{}, context.Canceled
	}
	id := uuid.New()
	rec.Intent, rec.Pending = id[:], missing
	op := rec.pendingOp()
	balance, err := d.chain.Balance(ctx, rec.From)
	if err != nil {
		return Ready{}, err
	}
	if balance.LessThan(missing) {
		return Ready{}, fmt.Errorf("%w: %s has %s, the deal needs %s more", ErrWalletFunds, rec.From, balance, missing)
	}
	err = d.out.updateSynced(ctx, p, func() (*laneRecord, error) {
		if p.rec.Settling && !p.rec.Address.Empty() {
			return nil, errChannelRetired
		}
		p.rec.Intent, p.rec.Pending = op.Intent[:], missing
		return nil, nil
	})
	if err != nil {
		return Ready{}, err
	}
	msg, err := d.submitIntent(ctx, p, op)
	if err != nil {
		return Ready{}, err
	}
	if err := d.out.updateRecord(ctx, p, func(r *outRecord) { r.Msg = &msg }); err != nil {
		return Ready{}, err
	}
	p.mu.Lock()
	f.msg = msg
	p.mu.Unlock()
	return Ready{Channel: rec.Address, Wait: msg}, nil
}

// submitIntent sends a message whose intent is stored. Only a refusal ends the intent: after any other error the message may be
// on its way, and the same intent is submitted again until it is there.
func (d *depositor) submitIntent(ctx context.Context, p *outChannel, op Op) (cid.Cid, error) {
	msg, err := d.chain.Submit(ctx, op)
	if errors.Is(err, ErrRefused) {
		err = errors.Join(err, d.out.updateRecord(ctx, p, func(r *outRecord) { r.Intent, r.Pending = nil, big.Zero() }))
	}
	return msg, err
}

// pendingOp is the message of the stored intent.
func (c *outRecord) pendingOp() Op {
	op := Op{Kind: OpCreate, From: c.From, To: c.To, Value: c.Pending, Intent: uuid.UUID(c.Intent)}
	if !c.Address.Empty() {
		op.Kind, op.Channel = OpAddFunds, c.Address
	}
	return op
}

// ErrClosed means that the manager has been closed.
var ErrClosed = errors.New("payment channel manager is closed")

// Close ends all waiting for the chain, bounded by ctx.
func (d *depositor) Close(ctx context.Context) error {
	d.cancel()
	return d.group.Close(ctx)
}
