package node

import (
	"context"
	"errors"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/node/health"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// askChain is how long a status waits for the chain.
const askChain = 2 * time.Second

// Status answers Cartage.Status.
func (o *Overview) Status(ctx context.Context) (*api.Status, error) {
	n := o.n
	s := &api.Status{Version: n.parts.Version, PeerID: n.Host.ID().String(), Addresses: n.Addresses(), Providing: n.Provider != nil, Running: o.running.Load(),
		Started: o.begun.UTC().Format(time.RFC3339), Ledger: n.chainName(), Asset: "FIL", Unknown: map[string]string{}}
	results := o.monitor.Look(ctx, false)
	s.Checks, s.Ready = checksOf(results), health.Worst(results) != health.Bad
	s.DiskFree, _, _ = blob.Free(n.parts.Home.Dir)
	s.DiskTotal, _ = blob.Total(n.parts.Home.Dir)
	if s.DiskTotal == 0 {
		s.Unknown["disk_free"], s.Unknown["disk_total"] = reason.Unknown.String(), reason.Unknown.String()
	}
	if w := n.watched.Load(); w != nil {
		s.SettlePeriod = w.period.Seconds()
	}
	if err := o.addMoving(ctx, s); err != nil {
		return nil, coded(err)
	}
	if err := o.addMoney(ctx, s); err != nil {
		return nil, coded(err)
	}
	now := time.Now()
	c := o.ended.Last(now, 24)
	s.Ended = api.Ended{Well: c.Well, Ours: c.Ours, Theirs: c.Theirs, Network: c.Network, Unclear: c.Unclear}
	s.EndedSeconds = min(now.Sub(o.begun), 24*time.Hour).Seconds()
	return s, nil
}

// moved is how much deals have moved until a time.
type moved struct {
	at      time.Time
	out, in uint64
}

// movedSoFar adds up the open deals, and notes them.
func (o *Overview) movedSoFar(ctx context.Context, s *api.Status) moved {
	m, peers := moved{at: time.Now()}, map[peer.ID]bool{}
	s.DealsOpen = 0
	for _, d := range o.n.Client.ActiveDeals() {
		if o.n.orders.Holds(download.Deal(d.ID)) {
			continue // it stands still until it is asked for
		}
		m.in += d.TotalReceived
		peers[d.Sender] = true
		s.DealsOpen++
	}
	if o.n.Provider != nil {
		for _, d := range o.n.Provider.ListDeals() {
			if clientstates.IsFinal(d.Status) {
				continue
			}
			sent := d.TotalSent
			if ch, err := o.n.manager.ChannelState(ctx, d.ChannelID); err == nil {
				sent = max(sent, ch.Sent())
			}
			m.out += sent
			peers[d.Receiver] = true
			s.DealsOpen++
		}
	}
	s.Peers = len(peers)
	return m
}

// Between these times two looks at what has moved make a rate.
const (
	shortRate = time.Second
	longRate  = time.Minute
)

// addMoving fills in what moves now. A rate needs an earlier look; without one of the last minute it is taken here.
func (o *Overview) addMoving(ctx context.Context, s *api.Status) error {
	now := o.movedSoFar(ctx, s)
	o.rates.Lock()
	last := o.rates.last
	o.rates.Unlock()
	if s.DealsOpen > 0 && (now.at.Sub(last.at) > longRate || now.at.Sub(last.at) < shortRate) {
		last = now
		if !lifecycle.Sleep(ctx, shortRate) {
			return ctx.Err()
		}
		now = o.movedSoFar(ctx, s)
	}
	if d := now.at.Sub(last.at).Seconds(); s.DealsOpen > 0 && d > 0 && now.out >= last.out && now.in >= last.in { // deals that ended take what they moved
		s.BytesOut, s.BytesIn, s.RateSeconds = float64(now.out-last.out)/d, float64(now.in-last.in)/d, d
	} else if s.DealsOpen > 0 {
		s.Unknown["bytes_out_s"], s.Unknown["bytes_in_s"] = reason.Unknown.String(), reason.Unknown.String()
	}
	o.rates.Lock()
	o.rates.last = now
	o.rates.Unlock()
	list, err := o.n.orders.List(ctx)
	for _, order := range list {
		switch order.State {
		case download.Waiting:
			s.Waiting++
		case download.Parked:
			s.Parked++
		}
	}
	return err
}

// addMoney fills in what was earned and spent. What only the chain knows is unknown while it is away.
func (o *Overview) addMoney(ctx context.Context, s *api.Status) error {
	s.EarnedToday, s.Earned30, s.Unredeemed, s.Spent = "0", "0", "0", "0"
	if o.n.Payments == nil {
		s.SpentToday = "0"
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askChain)
	defer cancel()
	if t, err := o.n.Payments.Timing(ctx); err != nil {
		s.Unknown["settle_window_s"] = reason.From(coded(err)).String()
	} else {
		s.SettleWindow = t.Window().Seconds()
	}
	spent := big.Zero()
	for _, c := range o.n.Payments.Booked() {
		s.Channels++
		if c.Outbound {
			spent = big.Add(spent, c.Vouchered)
		}
	}
	s.Spent = spent.String()
	if spent.IsZero() {
		s.SpentToday = "0"
	} else {
		s.Unknown["spent_today"] = reason.Unknown.String() // what was paid to others is not kept by the day
	}
	e, err := o.n.Payments.Earnings(ctx)
	if err != nil {
		return err
	}
	if _, _, err := o.n.Payments.Head(ctx); err != nil { // of channels it has what was last known
		e.Trouble = errors.Join(e.Trouble, err)
	}
	o.addEarned(s, e)
	return nil
}

func (o *Overview) addEarned(s *api.Status, e *paych.Earnings) {
	now := time.Now().UTC()
	today, since := now.Format(time.DateOnly), now.AddDate(0, 0, -30).Format(time.DateOnly)
	day, month, left := big.Zero(), big.Zero(), big.Zero()
	for _, d := range e.Days {
		if d.Date == today {
			day = big.Add(day, d.Vouchered)
		}
		if d.Date > since {
			month = big.Add(month, d.Vouchered)
		}
	}
	for _, c := range e.Claims {
		left = big.Add(left, c.Redeemable)
		if c.Until > abi.ChainEpoch(0) {
			s.Settling++
		}
	}
	s.EarnedToday, s.Earned30, s.Unredeemed = day.String(), month.String(), left.String()
	if e.Trouble != nil {
		why := reason.From(coded(e.Trouble)).String()
		s.Unredeemed = ""
		s.Unknown["unredeemed"], s.Unknown["settling"] = why, why
	}
}
