package network_test

import (
	"context"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver answers each query with what it was asked.
type receiver struct{ t *testing.T }

func (r receiver) HandleQueryStream(s network.RetrievalQueryStream) {
	defer s.Close()
	q, err := s.ReadQuery()
	if err != nil {
		return
	}
	addr, err := address.NewIDAddress(7)
	require.NoError(r.t, err)
	require.NoError(r.t, s.WriteQueryResponse(rm.QueryResponse{Status: rm.QueryResponseAvailable, Message: q.PayloadCID.String(), PaymentAddress: addr,
		MinPricePerByte: big.NewInt(3), UnsealPrice: big.Zero(), Size: 9}))
}

func pair(t *testing.T) (client, provider host.Host) {
	t.Helper()
	mn := mocknet.New()
	t.Cleanup(func() { require.NoError(t, mn.Close()) })
	client, err := mn.GenPeer()
	require.NoError(t, err)
	provider, err = mn.GenPeer()
	require.NoError(t, err)
	require.NoError(t, mn.LinkAll())
	return client, provider
}

// TestQueryProtocols: peers speak the newest protocol that both know, and tuples with a peer that knows only those.
func TestQueryProtocols(t *testing.T) {
	newest, oldest := network.SupportedProtocols([]protocol.ID{rm.QueryProtocolID}), network.SupportedProtocols([]protocol.ID{rm.OldQueryProtocolID})
	for name, tc := range map[string]struct {
		client, provider []network.Option
		fails            bool
	}{
		"both know both":    {},
		"an old client":     {client: []network.Option{oldest}},
		"an old provider":   {provider: []network.Option{oldest}},
		"nothing in common": {[]network.Option{newest}, []network.Option{oldest}, true},
		"two of the old":    {client: []network.Option{oldest}, provider: []network.Option{oldest}},
		"two of the new":    {client: []network.Option{newest}, provider: []network.Option{newest}},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := pair(t)
			server := network.NewFromLibp2pHost(p, tc.provider...)
			require.NoError(t, server.SetDelegate(receiver{t}))
			payload, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte(name))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s, err := network.NewFromLibp2pHost(c, tc.client...).NewQueryStream(ctx, p.ID())
			if tc.fails {
				require.ErrorContains(t, err, "exhausted 1 attempts but failed to open stream, err: ", "a peer that speaks none of them is not asked again")
				return
			}
			require.NoError(t, err)
			defer s.Close()
			require.NoError(t, s.WriteQuery(rm.Query{PayloadCID: payload}))
			r, err := s.ReadQueryResponse()
			require.NoError(t, err)
			require.Equal(t, payload.String(), r.Message)
			require.EqualValues(t, 9, r.Size)
			require.NoError(t, server.StopHandlingRequests())
		})
	}
}

// TestRetry: a peer that is not there is tried as often as was said.
func TestRetry(t *testing.T) {
	c, _ := pair(t)
	_, other := pair(t)
	for attempts, text := range map[float64]string{0: "exhausted 1 attempts", 3: "exhausted 3 attempts"} {
		_, err := network.NewFromLibp2pHost(c, network.RetryParameters(time.Millisecond, 2*time.Millisecond, attempts, 5)).NewQueryStream(t.Context(), other.ID())
		require.ErrorContains(t, err, text+" but failed to open stream, err: ")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := network.NewFromLibp2pHost(c).NewQueryStream(ctx, other.ID())
	require.ErrorContains(t, err, "canceled by context")
}

// holding reads queries, and answers nothing until it is let.
type holding struct{ let, inside chan struct{} }

func (h holding) HandleQueryStream(s network.RetrievalQueryStream) {
	if _, err := s.ReadQuery(); err != nil {
		return
	}
	h.inside <- struct{}{}
	<-h.let
	_ = s.Close()
}

// TestQueriesAtLimit: a peer has as many queries answered at once as the limit says; one beyond is cut off and told of, and there is room again
// when one has ended.
func TestQueriesAtLimit(t *testing.T) {
	c, p := pair(t)
	over := make(chan struct{}, 9)
	h := holding{make(chan struct{}), make(chan struct{}, 9)}
	require.NoError(t, network.NewFromLibp2pHost(p, network.QueriesPerPeer(2, func() { over <- struct{}{} })).SetDelegate(h))
	client := network.NewFromLibp2pHost(c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask := func() {
		s, err := client.NewQueryStream(ctx, p.ID())
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		_ = s.WriteQuery(rm.Query{PayloadCID: cid.NewCidV1(cid.Raw, mh.Multihash("\x12\x20abcdefghijklmnopqrstuvwxyz012345"))})
	}
	ask()
	ask()
	<-h.inside
	<-h.inside
	require.Empty(t, over)
	ask()
	<-over
	require.Empty(t, h.inside)
	close(h.let)
	require.Eventually(t, func() bool {
		ask()
		select {
		case <-h.inside:
			return true
		case <-over:
			return false
		}
	}, 30*time.Second, time.Millisecond)
}
