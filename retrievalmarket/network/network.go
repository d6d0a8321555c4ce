// Package network carries queries of the retrieval market over libp2p.
package network

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	cbg "github.com/whyrusleeping/cbor-gen"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
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
	host      host.Host
	protocols []protocol.ID
	retry     shared.RetryStream

	mu   sync.Mutex
	open map[peer.ID]int // inbound queries
	most int             // of them for a peer
	over func()
}

// Option changes a network.
type Option func(*libp2pNetwork)

// RetryParameters sets how often and how fast opening a stream is tried (5 attempts; 1 s to 5 min, factor 5). No attempts are one.
func RetryParameters(minDuration time.Duration, maxDuration time.Duration, attempts float64, backoffFactor float64) Option {
	return func(n *libp2pNetwork) {
		n.retry.Min, n.retry.Max, n.retry.Attempts, n.retry.Factor = minDuration, maxDuration, attempts, backoffFactor
	}
}

// SupportedProtocols sets the protocols of queries, the preferred one first (1.0.0, then 0.0.1). All but 0.0.1 speak maps.
func SupportedProtocols(protocols []protocol.ID) Option {
	return func(n *libp2pNetwork) { n.protocols = protocols }
}

// QueriesPerPeer sets how many queries of one peer are answered at once (16). over, which may be nil, is told of each one beyond.
func QueriesPerPeer(most int, over func()) Option {
	return func(n *libp2pNetwork) { n.most, n.over = most, over }
}

// NewFromLibp2pHost returns the network over a host.
func NewFromLibp2pHost(h host.Host, options ...Option) RetrievalMarketNetwork {
	n := &libp2pNetwork{host: h, open: map[peer.ID]int{}, most: maxQueries, retry: shared.DefaultRetryStream(),
		protocols: []protocol.ID{rm.QueryProtocolID, rm.OldQueryProtocolID}}
	n.retry.StopIfForeign = true
	for _, o := range options {
		o(n)
	}
	return n
}

func (n *libp2pNetwork) ID() peer.ID { return n.host.ID() }

func (n *libp2pNetwork) AddAddrs(p peer.ID, addrs []ma.Multiaddr) {
	n.host.Peerstore().AddAddrs(p, addrs, addrTTL)
}

func (n *libp2pNetwork) NewQueryStream(ctx context.Context, p peer.ID) (RetrievalQueryStream, error) {
	ctx, cancel := context.WithTimeout(ctx, clientLimit)
	defer cancel()
	s, err := n.retry.Open(ctx, n.host, p, n.protocols...)
	if err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(clientLimit)
	}
	_ = s.SetDeadline(deadline)
	return newQueryStream(s), nil
}

func (n *libp2pNetwork) SetDelegate(r RetrievalReceiver) error {
	for _, p := range n.protocols {
		n.host.SetStreamHandler(p, n.handler(r))
	}
	return nil
}

func (n *libp2pNetwork) handler(r RetrievalReceiver) network.StreamHandler {
	return func(s network.Stream) {
		defer func() { // nothing that a peer sends may end the node
			if cause := recover(); cause != nil {
				_ = s.Reset()
				slog.Error("retrieval query broke its handler", "peer", s.Conn().RemotePeer(), "panic", cause)
			}
		}()
		if !n.enter(s.Conn().RemotePeer()) {
			if n.over != nil {
				n.over()
			}
			_ = s.Reset()
			return
		}
		defer n.leave(s.Conn().RemotePeer())
		_ = s.SetReadDeadline(time.Now().Add(readLimit))
		_ = s.SetWriteDeadline(time.Now().Add(2 * readLimit))
		if r == nil {
			slog.Warn("no receiver set", "peer", s.Conn().RemotePeer())
			_ = s.Reset()
			return
		}
		r.HandleQueryStream(newQueryStream(s))
	}
}

// maxQueries is how many queries one peer may have open at once (M-17), where nobody says otherwise.
const maxQueries = 16

func (n *libp2pNetwork) enter(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[p] >= n.most {
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
	for _, p := range n.protocols {
		n.host.RemoveStreamHandler(p)
	}
	return nil
}

// queryStream speaks maps, or tuples when the peers agreed on the old protocol.
type queryStream struct {
	s      network.Stream
	tuples bool
}

func newQueryStream(s network.Stream) *queryStream {
	return &queryStream{s, s.Protocol() == rm.OldQueryProtocolID}
}

type message interface {
	rm.Tupled
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
}

func (q *queryStream) read(v message, limit int64) error {
	r := io.LimitReader(q.s, limit)
	if q.tuples {
		return rm.ReadTuple(r, v)
	}
	return v.UnmarshalCBOR(r)
}

// write sends a message in one go: the last of many writes could find that the other side, who has all that it needs, has closed the stream.
func (q *queryStream) write(v message) error {
	var b bytes.Buffer
	encode := v.MarshalCBOR
	if q.tuples {
		encode = func(w io.Writer) error { return rm.WriteTuple(w, v) }
	}
	if err := encode(&b); err != nil {
		return err
	}
	_, err := q.s.Write(b.Bytes())
	return err
}

func (q *queryStream) RemotePeer() peer.ID { return q.s.Conn().RemotePeer() }

func (q *queryStream) fail(err error) error {
	_ = q.s.Reset()
	return err
}

func (q *queryStream) ReadQuery() (rm.Query, error) {
	var out rm.Query
	if err := q.read(&out, maxQuery); err != nil {
		if !errors.Is(err, io.EOF) {
			slog.Debug("query did not decode", "peer", q.RemotePeer(), "error", err)
		}
		return rm.QueryUndefined, q.fail(err)
	}
	return out, nil
}

func (q *queryStream) WriteQuery(query rm.Query) error {
	if err := q.write(&query); err != nil {
		return q.fail(err)
	}
	return q.s.CloseWrite()
}

func (q *queryStream) ReadQueryResponse() (rm.QueryResponse, error) {
	var out rm.QueryResponse
	if err := q.read(&out, maxResponse); err != nil {
		return rm.QueryResponseUndefined, q.fail(err)
	}
	return out, nil
}

func (q *queryStream) WriteQueryResponse(r rm.QueryResponse) error {
	if err := q.write(&r); err != nil {
		return q.fail(err)
	}
	return nil
}

func (q *queryStream) Close() error { return q.s.Close() }
