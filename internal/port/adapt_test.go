package port_test

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
)

type published struct {
	dt.EventsHandler
	told []string
	err  error
}

func (p *published) OnDataSent(dt.ChannelID, ipld.Link, uint64, int64, bool) error {
	p.told = append(p.told, "sent")
	return nil
}

func (p *published) OnDataReceived(dt.ChannelID, ipld.Link, uint64, int64, bool) error {
	p.told = append(p.told, "received")
	return p.err
}

func (p *published) OnChannelCompleted(dt.ChannelID, error) error {
	p.told = append(p.told, "completed")
	return nil
}

// transport keeps what it is asked for.
type transport struct {
	dt.PauseableTransport
	asked []string
}

func (p *transport) PauseChannel(context.Context, dt.ChannelID) error {
	p.asked = append(p.asked, "pause")
	return nil
}

func (p *transport) ResumeChannel(context.Context, dt.Message, dt.ChannelID) error {
	p.asked = append(p.asked, "resume")
	return nil
}

func (p *transport) CloseChannel(context.Context, dt.ChannelID) error {
	p.asked = append(p.asked, "close")
	return nil
}

type plain struct{ dt.Transport }

func TestPublishedHandlerIsAdapted(t *testing.T) {
	p, tr := &published{}, &transport{}
	h := port.HandlerOf(p, tr)
	chid := dt.ChannelID{ID: 1}
	two := []port.BlockRef{{Cid: cid.Undef, Index: 1}, {Index: 2}}
	require.NoError(t, h.OnBlocksSent(chid, two))
	require.NoError(t, h.OnBlocksReceived(chid, two))
	m, err := h.OnAllSent(chid)
	require.NoError(t, err)
	require.Nil(t, m)
	require.Equal(t, []string{"sent", "sent", "received", "received", "completed"}, p.told)
	p.err = dt.ErrPause
	require.ErrorIs(t, h.OnBlocksReceived(chid, two), dt.ErrPause)
	require.False(t, h.TakesBatches(chid))
	h.HoldForPayment(t.Context(), chid)
	require.Equal(t, []string{"pause"}, tr.asked)
	require.NoError(t, h.CheckRequest(chid, nil, nil))
	require.NoError(t, h.MayAskAgain(chid, 1))
	require.Error(t, h.AdoptForSending(chid))
	require.False(t, h.Silent(chid))
	require.False(t, h.ClaimCounts(chid, 1))
	h.OnBlockClaimed(chid, 1, 1)
	h.OnDataAsked(chid)
	h.OnLateAcceptance(chid)
	require.False(t, h.Undelivered(chid, nil))
	require.Equal(t, h, port.HandlerOf(h, nil), "the whole contract is not adapted")
}

func TestPublishedTransportIsAdapted(t *testing.T) {
	tr := &transport{}
	p := port.TransportOf(tr)
	chid := dt.ChannelID{ID: 1}
	require.Equal(t, port.Traits{Pauses: true}, p.Traits())
	require.NoError(t, p.PauseChannel(t.Context(), chid))
	require.NoError(t, p.ResumeChannel(t.Context(), nil, chid))
	require.NoError(t, p.Halt(t.Context(), chid))
	require.Equal(t, []string{"pause", "resume", "close"}, tr.asked)
	require.False(t, p.SendControl(chid, nil))
	require.ErrorIs(t, p.UseStore(chid, ipld.LinkSystem{}), dt.ErrUnsupported)
	_, known := p.StoreOf(chid)
	require.False(t, known)
	p.MaxLinks(chid, 1)
	p.PeerAway(peer.ID("p"))
	require.Equal(t, p, port.TransportOf(p), "the whole contract is not adapted")

	none := port.TransportOf(plain{tr})
	require.Equal(t, port.Traits{}, none.Traits())
	require.ErrorIs(t, none.PauseChannel(t.Context(), chid), dt.ErrUnsupported)
	require.ErrorIs(t, none.ResumeChannel(t.Context(), nil, chid), dt.ErrUnsupported)
}

type manager struct {
	dt.Manager
	subscribed int
}

func (m *manager) SubscribeToEvents(dt.Subscriber) dt.Unsubscribe {
	m.subscribed++
	return func() {}
}

func TestPublishedManagerIsAdapted(t *testing.T) {
	m := &manager{}
	p := port.ManagerOf(m)
	chid := dt.ChannelID{ID: 1}
	p.SubscribeToProgress(nil)
	require.Equal(t, 1, m.subscribed)
	require.Nil(t, p.Validator(nil))
	require.Zero(t, p.Waiting(chid))
	require.NoError(t, p.Suspend(t.Context(), chid))
	p.Unsuspend(chid)
	require.NoError(t, p.Reposition(t.Context(), chid, 1, 1))
	require.NoError(t, p.HasAll(t.Context(), chid))
	require.NoError(t, p.ConnectTo(t.Context(), "p"))
	require.Equal(t, p, port.ManagerOf(p), "the whole contract is not adapted")
}
