package piecestoreimpl_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/piecestore"
	piecestoreimpl "github.com/cartage-dev/cartage/piecestore/impl"
)

func tuple(t *testing.T, v interface{ MarshalTuple(io.Writer) error }) []byte {
	var b bytes.Buffer
	require.NoError(t, v.MarshalTuple(&b))
	return b.Bytes()
}

// TestVersion0: the records of a store from before versions are there after the start, once and for the reference too; one that does not decode fails the
// start and changes nothing; a store of a later version is refused.
func TestVersion0(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	piece, payload := some(t, "piece"), some(t, "payload")
	info := piecestore.PieceInfo{PieceCID: piece, Deals: []piecestore.DealInfo{{DealID: 5, SectorID: 6, Offset: 128, Length: 256}}}
	where := piecestore.CIDInfo{CID: payload, PieceBlockLocations: []piecestore.PieceBlockLocation{{PieceCID: piece, BlockLocation: piecestore.BlockLocation{RelOffset: 3, BlockSize: 4}}}}
	oldPiece, oldPayload := datastore.NewKey(piecestoreimpl.DSPiecePrefix+"/"+piece.String()), datastore.NewKey(piecestoreimpl.DSCIDPrefix+"/"+payload.String())
	require.NoError(t, ds.Put(t.Context(), oldPiece, tuple(t, &info)))
	require.NoError(t, ds.Put(t.Context(), oldPayload, []byte("damaged")))

	start := func() (piecestore.PieceStore, error) {
		s, err := piecestoreimpl.NewPieceStore(ds)
		require.NoError(t, err)
		return s, s.Start(t.Context())
	}
	s, err := start()
	require.ErrorContains(t, err, oldPayload.String())
	ready := make(chan error)
	s.OnReady(func(err error) { ready <- err })
	require.ErrorContains(t, <-ready, oldPayload.String())

	require.NoError(t, ds.Put(t.Context(), oldPayload, tuple(t, &where)))
	for range 2 {
		s, err = start()
		require.NoError(t, err)
		gotInfo, err := s.GetPieceInfo(piece)
		require.NoError(t, err)
		require.Equal(t, info, gotInfo)
		gotWhere, err := s.GetCIDInfo(payload)
		require.NoError(t, err)
		require.Equal(t, where, gotWhere)
		keys, err := s.ListPieceInfoKeys()
		require.NoError(t, err)
		require.Equal(t, []cid.Cid{piece}, keys)
	}
	left, err := ds.Has(t.Context(), oldPiece)
	require.NoError(t, err)
	require.False(t, left)
	version, err := ds.Get(t.Context(), datastore.NewKey("/pieces/versions/current"))
	require.NoError(t, err)
	require.Equal(t, "1", string(version))

	require.NoError(t, ds.Put(t.Context(), datastore.NewKey("/cid-infos/versions/current"), []byte("7")))
	_, err = start()
	require.ErrorContains(t, err, `version "7"`)
}
