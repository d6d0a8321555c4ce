package accounting

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Standing tells of one payment channel: who pays with it, and how much of what was paid on it is certain (redeemed, or
// covered by a confirmed deposit of a channel that is not settling; what was lost is not).
type Standing func(ctx context.Context, channel string) (payer string, secured abi.TokenAmount, err error)

// maxChannels is how many channels of one payer count; the newest are kept.
const maxChannels = 16

// payerRecord is what is known of a payer beside the loans.
type payerRecord struct {
	Channels []string        `json:"channels,omitempty"`
	Paid     abi.TokenAmount `json:"paid"`       // where nobody knows the standing of channels
	Gone     abi.TokenAmount `json:"writtenOff"` // of what is secured: nothing is lent on it after a debt that was never paid
	// Defaulted says that a debt was never paid: what is secured when it is looked at next is written off.
	Defaulted bool `json:"defaulted,omitempty"`
}

// Payers is the account of everybody who buys of a provider: it lends to deals, remembers what was not paid, and who a peer pays as.
// It is one owner for what deals share. It is safe for concurrent use; nothing is asked of the chain under its lock.
type Payers struct {
	ds       datastore.Batching
	limits   CreditLimits
	standing Standing // may be nil
	now      func() time.Time

	mu      sync.Mutex
	level   bucket
	loans   map[string]*Loan
	records map[string]*payerRecord // by payer
	bound   map[string]string       // peer to payer, by an applied voucher
}

// Keys of the store.
const (
	levelKey     = "/credit/1/level"
	loanPrefix   = "/credit/1/loan"
	recordPrefix = "/credit/1/payer"
	boundPrefix  = "/credit/1/peer"
)

// OpenPayers reads the accounts of ds. Loans of deals that ran count as used until these deals are taken up or end.
func OpenPayers(ctx context.Context, ds datastore.Batching, limits CreditLimits, standing Standing, now func() time.Time) (*Payers, error) {
	if now == nil {
		now = time.Now
	}
	p := &Payers{ds: ds, limits: limits, standing: standing, now: now, loans: map[string]*Loan{}, records: map[string]*payerRecord{}, bound: map[string]string{}}
	if err := eachRow(ctx, ds, "/credit/1", p.load); err != nil {
		return nil, fmt.Errorf("read the accounts of payers: %w", err)
	}
	return p, nil
}

// eachRow calls load for each record below a prefix, and names the one that cannot be read.
func eachRow(ctx context.Context, ds datastore.Read, prefix string, load func(key string, value []byte) error) error {
	res, err := ds.Query(ctx, query.Query{Prefix: prefix})
	if err != nil {
		return err
	}
	defer res.Close()
	for r := range res.Next() {
		if r.Error == nil {
			r.Error = load(r.Key, r.Value)
		}
		if r.Error != nil {
			return fmt.Errorf("record %s: %w", r.Key, r.Error)
		}
	}
	return nil
}

func (p *Payers) load(key string, value []byte) error {
	name := key[strings.LastIndexByte(key, '/')+1:]
	switch {
	case key == levelKey:
		return json.Unmarshal(value, &p.level)
	case strings.HasPrefix(key, loanPrefix):
		l := &Loan{}
		err := json.Unmarshal(value, l)
		p.loans[l.Deal] = l
		return err
	case strings.HasPrefix(key, recordPrefix):
		r := &payerRecord{}
		err := json.Unmarshal(value, r)
		p.records[name] = r
		return err
	case strings.HasPrefix(key, boundPrefix):
		p.bound[name] = string(value)
	}
	return nil
}

func putJSON(ctx context.Context, w datastore.Write, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.Put(ctx, datastore.NewKey(key), data)
}

// loanKey names a loan: identifiers of deals have characters that a key may not have.
func loanKey(deal string) string { return loanPrefix + "/" + strings.ReplaceAll(deal, "/", "_") }

// Lend takes a loan for a new deal and puts it into w, which the caller commits and syncs before the first byte that it covers; Return takes it
// back if that fails. A deal that has a loan keeps it. Without credit the error is a *NoCreditError.
func (p *Payers) Lend(ctx context.Context, w datastore.Write, a Applicant) (Loan, error) {
	payer, secured := p.standingOf(ctx, a.Peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loans[a.Deal]; l != nil {
		return *l, nil
	}
	l, err := p.grant(a, payer, secured)
	if err != nil && !a.Prepays {
		return Loan{}, err
	}
	if err != nil {
		l = &Loan{Deal: a.Deal, Peer: a.Peer, Payer: payer, Price: orZero(a.Terms.Price), Since: p.now()}
	}
	err = nil
	if l.Strangers > 0 {
		p.level.Level -= l.Strangers
		err = putJSON(ctx, w, levelKey, p.level)
	}
	if err == nil {
		err = putJSON(ctx, w, loanKey(a.Deal), l)
	}
	if err != nil {
		p.giveBack(l.Strangers)
		return Loan{}, err
	}
	p.loans[a.Deal] = l
	return *l, nil
}

// WouldLend reports whether a deal with these terms would get credit now. It takes nothing.
func (p *Payers) WouldLend(ctx context.Context, a Applicant) bool {
	payer, secured := p.standingOf(ctx, a.Peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.grant(a, payer, secured)
	return err == nil
}

// standingOf is who a peer pays as, and what that is worth; debts that nobody paid in time are over before it is looked at.
func (p *Payers) standingOf(ctx context.Context, peer string) (payer string, secured abi.TokenAmount) {
	p.mu.Lock()
	p.expire(ctx, p.now())
	payer = p.bound[peer]
	channels := p.channelsOf(payer)
	p.mu.Unlock()
	return payer, p.secured(ctx, payer, channels)
}

// grant decides on a loan: covered by a deposit, else on the record of the payer, and what is missing to an interval out of
// the strangers' allowance. mu is held.
func (p *Payers) grant(a Applicant, payer string, secured abi.TokenAmount) (*Loan, error) {
	now := p.now()
	p.level = p.level.refilled(p.limits, now)
	need := a.interval(p.limits)
	l := &Loan{Deal: a.Deal, Peer: a.Peer, Payer: payer, Origins: a.Origins, Price: orZero(a.Terms.Price), Interval: min(need, a.Terms.CurrentInterval(0)), Since: now}
	l.Overshoot = need - l.Interval
	if l.Price.Sign() == 0 || need == 0 {
		return l, nil
	}
	if l.Deposit = coveredBy(a.Deposit, l.Price, need); l.Deposit == need {
		return l, nil
	}
	l.Deposit = 0
	if p.owes(a.Peer, payer) {
		return nil, &NoCreditError{need, true}
	}
	out, outBytes := p.outstanding(payer)
	l.Record = min(need, recordRoom(p.limits, secured, out, l.Price, outBytes))
	if l.Strangers = need - l.Record; l.Strangers > 0 && !p.strangerRoom(a, l.Strangers) {
		return nil, &NoCreditError{need, false}
	}
	return l, nil
}

// coveredBy is how many bytes of an interval a deposit pays for.
func coveredBy(deposit, price abi.TokenAmount, need uint64) uint64 {
	if orZero(deposit).Sign() <= 0 {
		return 0
	}
	if q := big.Div(deposit, price); q.IsUint64() {
		return min(need, q.Uint64())
	}
	return need
}

// strangerRoom reports whether bytes can be lent out of the strangers' allowance: one interval for each peer, and as many for
// its addresses as their prefixes allow, among all that is not paid. mu is held.
func (p *Payers) strangerRoom(a Applicant, bytes uint64) bool {
	if bytes > p.level.Level {
		return false
	}
	mine, used := uint64(0), make([]uint64, len(a.Origins))
	for _, l := range p.loans {
		if l.Strangers == 0 {
			continue
		}
		if l.Peer == a.Peer {
			mine++
		}
		for i, o := range a.Origins {
			if slices.ContainsFunc(l.Origins, func(b Origin) bool { return b.Key == o.Key }) {
				used[i]++
			}
		}
	}
	for i, o := range a.Origins {
		if used[i] >= o.Intervals {
			return false
		}
	}
	return mine < p.limits.PerPeer
}

// owes reports whether a debt bars credit: one of the peer, or of anybody who pays as it does. mu is held.
func (p *Payers) owes(peer, payer string) bool {
	for _, l := range p.loans {
		if l.End != nil && l.End.Blame == reason.Theirs && l.End.Unpaid > 0 && (l.Peer == peer || payer != "" && l.Payer == payer) {
			return true
		}
	}
	return false
}

// outstanding is what a payer has out unpaid over all deals, in attoFIL and bytes. mu is held.
func (p *Payers) outstanding(payer string) (abi.TokenAmount, uint64) {
	sum, bytes := big.Zero(), uint64(0)
	if payer == "" {
		return sum, 0
	}
	for _, l := range p.loans {
		if l.Payer == payer {
			sum, bytes = big.Add(sum, l.amount()), add(bytes, l.unpaid())
		}
	}
	return sum, bytes
}

func (p *Payers) channelsOf(payer string) []string {
	if r := p.records[payer]; r != nil {
		return r.Channels
	}
	return nil
}

// secured is what a payer's payments are worth as a record. A channel that cannot be asked for now counts nothing.
func (p *Payers) secured(ctx context.Context, payer string, channels []string) abi.TokenAmount {
	if payer == "" {
		return big.Zero()
	}
	sum := big.Zero()
	if p.standing != nil {
		for _, ch := range channels {
			if who, s, err := p.standing(ctx, ch); err == nil && who == payer {
				sum = big.Add(sum, orZero(s))
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.records[payer]
	if r == nil {
		return big.Zero()
	}
	if p.standing == nil {
		sum = orZero(r.Paid)
	}
	if r.Defaulted {
		r.Gone, r.Defaulted = big.Max(orZero(r.Gone), sum), false
		_ = putJSON(ctx, p.ds, recordPrefix+"/"+payer, r) // what is not stored is written off again by the next start
	}
	return big.Max(big.Zero(), big.Sub(sum, orZero(r.Gone)))
}

// giveBack returns bytes to the strangers' allowance; mu is held.
func (p *Payers) giveBack(bytes uint64) {
	p.level.Level = min(add(p.level.Level, bytes), p.limits.Allowance)
}

// Return takes back the loan of a deal that did not come to be.
func (p *Payers) Return(deal string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loans[deal]; l != nil {
		p.giveBack(l.Strangers)
		delete(p.loans, deal)
	}
}

// Extend raises the loan of a running deal whose interval has grown, and reports how far the deal may go beyond what is paid now. It is synced
// before it returns.
func (p *Payers) Extend(ctx context.Context, deal string, need uint64) (uint64, error) {
	p.mu.Lock()
	l := p.loans[deal]
	if l != nil {
		need = add(need, l.Overshoot)
	}
	if l == nil || l.Bytes() >= need || l.End != nil {
		defer p.mu.Unlock()
		if l == nil {
			return 0, nil
		}
		return l.Bytes(), nil
	}
	payer := l.Payer
	channels := p.channelsOf(payer)
	p.mu.Unlock()
	secured := p.secured(ctx, payer, channels)
	p.mu.Lock()
	more := need - min(need, l.Bytes())
	out, outBytes := p.outstanding(payer)
	record := min(more, recordRoom(p.limits, secured, out, l.Price, outBytes))
	p.level = p.level.refilled(p.limits, p.now())
	strangers := more - record
	if l.Strangers == 0 || strangers > p.level.Level { // its interval of the strangers' is what it has already
		strangers = 0
	}
	l.Record, l.Strangers, p.level.Level = l.Record+record, l.Strangers+strangers, p.level.Level-strangers
	bytes := l.Bytes()
	err := putJSON(ctx, p.ds, levelKey, p.level)
	if err == nil {
		err = putJSON(ctx, p.ds, loanKey(deal), l)
	}
	p.mu.Unlock()
	if err == nil {
		err = p.ds.Sync(ctx, datastore.NewKey("/"))
	}
	return bytes, err
}

// Need is what a deal is lent, in bytes: an interval and the block that goes beyond it.
func (p *Payers) Need(a Applicant) uint64 { return a.interval(p.limits) }

// Adopt gives a deal of before there were accounts the interval that it was promised. A deal that has a loan keeps it.
func (p *Payers) Adopt(ctx context.Context, deal, peer string, t Terms) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loans[deal] != nil {
		return nil
	}
	l := &Loan{Deal: deal, Peer: peer, Price: orZero(t.Price), Interval: t.Interval, Record: t.CurrentInterval(0), Since: p.now()}
	p.loans[deal] = l
	return putJSON(ctx, p.ds, loanKey(deal), l)
}

// LoanOf is the loan of a deal; the zero Loan lends nothing.
func (p *Payers) LoanOf(deal string) Loan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loans[deal]; l != nil {
		return *l
	}
	return Loan{}
}
