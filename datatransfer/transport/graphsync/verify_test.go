package graphsync

import (
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func linkMetadata(cids ...cid.Cid) (out []gsmsg.GraphSyncLinkMetadatum) {
	for _, c := range cids {
		out = append(out, gsmsg.GraphSyncLinkMetadatum{Link: c, Action: graphsync.LinkActionPresent})
	}
	return out
}

// TestUnnamedBlock: a block that no response of its message names is found; what an honest sender sends is not.
func TestUnnamedBlock(t *testing.T) {
	a, b, c := blocks.NewBlock([]byte("a")), blocks.NewBlock([]byte("b")), blocks.NewBlock([]byte("c"))
	one, two := graphsync.NewRequestID(), graphsync.NewRequestID()
	message := func(responses map[graphsync.RequestID][]cid.Cid, list ...blocks.Block) gsmsg.GraphSyncMessage {
		rs := map[graphsync.RequestID]gsmsg.GraphSyncResponse{}
		for id, cids := range responses {
			rs[id] = gsmsg.NewResponse(id, graphsync.PartialResponse, linkMetadata(cids...))
		}
		bs := map[cid.Cid]blocks.Block{}
		for _, x := range list {
			bs[x.Cid()] = x
		}
		return gsmsg.NewMessage(nil, rs, bs)
	}
	for name, tc := range map[string]struct {
		m    gsmsg.GraphSyncMessage
		want cid.Cid
	}{
		"nothing":                   {message(nil), cid.Undef},
		"named":                     {message(map[graphsync.RequestID][]cid.Cid{one: {a.Cid(), b.Cid()}}, a, b), cid.Undef},
		"named, not sent":           {message(map[graphsync.RequestID][]cid.Cid{one: {a.Cid(), b.Cid()}}, a), cid.Undef},
		"named by another response": {message(map[graphsync.RequestID][]cid.Cid{one: {a.Cid()}, two: {b.Cid()}}, a, b), cid.Undef},
		"unnamed":                   {message(map[graphsync.RequestID][]cid.Cid{one: {a.Cid()}}, a, c), c.Cid()},
		"without a response":        {message(nil, c), c.Cid()},
	} {
		t.Run(name, func(t *testing.T) {
			requests, bad := unnamedBlock(tc.m)
			require.Equal(t, tc.want, bad)
			if bad.Defined() && name == "unnamed" {
				require.Equal(t, []graphsync.RequestID{one}, requests)
			}
		})
	}
}
