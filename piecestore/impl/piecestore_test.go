package piecestoreimpl_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/piecestore"
	piecestoreimpl "github.com/cartage-dev/cartage/piecestore/impl"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

func some(t *testing.T, s string) cid.Cid {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte(s))
	require.NoError(t, err)
	return c
}

func TestPieceStore(t *testing.T) {
	s, err := piecestoreimpl.NewPieceStore(dssync.MutexWrap(datastore.NewMapDatastore()))
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	piece, payload := some(t, "piece"), some(t, "payload")
	_, err = s.GetPieceInfo(piece)
	require.ErrorIs(t, err, rm.ErrNotFound)
	require.EqualError(t, err, fmt.Sprintf("piece with CID %s: not found", piece))
	_, err = s.GetCIDInfo(payload)
	require.ErrorIs(t, err, rm.ErrNotFound)
	require.EqualError(t, err, fmt.Sprintf("payload CID %s: not found", payload))

	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := s.AddDealForPiece(piece, piecestore.DealInfo{DealID: 1, SectorID: 2, Offset: 128, Length: 256 * 4}); err != nil {
				t.Error(err)
			}
			other := piecestore.BlockLocation{RelOffset: uint64(i % 2), BlockSize: 10}
			if err := s.AddPieceBlockLocations(piece, map[cid.Cid]piecestore.BlockLocation{payload: other}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	info, err := s.GetPieceInfo(piece)
	require.NoError(t, err)
	require.Len(t, info.Deals, 1, "an equal deal again changes nothing")
	where, err := s.GetCIDInfo(payload)
	require.NoError(t, err)
	require.Len(t, where.PieceBlockLocations, 2)
	keys, err := s.ListPieceInfoKeys()
	require.NoError(t, err)
	require.Equal(t, []cid.Cid{piece}, keys)
	keys, err = s.ListCidInfoKeys()
	require.NoError(t, err)
	require.Equal(t, []cid.Cid{payload}, keys)
}
