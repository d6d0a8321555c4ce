package interop

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

const leaves, leafSize = 48, 16 << 10

// trade is a channel between the two implementations.
type trade struct {
	ctx                  context.Context
	initiator, responder side
	sender, recipient    side
	pull                 bool
	root                 cid.Cid
	total                uint64
	atI, atR             *journal
}

func (d *trade) open(t *testing.T) dt.ChannelID {
	t.Helper()
	chid, err := d.initiator.open(d.ctx, d.pull, d.responder.host().ID(), d.root)
	require.NoError(t, err)
	return chid
}

// complete checks that everything arrived and both sides say so.
func (d *trade) complete(t *testing.T) {
	t.Helper()
	if _, v2 := d.initiator.(*theirs); v2 && !d.pull {
		// v2 forgets that a push is over when its last graphsync answer ends after the responder has said so.
		d.atI.saw(t, "ResponderCompletes")
		time.Sleep(50 * time.Millisecond)
		d.atI.mu.Lock()
		d.atI.last.status = "Completed"
		d.atI.mu.Unlock()
	}
	i, r := d.atI.ended(t), d.atR.ended(t)
	require.Equal(t, "Completed", i.status, i.message)
	require.Equal(t, "Completed", r.status, r.message)
	require.Equal(t, leaves+1, d.recipient.store().Len())
	from, to := r, i
	if !d.pull {
		from, to = i, r
	}
	require.Equal(t, d.total, from.queued)
	require.Equal(t, d.total, to.received)
}

// payEachPause sends a voucher whenever the responder pauses.
func (d *trade) payEachPause(data string) {
	d.initiator.follow(func(event string, s snapshot) {
		// v2 does not tell of a pause in the last phase.
		if event == "PauseResponder" && !strings.HasPrefix(s.status, "ResponderFinalizing") || event == "ResponderBeginsFinalization" {
			go func() {
				if !d.pull {
					// A v2 requester that pauses uses the same request again when it goes on, and takes what was still on its way
					// for the beginning of the new answer. Two v2 peers fail in that way too.
					time.Sleep(50 * time.Millisecond)
				}
				_ = d.initiator.pay(d.ctx, s.chid, data)
			}()
		}
	})
}

type scenario struct {
	name   string
	policy policy
	run    func(t *testing.T, d *trade)
}

var scenarios = []scenario{
	{"free", policy{}, func(t *testing.T, d *trade) {
		d.open(t)
		d.complete(t)
		require.Equal(t, 1, d.atI.last.results)
	}},
	{"rejected", policy{reject: true}, func(t *testing.T, d *trade) {
		d.open(t)
		s := d.atI.ended(t)
		require.Equal(t, "Failed", s.status)
		require.Equal(t, "response rejected", s.message)
		require.Equal(t, 1, s.results)
		require.Zero(t, d.recipient.store().Len())
	}},
	{"vouchers", policy{every: 200 << 10}, func(t *testing.T, d *trade) {
		d.payEachPause("payment")
		d.open(t)
		d.complete(t)
		require.GreaterOrEqual(t, d.atR.last.vouchers, 1+3) // v2 answers a demand twice
	}},
	{"last voucher", policy{every: 300 << 10, last: true}, func(t *testing.T, d *trade) {
		d.payEachPause("payment")
		d.open(t)
		d.complete(t)
		require.GreaterOrEqual(t, d.atR.last.vouchers, 1+3)
	}},
	{"initiator pauses and resumes", policy{}, func(t *testing.T, d *trade) { pauseResume(t, d, true) }},
	{"responder pauses and resumes", policy{}, func(t *testing.T, d *trade) { pauseResume(t, d, false) }},
	{"initiator cancels", policy{}, func(t *testing.T, d *trade) { cancel(t, d, true) }},
	{"responder cancels", policy{}, func(t *testing.T, d *trade) { cancel(t, d, false) }},
	{"initiator restarts", policy{}, func(t *testing.T, d *trade) { restart(t, d, true) }},
	{"responder asks for a restart", policy{}, func(t *testing.T, d *trade) { restart(t, d, false) }},
}

func (d *trade) actor(initiator bool) side {
	if initiator {
		return d.initiator
	}
	return d.responder
}

