package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sort"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// faucet is a chain that gives money away.
type faucet interface {
	FaucetTo(ctx context.Context, to address.Address) error
}

// Faucet answers Cartage.Faucet.
func (s Service) Faucet(ctx context.Context) (*api.Balance, error) {
	if s.n.Payments == nil {
		return nil, errNoLedger
	}
	f, ok := s.n.Payments.Chain().(faucet)
	if !ok {
		return nil, api.Errorf(api.CodeOther, "", "this chain has no faucet")
	}
	a, err := s.n.wallet()
	if err != nil {
		return nil, coded(err)
	}
	if err := f.FaucetTo(ctx, a); err != nil {
		return nil, coded(err)
	}
	return s.balance(ctx, a)
}

// outbound is the direction of a payment channel that this node pays with.
const outbound = "outbound"

// PayChannels answers Cartage.PayChannels.
func (s Service) PayChannels(ctx context.Context) ([]api.PayChannel, error) {
	out := []api.PayChannel{}
	if s.n.Payments == nil {
		return out, nil
	}
	list, err := s.n.Payments.List(ctx)
	if err != nil {
		return nil, coded(err)
	}
	for _, c := range list {
		v := api.PayChannel{Channel: c.Channel.String(), Direction: "inbound", From: c.From.String(), To: c.To.String(), Deposit: c.Deposit.String(),
			Vouchered: c.Vouchered.String(), Redeemed: c.Redeemed.String(), SettlingAt: int64(c.SettlingAt), Collected: c.Collected, Lanes: []api.Lane{}}
		if c.Outbound {
			v.Direction = outbound
		}
		if c.Trouble != nil {
			v.Unknown, v.Deposit, v.Redeemed = s.unknown("payment channel", c.Channel, c.Trouble), "", ""
		}
		for _, l := range c.Lanes {
			v.Lanes = append(v.Lanes, api.Lane{Lane: l.Lane, Deal: l.Deal, Nonce: l.Nonce, Amount: l.Amount.String(), Bytes: l.Bytes})
		}
		sort.Slice(v.Lanes, func(i, j int) bool { return v.Lanes[i].Lane < v.Lanes[j].Lane })
		out = append(out, v)
	}
	return out, nil
}

// unknown is the reason why the chain says nothing of a channel; the cause is for the log.
func (s Service) unknown(what string, ch address.Address, err error) string {
	s.n.log.Warn("the chain says nothing of a "+what, "channel", ch, "error", err)
	return reason.From(err).String()
}

func (s Service) payChannel(ch string) (address.Address, error) {
	a, err := address.NewFromString(ch)
	if err != nil {
		return a, api.Errorf(api.CodeUsage, "Channels are listed by cartage paych list.", "%q is not an address: %w", ch, err)
	}
	if s.n.Payments == nil {
		return a, errNoLedger
	}
	return a, nil
}

var errNoLedger error = api.ErrorOf(reason.NoLedger.Errorf("this node has no ledger").WithHint("Set one with cartage init --ledger URL."))

func (s Service) payCh(ctx context.Context, ch string, f func(context.Context, address.Address) error) error {
	a, err := s.payChannel(ch)
	if err != nil {
		return err
	}
	return coded(f(ctx, a))
}

// RedeemPayCh answers Cartage.RedeemPayCh.
func (s Service) RedeemPayCh(ctx context.Context, ch string) error {
	return s.payCh(ctx, ch, func(ctx context.Context, a address.Address) error { return s.n.Payments.Redeem(ctx, a) })
}

// SettlePayCh answers Cartage.SettlePayCh.
func (s Service) SettlePayCh(ctx context.Context, ch string) error {
	return s.payCh(ctx, ch, func(ctx context.Context, a address.Address) error { return s.n.Payments.Settle(ctx, a) })
}

// CollectPayCh answers Cartage.CollectPayCh.
func (s Service) CollectPayCh(ctx context.Context, ch string) error {
	return s.payCh(ctx, ch, func(ctx context.Context, a address.Address) error { return s.n.Payments.Collect(ctx, a) })
}

// PayChVouchers answers Cartage.PayChVouchers.
func (s Service) PayChVouchers(_ context.Context, ch string) ([]api.Voucher, error) {
	a, err := s.payChannel(ch)
	if err != nil {
		return nil, err
	}
	list := s.n.Payments.Booked()
	i := slices.IndexFunc(list, func(c paych.Summary) bool { return c.Channel == a })
	if i < 0 {
		return nil, api.Errorf(api.CodeNotFound, "Channels are listed by cartage paych list.", "there is no payment channel %s here", ch)
	}
	out := []api.Voucher{}
	for _, l := range list[i].Lanes {
		if l.Voucher == nil {
			continue
		}
		text, err := paych.VoucherText(l.Voucher)
		if err != nil {
			return nil, err
		}
		out = append(out, api.Voucher{Lane: l.Lane, Nonce: l.Nonce, Amount: l.Amount.String(), Deal: l.Deal, Text: text})
	}
	slices.SortFunc(out, func(a, b api.Voucher) int { return cmp.Compare(a.Lane, b.Lane) })
	return out, nil
}

