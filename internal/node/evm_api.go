package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
	chbook "github.com/cartage-dev/cartage/paych/book"
)

// stateName is the state of a channel for people.
func stateName(s chbook.State) string {
	return [...]string{"open", "withdrawing", "refunding", "closed"}[min(s, chbook.Closed)]
}

func errNoEVM() error {
	return api.ErrorOf(reason.ConfigValue.Errorf("this node sells nothing for a token").WithHint("Set x402.asset and what belongs to it: docs/manual/gateway.md."))
}

// EVMEarnings answers Cartage.EVMEarnings.
func (t *EVM) EVMEarnings(ctx context.Context) (*api.EVMEarnings, error) {
	if t.book == nil {
		return nil, errNoEVM()
	}
	out := &api.EVMEarnings{Channels: []api.EVMChannel{}, Days: []api.EVMDay{}}
	entries, err := t.sortedEntries(ctx)
	if err != nil {
		return nil, coded(err)
	}
	for _, e := range entries {
		out.Channels = append(out.Channels, api.EVMChannel{Channel: e.Key.Channel, Network: e.Key.Network, Asset: e.Key.Asset, State: stateName(e.State), Deposit: e.Deposit.String(), Secured: e.Secured.String(),
			Earned: e.Earned.String(), Redeemed: e.Redeemed.String(), Unclaimed: e.Unclaimed().String(), Lost: e.Lost.String(), Bytes: e.Bytes, EarnedText: t.table(e.Key, e.Earned), UnclaimedText: t.table(e.Key, e.Unclaimed())})
	}
	if out.Days, err = t.days(ctx); err != nil {
		return nil, coded(err)
	}
	at, trouble := t.desk.Reached()
	if trouble != nil {
		out.Away = "not reachable since " + at.UTC().Format(time.RFC3339)
		if at.IsZero() {
			out.Away = "not reachable since the start"
		}
	}
	return out, nil
}

// dayOf is a day of an asset.
type dayOf struct{ date, network, asset string }

// days are the days of all channels together, by asset.
func (t *EVM) days(ctx context.Context) ([]api.EVMDay, error) {
	list, err := t.book.Days(ctx)
	if err != nil {
		return nil, err
	}
	sums := map[dayOf]chbook.Day{}
	for _, d := range list {
		k := dayOf{d.Date, d.Key.Network, d.Key.Asset}
		s, ok := sums[k]
		if !ok {
			s = chbook.Day{Date: d.Date, Key: d.Key, Earned: big.Zero(), Redeemed: big.Zero(), Lost: big.Zero()}
		}
		s.Earned, s.Redeemed, s.Lost = big.Add(s.Earned, d.Earned), big.Add(s.Redeemed, d.Redeemed), big.Add(s.Lost, d.Lost)
		s.Bytes, s.Payments = s.Bytes+d.Bytes, s.Payments+d.Payments
		sums[k] = s
	}
	out := []api.EVMDay{}
	for _, k := range slices.SortedFunc(maps.Keys(sums), func(a, b dayOf) int {
		return cmp.Or(cmp.Compare(a.date, b.date), cmp.Compare(a.network, b.network), cmp.Compare(a.asset, b.asset))
	}) {
		d := sums[k]
		text := func(a abi.TokenAmount) string { return t.table(d.Key, a) }
		out = append(out, api.EVMDay{Date: d.Date, Network: d.Key.Network, Asset: d.Key.Asset, Earned: d.Earned.String(), Redeemed: d.Redeemed.String(), Lost: d.Lost.String(), Bytes: d.Bytes, Payments: d.Payments,
			EarnedText: text(d.Earned), RedeemedText: text(d.Redeemed), LostText: text(d.Lost)})
	}
	return out, nil
}

// EVMRedeem answers Cartage.EVMRedeem.
func (t *EVM) EVMRedeem(ctx context.Context, channels []string) error {
	if t.book == nil {
		return errNoEVM()
	}
	return coded(t.desk.Redeem(ctx, channels...))
}

// EVMKeyNew answers Cartage.EVMKeyNew.
func (t *EVM) EVMKeyNew(context.Context) (string, error) {
	if t.keys == nil {
		return "", api.Errorf(api.CodeOther, "", "this node has no wallet of its own")
	}
	isFirst := len(t.keys.List()) == 0
	a, err := t.keys.NewOf(paych.KeySecp256k1)
	if err == nil && isFirst {
		err = t.keys.SetDefault(a)
	}
	if err != nil {
		return "", coded(err)
	}
	k, err := t.keys.Key(a)
	if err != nil {
		return "", coded(err)
	}
	e, err := k.EVM()
	if err != nil {
		return "", err
	}
	return e.Address().String(), nil
}

// EVMKeys answers Cartage.EVMKeys.
func (t *EVM) EVMKeys(context.Context) ([]string, error) {
	list, err := t.list()
	out := []string{}
	for _, k := range list {
		out = append(out, k.Address().String())
	}
	return out, coded(err)
}
