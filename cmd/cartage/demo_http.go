package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/gateway"
)

// retrieveHTTP buys from the gateway of the provider. What is owed is the CAR behind its header, which nobody buys.
func (d *demo) retrieveHTTP(ctx context.Context) error {
	offers, err := d.client.Find(ctx, d.result.Root, []string{d.gateway})
	if err != nil {
		return err
	}
	root, err := cid.Decode(d.result.Root)
	if err != nil {
		return err
	}
	header, err := gateway.Query{Root: root}.Header()
	if err != nil {
		return err
	}
	r, err := d.client.RetrieveWeb(ctx, api.RetrieveRequest{CID: d.result.Root, Provider: d.gateway, Budget: offers[0].Price, Holder: "demo"})
	if err != nil {
		return err
	}
	d.result.Bytes, d.result.Blocks, d.result.Seconds = offers[0].Size-uint64(len(header)), r.Blocks, r.Seconds
	d.result.MiBPerSecond, d.result.Transport, d.result.Vouchers = float64(r.Received)/(1<<20)/r.Seconds, r.Transport, r.Vouchers
	d.result.ClientStatus, d.result.Owed = r.Status, r.Spent
	f := retrieveFlags{out: filepath.Join(d.dir, "retrieved")}
	if err := f.claim(); err != nil {
		return err
	}
	if err := errors.Join(f.write(ctx, d.c, r.CarPath), f.release()); err != nil {
		return err
	}
	if d.result.ContentMatches, err = sameTree(d.f.file, f.out); err != nil {
		return err
	}
	return d.charged(ctx)
}

// charged is what the provider has taken.
func (d *demo) charged(ctx context.Context) error {
	channels, err := d.provider.PayChannels(ctx)
	if err != nil {
		return err
	}
	sum := new(big.Int)
	for _, ch := range channels {
		n, ok := new(big.Int).SetString(ch.Vouchered, 10)
		if !ok {
			return fmt.Errorf("channel %s has %q", ch.Channel, ch.Vouchered)
		}
		sum.Add(sum, n)
	}
	d.result.Vouchered, d.result.ProviderStatus = sum.String(), "Completed" // a gateway has no deals: what it took is committed
	return nil
}
