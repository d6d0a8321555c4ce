package accounting

import (
	"context"
	"slices"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Paid is told of a voucher with outcome Applied that came from a peer: the peer pays as this payer from now on, and what its deal has
// out of the strangers' allowance becomes a matter of the payer's record as far as that reaches. For a deal that has ended, unpaid is
// what is left of it now, in bytes. It is not synced: what a crash loses is lent more carefully.
func (p *Payers) Paid(ctx context.Context, deal, channel string, grown abi.TokenAmount, unpaid uint64) error {
	p.mu.Lock()
	l := p.loans[deal]
	if l == nil || l.End == nil && l.Strangers == 0 && l.Payer != "" {
		p.mu.Unlock()
		return nil // nothing changes by it
	}
	peer := l.Peer
	p.mu.Unlock()
	payer := "peer-" + peer
	if p.standing != nil {
		who, _, err := p.standing(ctx, channel)
		if err != nil {
			return err
		}
		payer = who
	}
	if err := p.bindPayer(ctx, peer, payer, channel, grown); err != nil {
		return err
	}
	p.mu.Lock()
	channels := p.channelsOf(payer)
	p.mu.Unlock()
	secured := p.secured(ctx, payer, channels)
	return p.moveToRecord(ctx, deal, payer, secured, unpaid)
}

// bindPayer remembers who a peer pays as, and with which channels.
func (p *Payers) bindPayer(ctx context.Context, peer, payer, channel string, grown abi.TokenAmount) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bound[peer] != payer {
		if err := p.ds.Put(ctx, datastore.NewKey(boundPrefix+"/"+peer), []byte(payer)); err != nil {
			return err
		}
		p.bound[peer] = payer
	}
	r := p.records[payer]
	if r == nil {
		r = &payerRecord{Paid: big.Zero(), Gone: big.Zero()}
		p.records[payer] = r
	}
	known := slices.Contains(r.Channels, channel)
	if !known {
		r.Channels = append(r.Channels, channel)
		r.Channels = r.Channels[max(0, len(r.Channels)-maxChannels):]
	}
	if p.standing == nil {
		r.Paid = big.Add(orZero(r.Paid), orZero(grown))
	} else if known {
		return nil
	}
	return putJSON(ctx, p.ds, recordPrefix+"/"+payer, r)
}

// moveToRecord makes a loan one of its payer's.
func (p *Payers) moveToRecord(ctx context.Context, deal, payer string, secured abi.TokenAmount, unpaid uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loans[deal]
	if l == nil {
		return nil
	}
	if l.End != nil {
		return p.repay(ctx, p.ds, l, unpaid)
	}
	l.Payer = ""
	out, outBytes := p.outstanding(payer)
	l.Payer = payer
	room := recordRoom(p.limits, secured, out, l.Price, outBytes)
	if moved := min(l.Strangers, room-min(room, l.Record)); moved > 0 {
		l.Strangers -= moved
		l.Record += moved
		p.giveBack(moved)
		if err := putJSON(ctx, p.ds, levelKey, p.level); err != nil {
			return err
		}
	}
	return putJSON(ctx, p.ds, loanKey(deal), l)
}

// repay lowers what an ended deal has left unpaid; with nothing left it is forgotten. mu is held.
func (p *Payers) repay(ctx context.Context, w datastore.Write, l *Loan, unpaid uint64) error {
	if unpaid >= l.End.Unpaid && unpaid > 0 {
		return nil
	}
	return p.leaveUnpaid(ctx, w, l, unpaid)
}

// leaveUnpaid makes the loan of an ended deal what is unpaid: out of the strangers' allowance first, the rest of it on the record. mu is held.
func (p *Payers) leaveUnpaid(ctx context.Context, w datastore.Write, l *Loan, unpaid uint64) error {
	back := l.Strangers - min(l.Strangers, unpaid)
	l.End.Unpaid, l.Deposit = unpaid, 0
	l.Strangers -= back
	l.Record = unpaid - l.Strangers
	p.giveBack(back)
	if err := putJSON(ctx, w, levelKey, p.level); err != nil {
		return err
	}
	if unpaid > 0 {
		return putJSON(ctx, w, loanKey(l.Deal), l)
	}
	delete(p.loans, l.Deal)
	return w.Delete(ctx, datastore.NewKey(loanKey(l.Deal)))
}

// End tells that a deal has ended with bytes unpaid, and on whose account, in the batch that stores the end. It may be called again with the same. A
// deal whose bytes are paid gives its loan back; another one holds it until it is paid or Memory has passed.
func (p *Payers) End(ctx context.Context, w datastore.Write, deal string, unpaid uint64, blame reason.Blame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loans[deal]
	if l == nil {
		return nil
	}
	if l.End == nil {
		l.End = &LoanEnd{Blame: blame, At: p.now()}
	}
	return p.leaveUnpaid(ctx, w, l, unpaid)
}

// expire forgets what ended Memory ago. Whoever never paid a debt has no record any more. mu is held.
func (p *Payers) expire(ctx context.Context, now time.Time) {
	for deal, l := range p.loans {
		if l.End == nil || now.Sub(l.End.At) < p.limits.Memory {
			continue
		}
		if r := p.records[l.Payer]; r != nil && l.End.Blame == reason.Theirs {
			r.Defaulted = true
			_ = putJSON(ctx, p.ds, recordPrefix+"/"+l.Payer, r) // what is not stored is done again by the next start
		}
		p.giveBack(l.Strangers)
		delete(p.loans, deal)
		_ = p.ds.Delete(ctx, datastore.NewKey(loanKey(deal)))
	}
}

// Debt is what a peer left unpaid by its own fault.
type Debt struct {
	Deal, Peer, Payer string
	Bytes             uint64
	Amount            abi.TokenAmount // attoFIL
	Since, Until      time.Time
}

// Debts lists what bars credit, oldest first.
func (p *Payers) Debts(ctx context.Context) []Debt {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(ctx, p.now())
	var out []Debt
	for _, l := range p.loans {
		if l.End != nil && l.End.Blame == reason.Theirs && l.End.Unpaid > 0 {
			out = append(out, Debt{l.Deal, l.Peer, l.Payer, l.End.Unpaid, l.amount(), l.End.At, l.End.At.Add(p.limits.Memory)})
		}
	}
	slices.SortFunc(out, func(a, b Debt) int { return a.Since.Compare(b.Since) })
	return out
}

// Forgive ends the debts of a peer and reports how many there were. Its record stays.
func (p *Payers) Forgive(ctx context.Context, peer string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, l := range p.loans {
		if l.Peer != peer || l.End == nil || l.End.Blame != reason.Theirs {
			continue
		}
		if err := p.repay(ctx, p.ds, l, 0); err != nil {
			return n, err
		}
		n++
	}
	return n, p.ds.Sync(ctx, datastore.NewKey("/"))
}

// Unpaid is what all deals together have out, in bytes: lent to strangers, and on records.
func (p *Payers) Unpaid() (strangers, records uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.loans {
		strangers, records = add(strangers, l.Strangers), add(records, l.Record)
	}
	return strangers, records
}
