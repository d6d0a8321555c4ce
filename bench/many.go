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

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// many are transfers of each leaf of a DAG on its own, all at once.
var many = []row{
	{name: "verified CARs over a stream each, TLS", many: true, serve: serveCars, fetch: fetchCars},
	{name: "Cartage, paid deals on an open payment channel", many: true, pays: 1 << 20, serve: servePaid, fetch: fetchDeals},
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
	err := each(r.roots, func(c cid.Cid) error {
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

// each does all at once.
func each(roots []cid.Cid, f func(cid.Cid) error) error {
	errs := make([]error, len(roots))
	var wg sync.WaitGroup
	for i, c := range roots {
		wg.Go(func() { errs[i] = f(c) })
	}
	wg.Wait()
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

// dealAll makes deals at once, and checks what each paid.
func dealAll(ctx context.Context, c *retrievalimpl.Client, n *node, server peer.AddrInfo, r row, roots []cid.Cid) (total uint64, err error) {
	ended := make(chan rm.ClientDealState, len(roots))
	defer c.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if clientstates.IsFinal(d.Status) {
			ended <- d
		}
	})()
	params, funds := rm.NewParamsV0(big.NewInt(price), r.pays, 0), big.NewInt(price*2<<20)
	err = each(roots, func(root cid.Cid) error {
		_, err := c.Retrieve(ctx, root, params, funds, rm.RetrievalPeer{ID: server.ID, Address: n.chain.info.To}, n.chain.info.From, n.chain.info.To, nil)
		return err
	})
	for range roots {
		if err != nil {
			break
		}
		select {
		case d := <-ended:
			total += d.TotalReceived
			if d.Status != rm.DealStatusCompleted || d.FundsSpent.Int64() != int64(d.TotalReceived)*price {
				err = fmt.Errorf("%s: %s: %s paid for %d bytes", d.Status, d.Message, d.FundsSpent, d.TotalReceived)
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return total, err
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
