package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-varint"
	"golang.org/x/sync/errgroup"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// many are transfers of each leaf of a DAG on its own, many at once.
var many = []row{
	{name: manyCars, many: true, serve: serveCars, fetch: fetchCars},
	{name: "Cartage, paid deals on an open payment channel", many: true, pays: 1 << 20, serve: servePaid, fetch: fetchDeals,
		bar: &bar{of: []string{manyCars}, least: 0.7}},
	{name: "verified CARs, 64 at once", many: true, most: 64, serve: serveCars, fetch: fetchCars},
	{name: "Cartage, paid deals, 64 at once", many: true, most: 64, pays: 1 << 20, serve: servePaid, fetch: fetchDeals},
	{name: "verified CARs, one after the other", many: true, most: 1, serve: serveCars, fetch: fetchCars},
	{name: "Cartage, paid deals, one after the other", many: true, most: 1, pays: 1 << 20, serve: servePaid, fetch: fetchDeals},
}

const carsProtocol = "/bench/cars/1"

// serveCars answers the bytes of a CID with its section.
func serveCars(_ context.Context, h host.Host, m *memory, _ row) (string, error) {
	h.SetStreamHandler(carsProtocol, func(s network.Stream) {
		defer s.Close()
		in := bufio.NewReader(s)
		size, err := varint.ReadUvarint(in)
		if err != nil || size > 128 {
			return
		}
		key := make([]byte, size)
		if _, err := io.ReadFull(in, key); err != nil {
			return
		}
		data := m.blocks[string(key)]
		_, _ = s.Write(append(varint.ToUvarint(uint64(len(key)+len(data))), key...))
		_, _ = s.Write(data)
	})
	return "", nil
}

func fetchCars(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, _ cid.Cid, r row) (uint64, error) {
	var total atomic.Uint64
	err := each(r.roots, r.most, func(c cid.Cid) error {
		s, err := h.NewStream(ctx, server.ID, carsProtocol)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := s.Write(append(varint.ToUvarint(uint64(len(c.KeyString()))), c.KeyString()...)); err != nil {
			return err
		}
		n, err := readCar(s, c)
		total.Add(n)
		return err
	})
	return total.Load(), err
}

// each does all, at most so many at once; 0 is no limit.
func each(roots []cid.Cid, most int, f func(cid.Cid) error) error {
	errs := make([]error, len(roots))
	var g errgroup.Group
	if most > 0 {
		g.SetLimit(most)
	}
	for i, c := range roots {
		g.Go(func() error {
			errs[i] = f(c)
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// sinks gives each deal one of its own.
type sinks struct{}

// Open implements retrievalimpl.Targets.
func (sinks) Open(context.Context, rm.ClientDealState) (retrievalimpl.Target, error) {
	return &sink{}, nil
}

// Done implements retrievalimpl.Targets.
func (sinks) Done(rm.ClientDealState) {}

// fetchDeals makes a deal for each root, all at once, and waits for the end of each.
func fetchDeals(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, _ cid.Cid, r row) (total uint64, err error) {
	n, err := newNode(ctx, h, "payer", discard())
	if err != nil {
		return 0, err
	}
	c, err := newClient(ctx, h, n, sinks{})
	if err != nil {
		return 0, err
	}
	// The first deal makes a client that has paid: others get little on credit together.
	total, err = dealAll(ctx, c, n, server, r, r.roots[:1])
	if err == nil {
		var rest uint64
		rest, err = dealAll(ctx, c, n, server, r, r.roots[1:])
		total += rest
	}
	return total, errors.Join(err, c.Stop(ctx), n.close(ctx))
}

// dealAll makes deals, and checks what each paid.
func dealAll(ctx context.Context, c *retrievalimpl.Client, n *node, server peer.AddrInfo, r row, roots []cid.Cid) (uint64, error) {
	var ended sync.Map // deal to the channel that gets its end
	of := func(id rm.DealID) chan rm.ClientDealState {
		end, _ := ended.LoadOrStore(id, make(chan rm.ClientDealState, 1))
		return end.(chan rm.ClientDealState)
	}
	defer c.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if clientstates.IsFinal(d.Status) {
			of(d.ID) <- d
		}
	})()
	params, funds := rm.NewParamsV0(big.NewInt(price), r.pays, 0), big.NewInt(price*2<<20)
	var total atomic.Uint64
	err := each(roots, r.most, func(root cid.Cid) error {
		id, err := c.Retrieve(ctx, root, params, funds, rm.RetrievalPeer{ID: server.ID, Address: n.chain.info.To}, n.chain.info.From, n.chain.info.To, nil)
		if err != nil {
			return err
		}
		select {
		case d := <-of(id):
			total.Add(d.TotalReceived)
			if d.Status != rm.DealStatusCompleted || d.FundsSpent.Int64() != int64(d.TotalReceived)*price {
				return fmt.Errorf("%s: %s: %s paid for %d bytes", d.Status, d.Message, d.FundsSpent, d.TotalReceived)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return total.Load(), err
}

// countGoroutines returns a function that tells the largest number there was.
func countGoroutines(ctx context.Context) func() int {
	var most atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() int {
		cancel()
		<-done
		return int(most.Load())
	}
}
