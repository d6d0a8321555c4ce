// Package network carries queries of the retrieval market over libp2p.
package network

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Bounds of a query (M-17).
const (
	maxQuery    = 64 << 10
	maxResponse = 256 << 10
	readLimit   = 30 * time.Second
	clientLimit = 60 * time.Second
	addrTTL     = 8 * time.Hour
)

// RetrievalQueryStream is one exchange.
type RetrievalQueryStream interface {
	ReadQuery() (rm.Query, error)
	WriteQuery(rm.Query) error
	ReadQueryResponse() (rm.QueryResponse, error)
	WriteQueryResponse(rm.QueryResponse) error
	Close() error
	RemotePeer() peer.ID
}

// RetrievalReceiver answers queries.
type RetrievalReceiver interface {
	HandleQueryStream(RetrievalQueryStream)
}

// RetrievalMarketNetwork opens and receives query streams.
type RetrievalMarketNetwork interface {
	NewQueryStream(ctx context.Context, p peer.ID) (RetrievalQueryStream, error)
	SetDelegate(RetrievalReceiver) error
	StopHandlingRequests() error
	ID() peer.ID
	AddAddrs(peer.ID, []ma.Multiaddr)
}

type libp2pNetwork struct {
	host host.Host

	mu   sync.Mutex
	open map[peer.ID]int // inbound queries
}

// NewFromLibp2pHost returns the network over a host.
func NewFromLibp2pHost(h host.Host) RetrievalMarketNetwork {
	return &libp2pNetwork{host: h, open: map[peer.ID]int{}}
}

func (n *libp2pNetwork) ID() peer.ID { return n.host.ID() }

func (n *libp2pNetwork) AddAddrs(p peer.ID, addrs []ma.Multiaddr) {
	n.host.Peerstore().AddAddrs(p, addrs, addrTTL)
}

func (n *libp2pNetwork) NewQueryStream(ctx context.Context, p peer.ID) (RetrievalQueryStream, error) {
	ctx, cancel := context.WithTimeout(ctx, clientLimit)
	defer cancel()
	s, err := n.host.NewStream(ctx, p, rm.QueryProtocolID)
	if err != nil {
		return nil, fmt.Errorf("open query stream to %s: %w", p, err)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(clientLimit)
	}
	_ = s.SetDeadline(deadline)
	return &queryStream{s}, nil
}

func (n *libp2pNetwork) SetDelegate(r RetrievalReceiver) error {
	n.host.SetStreamHandler(rm.QueryProtocolID, func(s network.Stream) {
		defer func() { // nothing that a peer sends may end the node
			if cause := recover(); cause != nil {
				_ = s.Reset()
				slog.Error("retrieval query broke its handler", "peer", s.Conn().RemotePeer(), "panic", cause)
			}
		}()
		if !n.enter(s.Conn().RemotePeer()) {
			_ = s.Reset()
			return
		}
		defer n.leave(s.Conn().RemotePeer())
		_ = s.SetReadDeadline(time.Now().Add(readLimit))
		_ = s.SetWriteDeadline(time.Now().Add(2 * readLimit))
		r.HandleQueryStream(&queryStream{s})
	})
	return nil
}

// maxQueries is how many queries one peer may have open at once (M-17).
const maxQueries = 16

func (n *libp2pNetwork) enter(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[p] >= maxQueries {
		return false
	}
	n.open[p]++
	return true
}

func (n *libp2pNetwork) leave(p peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[p]--; n.open[p] == 0 {
		delete(n.open, p)
	}
}

func (n *libp2pNetwork) StopHandlingRequests() error {
	n.host.RemoveStreamHandler(rm.QueryProtocolID)
	return nil
}

type queryStream struct{ s network.Stream }

func (q *queryStream) RemotePeer() peer.ID { return q.s.Conn().RemotePeer() }

func (q *queryStream) fail(err error) error {
	_ = q.s.Reset()
	return err
}

func (q *queryStream) ReadQuery() (rm.Query, error) {
	var out rm.Query
	if err := out.UnmarshalCBOR(io.LimitReader(q.s, maxQuery)); err != nil {
		if err != io.EOF {
			slog.Debug("query did not decode", "peer", q.RemotePeer(), "error", err)
		}
		return rm.QueryUndefined, q.fail(err)
	}
	return out, nil
}

func (q *queryStream) WriteQuery(query rm.Query) error {
	if err := query.MarshalCBOR(q.s); err != nil {
		return q.fail(err)
	}
	return q.s.CloseWrite()
}

func (q *queryStream) ReadQueryResponse() (rm.QueryResponse, error) {
	var out rm.QueryResponse
	if err := out.UnmarshalCBOR(io.LimitReader(q.s, maxResponse)); err != nil {
		return rm.QueryResponseUndefined, q.fail(err)
	}
	return out, nil
}

func (q *queryStream) WriteQueryResponse(r rm.QueryResponse) error {
	if err := r.MarshalCBOR(q.s); err != nil {
		return q.fail(err)
	}
	return nil
}

func (q *queryStream) Close() error { return q.s.Close() }
