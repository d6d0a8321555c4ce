package node

import (
	"context"
	"errors"
	"strings"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/store"
)

// recordKinds name the records of a home by the beginning of their keys, the longer before the shorter.
var recordKinds = [...]struct{ prefix, name string }{
	{"/retrievals/client", "deals bought"}, {"/retrievals/provider", "deals sold, and who may owe what"}, {"/retrievals/targets", "files of retrievals"},
	{"/orders", "orders"}, {"/paych/i", "vouchers received"}, {"/paych/o", "vouchers signed"}, {"/paych", "days and losses of payments"},
	{"/datatransfer", "transfers"}, {"/peers", "addresses of peers"}, {"/imports", "imports"},
}

// otherRecords are those of no kind that is named.
const otherRecords = "others"

func recordKind(key string) string {
	for _, k := range recordKinds {
		if strings.HasPrefix(key, k.prefix) {
			return k.name
		}
	}
	return otherRecords
}

// Rescue reads what can safely be read of a home whose store may be damaged, and changes nothing. No process may have the home open.
func Rescue(ctx context.Context, h config.Home) (*api.Rescued, error) {
	out := &api.Rescued{Missing: []string{}, Kinds: []api.RescuedKind{}, Deals: []api.Deal{}, Vouchers: []api.RescuedVoucher{}}
	if err := countRecords(ctx, h, out); err != nil {
		return nil, coded(err)
	}
	n, err := Open(ctx, h, Options{Reading: true, Rescue: true})
	if err != nil {
		out.Missing = append(out.Missing, "deals and vouchers cannot be shown: "+err.Error())
		return out, nil
	}
	if err := rescueDeals(ctx, n.API(), out); err != nil {
		out.Missing = append(out.Missing, err.Error())
	}
	return out, n.Close(context.WithoutCancel(ctx))
}

// countRecords counts the records that can be read, and says which cannot.
func countRecords(ctx context.Context, h config.Home, out *api.Rescued) error {
	state, err := store.OpenRescue(ctx, h.Path("state"))
	if err != nil {
		return err
	}
	for _, hole := range state.Holes {
		out.Missing = append(out.Missing, hole.String())
	}
	if state.Lost != nil {
		out.Missing = append(out.Missing, state.Lost.Error())
	}
	count := map[string]int{}
	err = store.Each(ctx, state, "/", func(key string, _ []byte) error {
		count[recordKind(key)]++
		return nil
	})
	for _, k := range recordKinds {
		out.Kinds = append(out.Kinds, api.RescuedKind{Name: k.name, Records: count[k.name]})
	}
	out.Kinds = append(out.Kinds, api.RescuedKind{Name: otherRecords, Records: count[otherRecords]})
	return errors.Join(err, state.Close())
}

// rescueDeals shows the deals, and the best voucher of each lane: with it the money of a lane can be had, whatever else is lost.
func rescueDeals(ctx context.Context, n *api.Node, out *api.Rescued) error {
	deals, err := n.Deals(ctx)
	out.Deals = append(out.Deals, deals...)
	if err != nil {
		return err
	}
	channels, err := n.PayChannels(ctx)
	if err != nil {
		return err
	}
	for _, c := range channels {
		list, err := n.PayChVouchers(ctx, c.Channel)
		if err != nil {
			return err
		}
		for _, v := range list {
			out.Vouchers = append(out.Vouchers, api.RescuedVoucher{Channel: c.Channel, Direction: c.Direction, Voucher: v})
		}
	}
	return nil
}
