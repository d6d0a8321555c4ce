package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// Limits of a resumed transfer.
const (
	progressEvery  = 100 * time.Millisecond
	ackWait        = 2 * time.Second
	resumeAttempts = 30
)

// Node implements clientstates.ClientDealEnvironment.
func (c *Client) Node() rm.RetrievalClientNode { return c.cfg.Node }

// OpenDataTransfer implements clientstates.ClientDealEnvironment.
func (c *Client) OpenDataTransfer(ctx context.Context, to peer.ID, p *rm.DealProposal, first bool) (dt.ChannelID, error) {
	sel, err := p.SelectorNode()
	if err != nil {
		return dt.ChannelID{}, err
	}
	cd := c.deal(p.ID)
	if cd == nil {
		return dt.ChannelID{}, fmt.Errorf("deal %s: %w", p.ID, rm.ErrNotFound)
	}
	cd.mu.Lock()
	stored := cd.stored
	cd.mu.Unlock()
	if stored {
		if chid, ok := c.adopt(ctx, cd, p.ID, to); ok {
			return chid, nil
		}
	}
	if err := c.openTarget(ctx, cd); err != nil {
		return dt.ChannelID{}, err
	}
	if err := c.reach(ctx, to); err != nil {
		return dt.ChannelID{}, err
	}
	c.unbind(cd)
	// The request lives as long as the client, not as long as this entry function.
	chid, err := c.cfg.Hub.dt.OpenPullDataChannel(c.ctx, to, legacy.ProposalOf(p, first), p.PayloadCID, sel)
	if err != nil {
		return dt.ChannelID{}, err
	}
	c.bind(cd, chid)
	return chid, nil
}

// connectAttempts is how often a provider is dialled that is away.
const connectAttempts = 5

// reach connects to a provider; one that is away for a moment, as when it starts again, is tried a few times.
func (c *Client) reach(ctx context.Context, to peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	attempts := 0
	err := lifecycle.Retry(ctx, lifecycle.Backoff{Min: 250 * time.Millisecond, Max: 2 * time.Second}, func() (bool, error) {
		err := c.cfg.Hub.dt.ConnectTo(ctx, to)
		attempts++
		return err != nil && attempts < connectAttempts, err
	})
	if err != nil {
		return reason.PeerUnreachable.Errorf("provider %s is not reachable: %w", to, err)
	}
	return nil
}

// adopt finds the channel of a deal that a crash cut off between opening it and recording it.
func (c *Client) adopt(ctx context.Context, cd *clientDeal, id rm.DealID, to peer.ID) (dt.ChannelID, bool) {
	all, err := c.cfg.Hub.dt.InProgressChannels(ctx)
	if err != nil {
		return dt.ChannelID{}, false
	}
	for chid, s := range all {
		p := legacy.Proposal(s.Voucher())
		if p == nil || p.ID != id || chid.Responder != to || chid.Initiator != c.cfg.Hub.self || s.Status() > dt.Ongoing && s.Status() < dt.InitiatorPaused {
			continue
		}
		c.bind(cd, chid)
		c.resume(cd, chid)
		return chid, true
	}
	return dt.ChannelID{}, false
}

func (c *Client) openTarget(ctx context.Context, cd *clientDeal) error {
	if c.cfg.Targets == nil {
		return nil
	}
	cd.mu.Lock()
	defer cd.mu.Unlock()
	if cd.target != nil {
		return nil
	}
	s, _ := cd.machine.State()
	t, err := c.cfg.Targets.Open(ctx, s)
	if err != nil {
		return fmt.Errorf("open target of deal %s: %w", cd.id, err)
	}
	cd.target = t
	return nil
}

// linkSystem is the store of a deal's channel; nil means the transport's own.
func (c *Client) linkSystem(id rm.DealID) *ipld.LinkSystem {
	cd := c.deal(id)
	if cd == nil {
		return nil
	}
	cd.mu.Lock()
	target := cd.target
	cd.mu.Unlock()
	if target == nil {
		return nil
	}
	ls := target.LinkSystem()
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc linking.LinkContext, l ipld.Link) (io.Reader, error) {
		if cl, ok := l.(cidlink.Link); ok && cd.hidden(cl.Cid) {
			return nil, errors.New("asking the provider once more")
		}
		return read(lc, l)
	}
	return &ls
}

