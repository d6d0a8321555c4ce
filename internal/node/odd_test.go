package node_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/reason"
)

// sell writes an archive and puts it up for sale.
func (s *served) sell(t *testing.T, name string, a oddcars.Archive, r api.ProvideRequest) (*api.Piece, error) {
	t.Helper()
	r.Path = filepath.Join(s.dir, name+".car")
	require.NoError(t, os.WriteFile(r.Path, a.Bytes(), 0o600))
	return s.provider.API().ProvideAs(t.Context(), r)
}

// fetch retrieves a root and returns how that ended.
func (s *served) fetch(t *testing.T, root cid.Cid, transport string) *api.Retrieval {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	req := api.RetrieveRequest{CID: root.String(), Provider: s.provider.Address(), Transport: transport}
	v, err := s.Retrieve(ctx, req)
	for err == nil && !v.Done {
		time.Sleep(20 * time.Millisecond)
		v, err = s.Retrieval(ctx, v.Key)
	}
	require.NoError(t, err)
	return v
}

// TestOddArchives: what the field has is sold and found, over both transports.
func TestOddArchives(t *testing.T) {
	s := serveFree(t)
	for i, transport := range []string{api.TransportStream, api.TransportGraphsync} {
		got := func(a oddcars.Archive) {
			t.Helper()
			v := s.fetch(t, a.Root(), transport)
			require.True(t, v.OK, v.Message)
			require.Contains(t, []string{transport, api.TransportAuto}, v.Transport)
			require.NotEmpty(t, v.ID)
		}
		// A part first, the whole afterwards.
		a := oddcars.Wide(5+i, 1000)
		_, err := s.sell(t, "root", a.Only(1), api.ProvideRequest{})
		require.ErrorIs(t, err, reason.ArchiveIncomplete)
		p, err := s.sell(t, "root", a.Only(1), api.ProvideRequest{Partial: true})
		require.NoError(t, err)
		require.EqualValues(t, 5+i, p.Missing)
		_, err = s.sell(t, "all", a, api.ProvideRequest{})
		require.NoError(t, err)
		got(a)

		// Two archives that have it together.
		b := oddcars.Wide(7+i, 1001)
		rest := oddcars.Archive{Roots: []cid.Cid{b.Blocks[2].CID}, Blocks: b.Blocks[2:]}
		_, err = s.sell(t, "rest", rest, api.ProvideRequest{})
		require.NoError(t, err)
		_, err = s.sell(t, "front", b.Only(2), api.ProvideRequest{})
		require.NoError(t, err)
		got(b)

		// An identity root, sold by that name and by none; each has a leaf that none before had.
		c := oddcars.Inlined(2 + 3*i)
		_, err = s.sell(t, "inlined", c, api.ProvideRequest{})
		require.NoError(t, err)
		got(c)
		d := oddcars.Inlined(4 + 3*i)
		links, err := carstore.LinksOf(d.Root(), mustInlined(t, d.Root()))
		require.NoError(t, err)
		_, err = s.sell(t, "leaves", d.With(links...), api.ProvideRequest{})
		require.NoError(t, err)
		got(d)

		// Leaves that nobody can decode.
		for codec, data := range map[uint64][]byte{0x90: {1, 2, 3, byte(i)}, 0x0200: {'[', '0' + byte(i), ']'}, cid.DagCBOR: {0xc3, 0x41, byte(i)}} {
			e := oddcars.Coded(codec, data)
			p, err := s.sell(t, "coded", e, api.ProvideRequest{})
			require.NoError(t, err)
			require.Len(t, p.Warnings, 1)
			got(e)
		}
		// The largest block.
		f := oddcars.OneLarge(carstore.MaxBlock - i)
		_, err = s.sell(t, "large", f, api.ProvideRequest{})
		require.NoError(t, err)
		got(f)
	}
}

// serveFree is serveClient with a provider that asks for nothing.
func serveFree(t *testing.T) *served {
	s := serveClient(t)
	_, err := s.provider.API().SetAsk(t.Context(), api.Ask{PricePerByte: "0", UnsealPrice: "0", PaymentInterval: 1 << 20})
	require.NoError(t, err)
	return s
}

func mustInlined(t *testing.T, c cid.Cid) []byte {
	data, ok := carstore.Inlined(c)
	require.True(t, ok)
	return data
}

// TestTooDeepDeal: a deal whose DAG is too deep is refused by name at the client, and costs the square of nothing.
func TestTooDeepDeal(t *testing.T) {
	s := serveFree(t)
	a := oddcars.Chain(carstore.MaxDepth + 10)
	_, err := s.sell(t, "deep", a, api.ProvideRequest{})
	require.NoError(t, err)
	for _, transport := range []string{api.TransportStream, api.TransportGraphsync} {
		v := s.fetch(t, a.Root(), transport)
		require.False(t, v.OK)
		require.Equal(t, reason.DAGTooDeep.String(), v.Reason, v.Message)
	}
}

// TestPieceNames: a piece is named by both versions of its CID.
func TestPieceNames(t *testing.T) {
	s := serveFree(t)
	a := oddcars.Wide(3, 1000)
	p, err := s.sell(t, "a", a.Behind(make([]byte, 9000)), api.ProvideRequest{})
	require.NoError(t, err)
	v2, err := cid.Decode(p.PieceCIDv2)
	require.NoError(t, err)
	v1, err := commp.V1(v2)
	require.NoError(t, err)
	require.Equal(t, p.PieceCID, v1.String())
	other, err := s.sell(t, "b", oddcars.Wide(3, 1001), api.ProvideRequest{})
	require.NoError(t, err)
	for _, piece := range []string{other.PieceCID, other.PieceCIDv2, "bafkreibckgqjrr4xnsnek7uqmk6bxqkbafp4v7sdfgmgggwcb67diea6be"} {
		_, err = s.Retrieve(t.Context(), api.RetrieveRequest{CID: p.Root, Provider: s.provider.Address(), Piece: piece})
		require.Error(t, err, "the payload is in another piece")
	}
	for _, piece := range []string{p.PieceCID, p.PieceCIDv2} {
		v, err := s.Retrieve(t.Context(), api.RetrieveRequest{CID: p.Root, Provider: s.provider.Address(), Piece: piece})
		require.NoError(t, err)
		for !v.Done {
			time.Sleep(20 * time.Millisecond)
			v, err = s.Retrieval(t.Context(), v.Key)
			require.NoError(t, err)
		}
		require.True(t, v.OK, v.Message)
	}
	for _, key := range []string{p.PieceCID, p.PieceCIDv2} {
		require.NoError(t, s.provider.API().DagstoreRegisterShard(t.Context(), key))
	}
}
