package graphsync

import (
	"testing"

	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/reason"
)

type visited struct{ oddcars.Block }

func (v visited) Link() datamodel.Link    { return cidlink.Link{Cid: v.CID} }
func (v visited) BlockSize() uint64       { return uint64(len(v.Data)) }
func (v visited) BlockSizeOnWire() uint64 { return 0 }
func (v visited) Index() int64            { return 0 }

// TestWalked: blocks that are linked again and again are counted against those that are not; a sender has more patience.
func TestWalked(t *testing.T) {
	few := []oddcars.Block{oddcars.Zeros(8, 1), oddcars.Zeros(8, 2)}
	for _, slack := range []uint64{1, senderSlack} {
		var w walked
		var err error
		for err == nil {
			err = w.count(visited{few[w.links%2]}, slack)
		}
		require.ErrorIs(t, err, reason.TooManyLinks)
		require.EqualValues(t, (carstore.LinkBound(2)+1)*slack, w.links)
	}
	var w walked
	for i := range 100_000 {
		require.NoError(t, w.count(visited{oddcars.Zeros(8, i)}, 1))
	}
}