// hidden answers once for the block that is to look missing.
func (cd *clientDeal) hidden(c cid.Cid) bool {
	cd.mu.Lock()
	defer cd.mu.Unlock()
	if !cd.hide.Defined() || !cd.hide.Equals(c) {
		return false
	}
	cd.hide = cid.Undef
	return true
}

// CloseDataTransfer implements clientstates.ClientDealEnvironment.
func (c *Client) CloseDataTransfer(ctx context.Context, chid dt.ChannelID) error {
	return c.cfg.Hub.dt.CloseDataTransferChannel(ctx, chid)
}

// with runs f on a deal in progress, under its lock.
func (c *Client) with(id rm.DealID, f func(cd *clientDeal)) {
	if cd := c.deal(id); cd != nil {
		cd.mu.Lock()
		defer cd.mu.Unlock()
		f(cd)
	}
}

// transferEvent maps what happens on a channel of ours to the deal (3.4).
func (c *Client) transferEvent(e dt.Event, s dt.ChannelState) {
	cd := c.dealOf(s)
	if cd == nil {
		return
	}
	cd.mu.Lock()
	if cd.stale(s.ChannelID()) || cd.held && e.Code != dt.Cancel && e.Code != dt.Error { // how far it is the target tells when it goes on
		cd.mu.Unlock()
		return
	}
	received := cd.verified(s.Received())
	if received > cd.received {
		cd.received, cd.repeats, cd.quietFrom = received, 0, time.Now()
	}
	cd.mu.Unlock()
	send := func(ev rm.ClientEvent, args ...any) { _ = cd.machine.Send(ev, args...) }
	switch e.Code {
	case dt.DataReceivedProgress:
		if n := c.maxBytes(cd); n > 0 && received > n {
			send(clientstates.TooLarge, n)
			return
		}
		c.payUnasked(cd, received)
		if cd.report() {
			send(rm.ClientEventBlocksReceived, received)
		}
	case dt.FinishTransfer:
		send(rm.ClientEventBlocksReceived, received)
		send(rm.ClientEventAllBlocksReceived)
	case dt.Cancel:
		if st, _ := cd.machine.State(); st.Status != rm.DealStatusCancelling { // then it is our own
			send(rm.ClientEventProviderCancelled)
		}
	case dt.NewVoucherResult:
		if r := legacy.Response(s.LastVoucherResult()); r != nil {
			c.response(cd, received, r)
		}
	case dt.CleanupComplete:
		if s.Status() == dt.Completed { // both sides have ended: whatever event was missed, all blocks are here
			c.allHere(cd, received)
		}
	case dt.Restart:
		cd.mu.Lock()
		cd.link = accounting.LinkRestarted
		cd.mu.Unlock()
		if !c.takesUnasked(s.OtherPeer()) {
			c.group.Go(func() { c.resend(cd, s.ChannelID()) })
		}
	case dt.Disconnected, dt.ReceiveDataError, dt.SendDataError:
		cd.mu.Lock()
		cd.link = accounting.LinkRestarted
		cd.mu.Unlock()
	case dt.Error:
		if c.proposeAgain(cd) {
			return
		}
		switch {
		case errors.Is(e.Cause, dt.ErrRejected):
			c.refused(cd, s.OtherPeer())
		case e.Cause != nil:
			send(rm.ClientEventDataTransferError, fmt.Errorf("deal data transfer failed: %w", e.Cause))
		default:
			send(rm.ClientEventDataTransferError, fmt.Errorf("deal data transfer failed: %s", s.Message()))
		}
	}
}

// refused is a refusal without a reason. A provider that is known to speak the present generation meant it.
func (c *Client) refused(cd *clientDeal, by peer.ID) {
	event := clientstates.NotUnderstood
	if c.takesUnasked(by) {
		event = rm.ClientEventDealRejected
	}
	_ = cd.machine.Send(event, "")
}

