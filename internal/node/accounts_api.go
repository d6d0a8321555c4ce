package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
)

// accounts are those of the provider of this home, which need not run.
func (n *Node) accounts(ctx context.Context) (*accounting.Payers, error) {
	if n.Provider != nil {
		return n.Provider.Accounts(), nil
	}
	limits, err := n.parts.Config.Credit.Limits()
	if err != nil {
		return nil, err
	}
	return accounting.OpenPayers(ctx, n.space(providerRecords), limits, nil, n.parts.Now)
}

// PeerDebts answers Cartage.PeerDebts: who gets no credit here, the oldest debt first.
func (s Service) PeerDebts(ctx context.Context) ([]api.Debt, error) {
	out := []api.Debt{}
	accounts, err := s.n.accounts(ctx)
	if err != nil {
		return nil, coded(err)
	}
	for _, d := range accounts.Debts(ctx) {
		out = append(out, api.Debt{Peer: d.Peer, Payer: d.Payer, Deal: d.Deal, Bytes: d.Bytes, Amount: d.Amount.String(),
			Since: d.Since.UTC().Format(time.RFC3339), Until: d.Until.UTC().Format(time.RFC3339)})
	}
	return out, nil
}

// ForgivePeer answers Cartage.ForgivePeer: it reports how many debts of a peer it has ended. What the payer paid before stays its record.
func (s Service) ForgivePeer(ctx context.Context, name string) (int, error) {
	id, err := peer.Decode(name)
	if err != nil {
		return 0, coded(reason.Usage.Errorf("%q is no peer id: %w", name, err).WithHint("Peers with debts are listed by cartage peers debts."))
	}
	accounts, err := s.n.accounts(ctx)
	if err != nil {
		return 0, coded(err)
	}
	n, err := accounts.Forgive(ctx, id.String())
	if err == nil && n == 0 {
		err = reason.IDUnknown.Errorf("the peer %s has no debt here", id).WithHint("Peers with debts are listed by cartage peers debts.")
	}
	return n, coded(err)
}

// Spending answers Cartage.Spending: what was signed on each payment channel, what each order has cost, and what was paid in advance for nothing.
func (s Service) Spending(ctx context.Context) (*api.Spending, error) {
	out := &api.Spending{Vouchered: "0", Channels: []api.PayChannel{}, Losses: []api.AdvanceLoss{}}
	var err error
	if out.Orders, err = s.Orders(ctx); err != nil {
		return nil, err
	}
	channels, err := s.PayChannels(ctx)
	if err != nil {
		return nil, err
	}
	sum := big.Zero()
	for _, c := range channels {
		if c.Direction != outbound {
			continue
		}
		out.Channels = append(out.Channels, c)
		if amount, err := big.FromString(c.Vouchered); err == nil {
			sum = big.Add(sum, amount)
		}
	}
	slices.SortFunc(out.Channels, func(a, b api.PayChannel) int { return cmp.Compare(a.Channel, b.Channel) })
	out.Vouchered = sum.String()
	for _, l := range s.n.Client.AdvanceLosses() {
		out.Losses = append(out.Losses, api.AdvanceLoss{Deal: l.Deal, Root: l.Order, Peer: l.Payee, Bytes: l.Lost, Since: l.Since.UTC().Format(time.RFC3339)})
		out.LostBytes += l.Lost
	}
	return out, nil
}
