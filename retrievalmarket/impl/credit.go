package retrievalimpl

import (
	"context"
	"errors"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// PrepaidProtocol is listed by Cartage peers: as clients they pay one interval in advance when a provider gives no credit.
const PrepaidProtocol = "/cartage/prepaid/1.0.0"

// openPayers reads who has what on credit.
func (p *Provider) openPayers(ctx context.Context) (err error) {
	limits := accounting.DefaultCredit()
	if p.cfg.Credit != nil {
		limits = *p.cfg.Credit
	}
	var standing accounting.Standing
	if s, ok := p.cfg.Node.(rm.ProviderStanding); ok {
		standing = func(ctx context.Context, channel string) (string, abi.TokenAmount, error) {
			ch, err := address.NewFromString(channel)
			if err != nil {
				return "", big.Zero(), err
			}
			st, err := s.ChannelStanding(ctx, ch)
			return st.Payer.String(), st.Secured, err
		}
	}
	p.payers, err = accounting.OpenPayers(ctx, p.cfg.Store, limits, standing, p.cfg.Now)
	return err
}

// applicant is a deal as one that asks for credit; ask is what the provider wants of it.
func (p *Provider) applicant(d *rm.ProviderDealState, ask *rm.Ask, size uint64) accounting.Applicant {
	a := accounting.Applicant{Deal: providerstates.DealKey(d.Identifier()), Peer: d.Receiver.String(), Terms: providerstates.Terms(d), Size: size,
		Prepays: p.paysInAdvance(d.Receiver),
		Deposit: big.Max(big.Zero(), big.Sub(d.UnsealPrice, ask.UnsealPrice))}
	if p.cfg.Origins != nil {
		a.Origins = p.cfg.Origins(d.Receiver)
	}
	return a
}

func (p *Provider) paysInAdvance(who peer.ID) bool {
	return p.cfg.SupportsPrepaid != nil && p.cfg.SupportsPrepaid(who)
}

// lend takes the loan of a new deal, in the batch that stores the deal. Nobody who can pay is refused: who gets no credit pays in advance.
func (p *Provider) lend(ctx context.Context, b datastore.Batch, d *rm.ProviderDealState, ask *rm.Ask, size uint64) error {
	if !priced(d.PricePerByte) {
		return nil
	}
	a := p.applicant(d, ask, size)
	_, err := p.payers.Lend(ctx, b, a)
	var none *accounting.NoCreditError
	if errors.As(err, &none) {
		return refuse(rm.DealStatusRejected, "%s: ask for an offer and propose its unseal price", none)
	}
	return err
}

// withDeposit raises the unseal price of an offer by what a deal is lent for a client that would get no credit and does not pay in advance: it
// shows a funded channel before the first byte.
func (p *Provider) withDeposit(ctx context.Context, who peer.ID, ask rm.Ask, size uint64) rm.Ask {
	if !priced(ask.PricePerByte) || p.paysInAdvance(who) {
		return ask
	}
	d := rm.ProviderDealState{Receiver: who, DealProposal: rm.DealProposal{Params: rm.Params{PricePerByte: ask.PricePerByte, UnsealPrice: ask.UnsealPrice,
		PaymentInterval: ask.PaymentInterval, PaymentIntervalIncrease: ask.PaymentIntervalIncrease}}}
	a := p.applicant(&d, &ask, size)
	if !p.payers.WouldLend(ctx, a) {
		ask.UnsealPrice = a.Terms.Due(p.payers.Need(a))
	}
	return ask
}

// sellerFacts are the facts of a deal at a position; the deal's lock is held.
func (p *Provider) sellerFacts(pd *providerDeal, chid dt.ChannelID, sent uint64) accounting.SellerFacts {
	return accounting.SellerFacts{Paid: pd.paid, Loan: p.payers.LoanOf(providerstates.DealKey(pd.id)).Reach(), Position: max(sent, pd.whole), Whole: pd.sentAll, Size: pd.size,
		Next: p.cfg.Hub.dt.Waiting(chid)}
}

// verdict is the decision whether more of a deal may leave; the deal's lock is held, or nobody else has the deal yet.
func (p *Provider) verdict(pd *providerDeal, d *rm.ProviderDealState, sent uint64) accounting.Verdict {
	return accounting.MaySend(providerstates.Terms(d), p.sellerFacts(pd, d.ChannelID, sent))
}

// demandStatus is the published name of what a provider waits for.
func demandStatus(k accounting.DemandKind) rm.DealStatus {
	switch k {
	case accounting.DemandUnseal:
		return rm.DealStatusFundsNeededUnseal
	case accounting.DemandLast:
		return rm.DealStatusFundsNeededLastPayment
	}
	return rm.DealStatusFundsNeeded
}

// accountPayment tells the accounts of a voucher that grew a deal: who pays, and what the deal may go beyond it.
func (p *Provider) accountPayment(ctx context.Context, pd *providerDeal, d *rm.ProviderDealState, ch address.Address, grown, total abi.TokenAmount) error {
	t, key := providerstates.Terms(d), providerstates.DealKey(pd.id)
	paid := t.PaidBytes(total)
	err := p.payers.Paid(ctx, key, ch.String(), grown, d.TotalSent-min(d.TotalSent, paid))
	if need := t.CurrentInterval(paid); err == nil && d.PaymentIntervalIncrease > 0 && p.payers.LoanOf(key).Bytes() > 0 {
		_, err = p.payers.Extend(ctx, key, need)
	}
	return err
}

// settleLoan gives back the loan of a deal that is sent and paid in full: its payer may be about to begin the next one. It is not synced: what a crash
// loses is out until the deal ends.
func (p *Provider) settleLoan(ctx context.Context, pd *providerDeal) {
	if err := p.payers.End(ctx, p.store.ds, providerstates.DealKey(pd.id), 0, reason.Nobody); err != nil {
		p.cfg.Log.Warn("loan of a paid deal", "deal", pd.id, "error", err)
	}
}

// blameOurselves notes that a deal ends on the account of this side; the first cause counts.
func (pd *providerDeal) blameOurselves() {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	if pd.blame == reason.Nobody {
		pd.blame = reason.Ours
	}
}

// hear notes that the client of a deal is there.
func (pd *providerDeal) hear() {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.heard, pd.active = true, time.Now()
}

// suspendedAfter is how long nothing may happen between both sides before a deal gives its place to others.
const suspendedAfter = time.Minute

// suspended reports whether a deal stands still because its client is away or does not go on: it waits for its client within its deadlines, and counts for
// no limit but a multiple of them.
func (pd *providerDeal) suspended(now time.Time) bool {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	return now.Sub(pd.active) >= suspendedAfter
}

// endLoan puts the end of a deal's loan into the batch that stores the end of the deal.
func (p *Provider) endLoan(ctx context.Context, b datastore.Batch, pd *providerDeal, d *rm.ProviderDealState, sent uint64) error {
	unpaid := uint64(0)
	if priced(d.PricePerByte) {
		unpaid = sent - min(sent, providerstates.Terms(d).PaidBytes(d.FundsReceived))
	}
	pd.mu.Lock()
	blame := pd.blame
	if blame == reason.Nobody && pd.heard { // it left, cancelled or refused; one that was cut off by a stop of this side may only not know yet
		blame = reason.Theirs
	}
	pd.mu.Unlock()
	return p.payers.End(ctx, b, providerstates.DealKey(d.Identifier()), unpaid, blame)
}

// Accounts are those of everybody who buys here: what is lent, who owes, who pays as whom. nil before Start.
func (p *Provider) Accounts() *accounting.Payers {
	if p.ready.Ready() != nil {
		return nil
	}
	return p.payers
}