func (c *Client) maxBytes(cd *clientDeal) uint64 {
	if c.cfg.MaxBytes == nil {
		return 0
	}
	s, _ := cd.machine.State()
	return c.cfg.MaxBytes(s)
}

// report limits how often progress alone is told to the deal, unless it waits for it (6.3).
func (cd *clientDeal) report() bool {
	cd.mu.Lock()
	defer cd.mu.Unlock()
	now := time.Now()
	if !cd.awaitsBlocks() && now.Sub(cd.reported) < progressEvery {
		return false
	}
	cd.reported = now
	return true
}

// awaitsBlocks reports whether the next block may change what the deal does; mu is held.
func (cd *clientDeal) awaitsBlocks() bool {
	return waitsForPayment(cd.status) && cd.received >= cd.next || cd.status == rm.DealStatusCheckComplete || cd.status == rm.DealStatusClientWaitingForLastBlocks
}

// verified bounds what a transfer counted by what is really new in the target: a block that is sent again in a later message
// is counted by the transfer and is not paid again. mu is held.
func (cd *clientDeal) verified(counted uint64) uint64 {
	if cd.target == nil {
		return counted
	}
	held, base := cd.target.Bytes(), cd.target.Base()
	return min(counted, held-min(held, base))
}

func (c *Client) allHere(cd *clientDeal, received uint64) {
	cd.mu.Lock()
	told := cd.completed
	cd.mu.Unlock()
	if st, _ := cd.machine.State(); told && st.AllBlocksReceived {
		return
	}
	_ = cd.machine.Send(rm.ClientEventBlocksReceived, received)
	_ = cd.machine.Send(rm.ClientEventAllBlocksReceived)
	c.complete(cd)
}

func (c *Client) complete(cd *clientDeal) {
	cd.mu.Lock()
	cd.completed = true
	cd.mu.Unlock()
	_ = cd.machine.Send(rm.ClientEventComplete)
}

// accept tells the deal that it was accepted, once.
func (c *Client) accept(cd *clientDeal) {
	cd.mu.Lock()
	told := cd.accepted
	cd.accepted = true
	cd.mu.Unlock()
	if !told {
		_ = cd.machine.Send(rm.ClientEventDealAccepted)
	}
}

func (c *Client) response(cd *clientDeal, received uint64, r *rm.DealResponse) {
	if r.ID != cd.id {
		return
	}
	cd.mu.Lock()
	cd.answered = true
	cd.mu.Unlock()
	send := func(ev rm.ClientEvent, args ...any) { _ = cd.machine.Send(ev, args...) }
	switch r.Status {
	case rm.DealStatusRejected:
		send(rm.ClientEventDealRejected, r.Message)
	case rm.DealStatusDealNotFound:
		send(rm.ClientEventDealNotFound, r.Message)
	case rm.DealStatusAccepted:
		c.accept(cd)
	case rm.DealStatusFundsNeededUnseal:
		cd.mu.Lock()
		cd.sends = false
		cd.mu.Unlock()
		st, _ := cd.machine.State()
		if why := c.agreesToPrepay(&st, r.PaymentOwed); why != "" {
			// No byte can be on its way that would make it right. A payment that was lost is asked for again.
			send(rm.ClientEventBadPaymentRequested, why)
			return
		}
		send(rm.ClientEventUnsealPaymentRequested, r.PaymentOwed)
		if !clientstates.Proposing(st.Status) {
			send(rm.ClientEventPaymentRequested, r.PaymentOwed)
		}
	case rm.DealStatusFundsNeeded, rm.DealStatusOngoing:
		c.noteRequest(cd)
		send(rm.ClientEventBlocksReceived, received)
		send(rm.ClientEventPaymentRequested, r.PaymentOwed)
	case rm.DealStatusFundsNeededLastPayment:
		c.noteRequest(cd)
		send(rm.ClientEventBlocksReceived, received)
		send(rm.ClientEventLastPaymentRequested, r.PaymentOwed)
	case rm.DealStatusCompleted:
		c.complete(cd)
	default:
		send(rm.ClientEventUnknownResponseReceived, r.Status, r.Message)
	}
}
