package retrievalimpl_test

import (
	"context"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/libp2p/go-libp2p/core/host"

	dt "github.com/cartage-dev/cartage/datatransfer"
	discoveryimpl "github.com/cartage-dev/cartage/discovery/impl"
	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/storedcounter"
)

// A client finds providers of a payload, asks one for its offer, and retrieves into a store of its own.
func ExampleNewClient() {
	retrieve := func(ctx context.Context, h host.Host, transfers dt.Manager, node rm.RetrievalClientNode, ds datastore.Batching, wallet address.Address, payload cid.Cid) error {
		stores, err := multistore.NewMultiDstore(namespace.Wrap(ds, datastore.NewKey("/stores")))
		if err != nil {
			return err
		}
		resolver, err := discoveryimpl.NewLocal(namespace.Wrap(ds, datastore.NewKey("/peers")))
		if err != nil {
			return err
		}
		client, err := retrievalimpl.NewClient(network.NewFromLibp2pHost(h), stores, transfers, node, resolver,
			namespace.Wrap(ds, datastore.NewKey("/retrievals/client")), storedcounter.New(ds, datastore.NewKey("/retr")))
		if err != nil {
			return err
		}
		if err := transfers.Start(ctx); err != nil { // after all that use it were made
			return err
		}
		if err := client.Start(ctx); err != nil {
			return err
		}
		client.SubscribeToEvents(func(event rm.ClientEvent, deal rm.ClientDealState) {
			fmt.Println(deal.ID, event, deal.Status, deal.TotalReceived, deal.FundsSpent)
		})
		for _, peer := range client.FindProviders(payload) {
			offer, err := client.Query(ctx, peer, payload, rm.QueryParams{})
			if err != nil || offer.Status != rm.QueryResponseAvailable {
				continue
			}
			params := rm.NewParamsV0(offer.MinPricePerByte, offer.MaxPaymentInterval, offer.MaxPaymentIntervalIncrease)
			params.UnsealPrice = offer.UnsealPrice
			budget := big.Add(offer.UnsealPrice, big.Mul(offer.MinPricePerByte, big.NewIntUnsigned(offer.Size))) // attoFIL
			store := stores.Next()
			_, err = client.Retrieve(ctx, payload, params, budget, peer, wallet, offer.PaymentAddress, &store)
			return err
		}
		return rm.ErrNotFound
	}
	_ = retrieve
}

// A provider sells the pieces of a piece store, which its node unseals.
func ExampleNewProvider() {
	provide := func(ctx context.Context, h host.Host, transfers dt.Manager, node rm.RetrievalProviderNode, pieces piecestore.PieceStore, ds datastore.Batching, miner address.Address) error {
		stores, err := multistore.NewMultiDstore(namespace.Wrap(ds, datastore.NewKey("/stores")))
		if err != nil {
			return err
		}
		provider, err := retrievalimpl.NewProvider(miner, node, network.NewFromLibp2pHost(h), pieces, stores, transfers,
			namespace.Wrap(ds, datastore.NewKey("/retrievals/provider")),
			retrievalimpl.DealDeciderOpt(func(_ context.Context, deal rm.ProviderDealState) (accept bool, reason string, err error) {
				return deal.PieceCID != nil, "name a piece", nil
			}))
		if err != nil {
			return err
		}
		if err := transfers.Start(ctx); err != nil {
			return err
		}
		if err := provider.Start(ctx); err != nil {
			return err
		}
		provider.SetAsk(&rm.Ask{PricePerByte: big.NewInt(2), UnsealPrice: big.Zero(), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20})
		return nil
	}
	_ = provide
}
