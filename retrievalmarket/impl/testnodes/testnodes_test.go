package testnodes_test

import (
	"errors"
	"io"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	imtesting "github.com/cartage-dev/cartage/retrievalmarket/impl/testing"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/testnodes"
)

var msg = cid.MustParse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")

func addr(t *testing.T, n uint64) address.Address {
	a, err := address.NewIDAddress(n)
	require.NoError(t, err)
	return a
}

// TestClientNode: answers, recorders and expectations; with IntegrationTest money counts.
func TestClientNode(t *testing.T) {
	v := &paych.SignedVoucher{Amount: big.NewInt(5)}
	var asked []int64
	n := testnodes.NewTestRetrievalClientNode(testnodes.TestRetrievalClientNodeParams{
		PayCh: addr(t, 1), CreatePaychCID: msg, Lane: 7, Voucher: v, IntegrationTest: true,
		PaymentChannelRecorder: func(_, _ address.Address, a abi.TokenAmount) { asked = append(asked, a.Int64()) },
	})
	ch, wait, err := n.GetOrCreatePaymentChannel(t.Context(), addr(t, 2), addr(t, 3), big.NewInt(10), nil)
	require.NoError(t, err)
	require.Equal(t, address.Undef, ch)
	require.Equal(t, []int64{10}, asked)
	_, err = n.CreatePaymentVoucher(t.Context(), addr(t, 1), big.NewInt(4), 7, nil)
	require.IsType(t, rm.ShortfallError{}, err, "not wrapped: published clients assert it")
	var short rm.ShortfallError
	require.ErrorAs(t, err, &short)
	require.EqualValues(t, 4, short.Shortfall().Int64())
	ch, err = n.WaitForPaymentChannelReady(t.Context(), wait)
	require.NoError(t, err)
	require.Equal(t, addr(t, 1), ch)
	got, err := n.CreatePaymentVoucher(t.Context(), ch, big.NewInt(10), 7, nil)
	require.NoError(t, err)
	require.Equal(t, v, got)
	f, err := n.CheckAvailableFunds(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, 10, f.ConfirmedAmt.Int64())
	n.ResetChannelAvailableFunds(rm.ChannelAvailableFunds{})
	_, err = n.CreatePaymentVoucher(t.Context(), ch, big.NewInt(1), 7, nil)
	require.Error(t, err)

	piece, same := msg, msg
	a := ma.StringCast("/ip4/127.0.0.1/tcp/1")
	n.ExpectKnownAddresses(rm.RetrievalPeer{ID: "p", PieceCID: &piece}, []ma.Multiaddr{a})
	_, err = n.GetKnownAddresses(t.Context(), rm.RetrievalPeer{ID: "q"}, nil)
	require.EqualError(t, err, "Provider not found")
	addrs, err := n.GetKnownAddresses(t.Context(), rm.RetrievalPeer{ID: "p", PieceCID: &same}, nil)
	require.NoError(t, err)
	require.Equal(t, []ma.Multiaddr{a}, addrs)
	n.VerifyExpectations(t)
}

// TestProviderNode: unsealing and vouchers, expected and not.
func TestProviderNode(t *testing.T) {
	n := testnodes.NewTestRetrievalProviderNode()
	n.ExpectUnseal(1, 0, 127, []byte("piece"))
	n.ExpectFailedUnseal(2, 0, 127)
	r, err := n.UnsealSector(t.Context(), 1, 0, 127)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "piece", string(data))
	_, err = n.UnsealSector(t.Context(), 2, 0, 127)
	require.EqualError(t, err, "Could not unseal")
	ch, err := address.NewActorAddress([]byte("channel"))
	require.NoError(t, err)
	v := &paych.SignedVoucher{ChannelAddr: ch, Amount: big.NewInt(5), Merges: []paych.Merge{}}
	_, err = n.SavePaymentVoucher(t.Context(), ch, v, nil, big.Zero(), nil)
	require.EqualError(t, err, "SavePaymentVoucher failed")
	require.NoError(t, n.ExpectVoucher(ch, v, nil, big.Zero(), big.NewInt(5), nil))
	again := *v
	grown, err := n.SavePaymentVoucher(t.Context(), ch, &again, nil, big.Zero(), nil)
	require.NoError(t, err)
	require.EqualValues(t, 5, grown.Int64())
	n.VerifyExpectations(t)
	n.ChainHeadError = errors.New("away")
	_, _, err = n.GetChainHead(t.Context())
	require.ErrorIs(t, err, n.ChainHeadError)
}

// TestEnvironment: an entry function of the provider over the environment for tests.
func TestEnvironment(t *testing.T) {
	env := imtesting.NewTestProviderDealEnvironment(testnodes.NewTestRetrievalProviderNode())
	deal := rm.ProviderDealState{DealProposal: rm.DealProposal{ID: 4}, ChannelID: dt.ChannelID{Initiator: "c", Responder: "p", ID: 9}}
	deal.UnsealPrice = big.Zero()
	ctx := &fsm.TestContext{Ctx: t.Context()}
	require.NoError(t, providerstates.UnsealData(ctx, env, deal))
	require.Equal(t, rm.ProviderEventUnsealComplete, ctx.Triggered[0].Event)
	env.UnsealError = errors.New("no sector")
	require.NoError(t, providerstates.UnsealData(ctx, env, deal))
	require.Equal(t, rm.ProviderEventUnsealError, ctx.Triggered[1].Event)
	require.NoError(t, providerstates.CancelDeal(ctx, env, deal))
	require.Equal(t, []dt.ChannelID{deal.ChannelID}, env.Closed())
	require.Equal(t, []rm.DealID{4}, env.Released())
	require.Equal(t, []rm.DealID{4, 4}, env.Unsealed())
	require.Empty(t, env.Resumed())
	ok, _, err := imtesting.TrivialTestDecider(t.Context(), deal)
	require.NoError(t, err)
	require.True(t, ok)
	require.NotNil(t, env.Node())
}