func pauseResume(t *testing.T, d *trade, byInitiator bool) {
	g := newGate(d.sender.store(), 20)
	chid := d.open(t)
	g.reached()
	d.atI.saw(t, "Accept")
	d.atR.saw(t, "Accept")
	who := d.actor(byInitiator)
	paused, resumed := "PauseResponder", "ResumeResponder"
	if byInitiator {
		paused, resumed = "PauseInitiator", "ResumeInitiator"
	}
	require.Eventually(t, func() bool { return d.recipient.store().Len() >= 19 }, 5*time.Second, time.Millisecond) // nothing else is on its way
	require.NoError(t, who.pause(d.ctx, chid))
	d.atI.saw(t, paused)
	d.atR.saw(t, paused)
	g.move(2) // a requester stops at the next block that it gets, and says so
	// A v2 requester that pauses takes what is still on its way for the beginning of its next answer: it has to be in by then.
	d.quiet()
	g.move(1 << 30)
	d.quiet()
	require.Less(t, d.recipient.store().Len(), leaves+1)
	require.NoError(t, who.resume(d.ctx, chid))
	d.atI.saw(t, resumed)
	d.complete(t)
}

// quiet waits until nothing has arrived for a while.
func (d *trade) quiet() {
	const still = 500 * time.Millisecond
	last, since := -1, time.Now()
	for time.Since(since) < still {
		if n := d.recipient.store().Len(); n != last {
			last, since = n, time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func cancel(t *testing.T, d *trade, byInitiator bool) {
	g := newGate(d.sender.store(), 20)
	chid := d.open(t)
	g.reached()
	d.atI.saw(t, "Accept")
	d.atR.saw(t, "Accept")
	require.NoError(t, d.actor(byInitiator).end(d.ctx, chid))
	require.Equal(t, "Cancelled", d.atI.ended(t).status)
	require.Equal(t, "Cancelled", d.atR.ended(t).status)
	g.move(1 << 30)
}

func restart(t *testing.T, d *trade, byInitiator bool) {
	g := newGate(d.sender.store(), 20)
	chid := d.open(t)
	g.reached()
	d.atI.saw(t, "Accept")
	d.atR.saw(t, "Accept")
	require.Eventually(t, func() bool { return d.recipient.store().Len() == 19 }, 5*time.Second, time.Millisecond)
	a, b := d.initiator.host(), d.responder.host()
	require.NoError(t, a.Network().ClosePeer(b.ID()))
	time.Sleep(200 * time.Millisecond) // both sides notice
	require.NoError(t, a.Connect(d.ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
	// A v2 sender does not end its first answer when it is asked again: it has to come to its own end.
	g.move(1)
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, d.actor(byInitiator).restart(d.ctx, chid))
	time.Sleep(100 * time.Millisecond)
	g.move(1 << 30)
	d.complete(t)
}

// TestChecklist18 is number 18 of the checklist of the data-transfer specification.
func TestChecklist18(t *testing.T) {
	type maker func(context.Context, *testing.T) side
	for _, roles := range []struct {
		name                 string
		initiator, responder maker
	}{{"ours to v2", newOurs, newTheirs}, {"v2 to ours", newTheirs, newOurs}, {"v2 to ours, decided later", newTheirs, newLater}, {"ours to ours", newOurs, newOurs}} {
		for _, pull := range []bool{true, false} {
			name := roles.name + "/push"
			if pull {
				name = roles.name + "/pull"
			}
			for _, sc := range scenarios {
				t.Run(name+"/"+sc.name, func(t *testing.T) {
					ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
					t.Cleanup(stop)
					d := &trade{ctx: ctx, pull: pull, initiator: roles.initiator(ctx, t), responder: roles.responder(ctx, t)}
					d.sender, d.recipient = d.initiator, d.responder
					if pull {
						d.sender, d.recipient = d.responder, d.initiator
					}
					var err error
					d.root, d.total, err = d.sender.store().BuildDAG(leaves, leafSize, 5)
					require.NoError(t, err)
					d.initiator.accept(t, policy{})
					d.responder.accept(t, sc.policy)
					d.atI, d.atR = follow(d.initiator), follow(d.responder)
					t.Cleanup(func() {
						if t.Failed() {
							t.Logf("initiator %v %s %s", d.atI.lifecycle(), d.atI.last.status, d.atI.last.message)
							t.Logf("responder %v %s %s", d.atR.lifecycle(), d.atR.last.status, d.atR.last.message)
						}
					})
					b := d.responder.host()
					require.NoError(t, d.initiator.host().Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
					sc.run(t, d)
				})
			}
		}
	}
}
