package paych

import (
	"context"
	"errors"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
)

// depositMessage is a message that the chain has not answered yet.
type depositMessage struct {
	msg    cid.Cid
	grants map[string]abi.TokenAmount // what it is for, by deal
	done   chan struct{}              // closed when its result is stored
}

// hasMessage tells whether a message is on its way; p.mu is held.
func (p *outChannel) hasMessage() bool { return len(p.rec.Intent) > 0 }

// errNotWanted means that a message of before the process started was not sent then, and that nobody asks for it now.
var errNotWanted = errors.New("the message was not sent, and nobody asks for it")

// hasWaiting tells whether somebody waits for funds of the channel.
func (p *outChannel) hasWaiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) > 0
}

// completeMessage waits for the message in flight of a pair and takes over its result; one whose fate is unknown after a crash
// is looked up by its intent.
func (d *depositor) completeMessage(ctx context.Context, p *outChannel) error {
	p.mu.Lock()
	rec := p.rec
	p.mu.Unlock()
	if len(rec.Intent) == 0 {
		return nil
	}
	if rec.Msg == nil {
		msg, err := d.chain.Lookup(ctx, rec.From, uuid.UUID(rec.Intent))
		if err == nil && !msg.Defined() && d.out.maySpend != nil && !p.hasWaiting() {
			return errNotWanted
		}
		if err == nil && !msg.Defined() {
			msg, err = d.submitIntent(ctx, p, rec.pendingOp())
		}
		if err != nil {
			return err
		}
		rec.Msg = &msg
	}
	r, err := d.chain.Wait(ctx, *rec.Msg)
	if err != nil {
		return err
	}
	ok := r.ExitCode == 0
	err = d.out.updateRecord(ctx, p, func(rec *outRecord) {
		if ok {
			rec.Amount, rec.Address = big.Add(rec.Amount, rec.Pending), r.Channel
		}
		rec.Intent, rec.Msg, rec.Pending = nil, nil, big.Zero()
	})
	if err != nil {
		return err
	}
	if ok {
		d.out.addChannel(r.Channel, p)
	}
	p.finishMessage(ok)
	return nil
}

// finishMessage turns what a message was for into reservations, or forgets it, and wakes who waits for it.
func (p *outChannel) finishMessage(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.message
	if f == nil {
		return
	}
	p.unreserve(withMessage)
	if ok {
		for deal, amount := range f.grants {
			p.reserve(deal, amount)
		}
	}
	p.message = nil
	close(f.done)
}

// WaitReady waits for a message of GetOrCreate; it may be called again, also after a restart.
func (d *depositor) WaitReady(ctx context.Context, msg cid.Cid) (address.Address, error) {
	r, err := d.chain.Wait(ctx, msg)
	if err != nil {
		return address.Undef, err
	}
	if err := r.failureOf(msg); err != nil {
		return address.Undef, err
	}
	p, err := d.out.outChannelAt(r.Channel)
	if err != nil { // not stored yet
		info, err := d.chain.Channel(ctx, r.Channel)
		if err != nil {
			return address.Undef, err
		}
		if p, err = d.out.channelBetween(info.From, info.To); err != nil {
			return address.Undef, err
		}
	}
	for {
		f, landed, err := d.messageCompleted(p, r.Channel, msg)
		if err != nil || landed {
			return r.Channel, err
		}
		if err := d.enqueue(p, nil); err != nil {
			return address.Undef, err
		}
		if err := waitForDeposit(ctx, f); err != nil {
			return address.Undef, err
		}
	}
}

// messageCompleted tells whether the result of a message is stored, or why it is not.
func (d *depositor) messageCompleted(p *outChannel, ch address.Address, msg cid.Cid) (*depositMessage, bool, error) {
	known := d.out.knownChannel(ch) == p
	p.mu.Lock()
	defer p.mu.Unlock()
	if known && (p.rec.Msg == nil || *p.rec.Msg != msg) && (p.message == nil || p.message.msg != msg) {
		return nil, true, nil
	}
	return p.message, false, p.messageErr
}

// waitForDeposit waits until a message has landed; one that was found at the start of the process has no flight to wait for.
func waitForDeposit(ctx context.Context, f *depositMessage) error {
	var done chan struct{}
	if f != nil {
		done = f.done
	}
	t := time.NewTimer(minRetryWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