// PayChPlan answers Cartage.PayChPlan.
func (s Service) PayChPlan(ctx context.Context, ch string) (*api.PayChPlan, error) {
	a, err := s.payChannel(ch)
	if err != nil {
		return nil, err
	}
	p, err := s.n.Payments.Plan(ctx, a)
	if err != nil {
		return nil, coded(err)
	}
	out := &api.PayChPlan{Channel: ch, Redeem: []api.PlanRedeem{}, Adds: p.Adds.String(), SettlingAt: int64(p.SettlingAt), Epoch: int64(p.Epoch), Collected: p.Collected,
		ToPayee: p.ToPayee.String(), ToPayer: p.ToPayer.String(), Redeemed: p.Redeemed.String(), Rest: big.Sub(big.Add(p.ToPayee, p.ToPayer), p.Redeemed).String()}
	for _, r := range p.Redeem {
		out.Redeem = append(out.Redeem, api.PlanRedeem{Lane: r.Lane, Adds: r.Adds.String()})
	}
	return out, nil
}

// Earnings answers Cartage.Earnings.
func (s Service) Earnings(ctx context.Context) (*api.Earnings, error) {
	out := &api.Earnings{Days: []api.EarnedDay{}, Deals: []api.EarnedDeal{}, Claims: []api.Claim{}}
	e := &paych.Earnings{}
	if s.n.Payments != nil {
		var err error
		if e, err = s.n.Payments.Earnings(ctx); err != nil {
			return nil, coded(err)
		}
		_, epoch, err := s.n.Payments.Head(ctx)
		if err == nil {
			out.Epoch = int64(epoch)
		}
		if err = errors.Join(e.Trouble, err); err != nil {
			out.Unknown = reason.From(err).String()
		}
	}
	for _, d := range e.Days {
		out.Days = append(out.Days, api.EarnedDay{Date: d.Date, Vouchered: d.Vouchered.String(), Redeemed: d.Redeemed.String(), Lost: d.Lost.String()})
	}
	for _, c := range e.Claims {
		v := api.Claim{Channel: c.Channel.String(), From: c.From.String(), Redeemable: c.Redeemable.String(), Until: int64(c.Until)}
		if c.Trouble != nil {
			v.Unknown = s.unknown("claim", c.Channel, c.Trouble)
		}
		out.Claims = append(out.Claims, v)
	}
	s.earnedByDeals(out, e.Deals)
	accounts, err := s.n.accounts(ctx)
	if err != nil {
		return nil, coded(err)
	}
	out.LentStrangers, out.LentRecords = accounts.Unpaid()
	return out, nil
}

// earnedByDeals joins the book with the deals: what was owed, and what was paid of it.
func (s Service) earnedByDeals(out *api.Earnings, book []paych.Earned) {
	owed := map[string]abi.TokenAmount{}
	if s.n.Provider != nil {
		for id, d := range s.n.Provider.ListDeals() {
			owed[providerstates.DealKey(id)] = providerstates.Terms(&d).Due(d.TotalSent)
		}
	}
	total, vouchered, redeemed, redeemable, lost := big.Zero(), big.Zero(), big.Zero(), big.Zero(), big.Zero()
	for _, d := range book {
		due, ok := owed[d.Deal]
		if !ok { // the market does not know it any more: it owed what it paid
			due = d.Vouchered
		}
		delete(owed, d.Deal)
		out.Deals = append(out.Deals, api.EarnedDeal{Deal: d.Deal, Channel: d.Channel.String(), Lane: d.Lane, Owed: due.String(), Vouchered: d.Vouchered.String(),
			Redeemed: d.Redeemed.String(), Redeemable: d.Redeemable.String(), Lost: d.Lost.String()})
		total, vouchered = big.Add(total, due), big.Add(vouchered, d.Vouchered)
		redeemed, redeemable, lost = big.Add(redeemed, d.Redeemed), big.Add(redeemable, d.Redeemable), big.Add(lost, d.Lost)
	}
	for id, due := range owed { // deals that paid nothing
		if due.Sign() > 0 {
			out.Deals = append(out.Deals, api.EarnedDeal{Deal: id, Owed: due.String(), Vouchered: "0", Redeemed: "0", Redeemable: "0", Lost: "0"})
			total = big.Add(total, due)
		}
	}
	slices.SortFunc(out.Deals, func(a, b api.EarnedDeal) int { return cmp.Compare(a.Deal, b.Deal) })
	out.Owed, out.Vouchered, out.Redeemed, out.Redeemable, out.Lost = total.String(), vouchered.String(), redeemed.String(), redeemable.String(), lost.String()
}
