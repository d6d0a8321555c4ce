package storagedeal_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	marketv9 "github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/storagedeal"
)

// proposal makes a signed proposal with a label.
func (m *market) proposal(label marketv9.DealLabel) *storagedeal.Proposal {
	m.t.Helper()
	_, root, p := m.archive("data", 300_000)
	d := marketv9.DealProposal{PieceCID: p.CID, PieceSize: abi.PaddedPieceSize(p.Padded), Client: m.from, Provider: m.miner, Label: label, StartEpoch: 1_010_000, EndEpoch: 1_010_000 + 518_400,
		StoragePricePerEpoch: big.Zero(), ProviderCollateral: big.Zero(), ClientCollateral: big.Zero()}
	data, err := storagedeal.MarshalProposal(&d)
	require.NoError(m.t, err)
	sig, err := m.wallet.Sign(m.from, data)
	require.NoError(m.t, err)
	return &storagedeal.Proposal{DealProposal: &marketv9.ClientDealProposal{Proposal: d, ClientSignature: *sig},
		Piece: &storagedeal.DataRef{TransferType: storagedeal.TTManual, Root: root, PieceCid: &p.CID, PieceSize: abi.UnpaddedPieceSize(p.Padded.Unpadded())}}
}

// connect lets the client's host know the provider's.
func (m *market) connect() {
	m.ch.Peerstore().AddAddrs(m.ph.ID(), m.ph.Addrs(), time.Hour)
}

// TestT_T5 : a label that is no text is refused on 1.1.0 and before, and taken on 1.1.1.
func TestT_T5(t *testing.T) {
	label, err := marketv9.NewLabelFromBytes([]byte{0xde, 0xad, 0xff})
	require.NoError(t, err)
	for id, state := range map[protocol.ID]storagedeal.State{
		storagedeal.DealProtocol111: storagedeal.StorageDealWaitingForData, storagedeal.DealProtocol110: storagedeal.StorageDealFailing,
		storagedeal.DealProtocol101: storagedeal.StorageDealFailing,
	} {
		m := newMarket(t)
		m.connect()
		r, err := storagedeal.AskFor(t.Context(), m.ch, m.ph.ID(), id, m.proposal(label))
		require.NoError(t, err, id)
		require.Equal(t, state, r.Response.State, "%s: %s", id, r.Response.Message)
		if state == storagedeal.StorageDealFailing {
			require.Contains(t, r.Response.Message, "deal label must be a text")
		}
	}
}

// TestOldProtocol: a client of 1.0.1 proposes in arrays, and is answered in them.
func TestOldProtocol(t *testing.T) {
	m := newMarket(t)
	m.connect()
	label, err := marketv9.NewLabelFromString("old")
	require.NoError(t, err)
	r, err := storagedeal.AskFor(t.Context(), m.ch, m.ph.ID(), storagedeal.DealProtocol101, m.proposal(label))
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealWaitingForData, r.Response.State)
}

// TestT_T7Stream: a message that is cut at any byte, or that is too large, is answered with a reset, and the provider goes on.
func TestT_T7Stream(t *testing.T) {
	m := newMarket(t)
	m.connect()
	label, err := marketv9.NewLabelFromString("x")
	require.NoError(t, err)
	p := m.proposal(label)
	data, err := storagedeal.Encoded(p, storagedeal.DealProtocol111)
	require.NoError(t, err)
	reset := func(sent []byte) {
		t.Helper()
		s, err := m.ch.NewStream(t.Context(), m.ph.ID(), storagedeal.DealProtocol111)
		require.NoError(t, err)
		_, err = s.Write(sent)
		if err == nil {
			err = s.CloseWrite()
		}
		if err == nil {
			require.NoError(t, s.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = io.ReadAll(s)
		}
		require.ErrorContains(t, err, "reset")
	}
	for n := 0; n < len(data); n += 7 {
		reset(data[:n])
	}
	reset(append([]byte{0x5a, 0x7f, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{1}, 100_000)...))
	list, err := m.provider.Deals(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	r, err := storagedeal.AskFor(t.Context(), m.ch, m.ph.ID(), storagedeal.DealProtocol111, p)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealWaitingForData, r.Response.State)
}
