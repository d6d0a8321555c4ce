package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/node/health"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/paych"
)

// checks are those of a node, in the order in which they are shown.
func (o *Overview) checks() []health.Check {
	return []health.Check{
		{ID: "home", Look: o.checkHome},
		{ID: "config", Look: o.checkConfig},
		{ID: "ledger", Look: o.checkLedger},
		{ID: "settle", Look: o.checkSettle},
		{ID: "reach", Look: o.checkReach},
		{ID: "port", Look: o.checkPort},
		{ID: "disk", Look: o.checkDisk},
		{ID: "store", Look: o.checkStore, Deep: o.readStores},
		{ID: "pieces", Look: o.checkPieces, Deep: o.readPieces},
		{ID: "wallet", Look: o.checkWallet},
		{ID: "peers", Look: o.checkPeers},
	}
}

// checkError is what an error makes of a check: its sentence, and what its reason says to do.
func checkError(state health.State, err error) health.Result {
	r := health.Result{State: state, Text: err.Error(), Fix: reason.From(err).Next()}
	var e *reason.Error
	if errors.As(err, &e) && e.Hint != "" {
		r.Fix = e.Hint
	}
	return r
}

func ok(format string, args ...any) health.Result {
	return health.Result{Text: fmt.Sprintf(format, args...)}
}

func (o *Overview) checkHome(context.Context) health.Result {
	return CheckHome(o.n.parts.Home.Dir, o.n.parts.Home.CheckPrivate())
}

// CheckHome is what the modes of a home make of its check.
func CheckHome(dir string, modes error) health.Result {
	if modes != nil {
		return checkError(health.Bad, modes)
	}
	return ok("%s, version %d, its secrets are closed to others", dir, homeVersion)
}

func (o *Overview) checkConfig(context.Context) health.Result {
	if _, err := o.n.parts.Home.Load(); err != nil {
		r := checkError(health.Bad, err)
		r.Fix = "correct config.toml: the node runs with what it read at its start"
		return r
	}
	return ok("config.toml can be read")
}

func (o *Overview) checkLedger(ctx context.Context) health.Result {
	if o.n.Payments == nil {
		return ok("none: free deals only")
	}
	_, epoch, err := o.n.Payments.Head(ctx)
	if err != nil {
		return checkError(health.Bad, err)
	}
	return ok("answers at %s, epoch %d", o.n.chainName(), epoch)
}

func (o *Overview) checkSettle(ctx context.Context) health.Result {
	if o.n.Payments == nil {
		return ok("no ledger: nothing to watch")
	}
	t, err := o.n.Payments.Timing(ctx)
	if err != nil {
		return checkError(health.Unknown, fmt.Errorf("the settle window is not known: %w", err))
	}
	if err := o.n.Payments.CheckWindow(ctx); err != nil && o.n.Provider != nil {
		return checkError(health.Bad, err)
	}
	w := o.n.watched.Load()
	switch {
	case !o.running.Load():
		return ok("window %s; nobody watches while no daemon runs", t.Window())
	case w == nil && time.Since(o.begun) < lateTicks*time.Minute:
		return ok("window %s; the first look is due", t.Window())
	case w == nil:
		return health.Result{State: health.Bad, Text: "the payment channels were never looked at", Fix: reason.LedgerAway.Next()}
	case time.Since(w.at) > lateTicks*w.period+time.Second:
		return health.Result{State: health.Bad, Text: fmt.Sprintf("the payment channels were last looked at %s ago, every %s is due", time.Since(w.at).Round(time.Second), w.period)}
	case errors.Is(w.err, paych.ErrLost):
		return checkError(health.Bad, w.err)
	case w.err != nil:
		return health.Result{State: health.Warn, Text: fmt.Sprintf("the last look at the payment channels failed (%s)", reason.From(coded(w.err))), Fix: "cartage doctor ledger"}
	}
	return ok("looked at every %s of a %s window", w.period, t.Window())
}

// lateTicks is after how many periods without a look the settle watch is late.
const lateTicks = 2

func (o *Overview) checkReach(context.Context) health.Result {
	if o.n.Provider == nil {
		return ok("it provides nothing: nobody has to reach it")
	}
	private := ""
	for _, a := range o.n.Host.Addrs() {
		switch {
		case manet.IsPublicAddr(a):
			return ok("public: %s", a)
		case !manet.IsIPLoopback(a):
			private = a.String()
		}
	}
	if private != "" {
		return health.Result{State: health.Warn, Text: "no public address; in its own network: " + private, Fix: "forward the port, and add the public address to network.listen"}
	}
	return health.Result{State: health.Warn, Text: "only programs of this machine can reach it", Fix: "listen for others: cartage daemon --listen /ip4/0.0.0.0/tcp/7110"}
}

func (o *Overview) checkPort(context.Context) health.Result {
	have := o.n.Host.Network().ListenAddresses()
	if o.n.parts.Reading || !o.running.Load() {
		return ok("no daemon runs: it listens for nobody")
	}
	if wanted := o.n.parts.listenAddrs(); len(have) < len(wanted) {
		return health.Result{State: health.Bad, Text: fmt.Sprintf("it listens on %d of %d addresses", len(have), len(wanted)), Fix: "restart the daemon"}
	}
	return ok("%v", have[0])
}

func (o *Overview) checkDisk(context.Context) health.Result {
	dir := o.n.parts.Home.Dir
	free, _, known := blob.Free(dir)
	if !known {
		return health.Result{State: health.Unknown, Text: "this system does not say how much is free"}
	}
	text := fmt.Sprintf("%.1f GiB free", gib(free))
	if total, known := blob.Total(dir); known {
		text += fmt.Sprintf(" of %.1f GiB", gib(total))
	}
	if err := store.Room(dir); err != nil {
		return health.Result{State: health.Bad, Text: text + "; no new deal is taken, and nothing is written", Fix: reason.DiskFull.Next()}
	}
	if err := o.n.takesDeals(); err != nil {
		return health.Result{State: health.Bad, Text: text + "; " + err.Error(), Fix: reason.From(err).Next()}
	}
	if free < nearFull {
		return health.Result{State: health.Warn, Text: fmt.Sprintf("%s; new deals stop at %d MiB", text, store.Reserve>>20), Fix: reason.DiskFull.Next()}
	}
	return ok("%s; new deals stop at %d MiB", text, store.Reserve>>20)
}

func gib(n uint64) float64 { return float64(n) / (1 << 30) }

// nearFull is how much has to be free for the disk to be well.
const nearFull = 1 << 30

func (o *Overview) checkStore(context.Context) health.Result {
	if err := store.Failed(o.n.parts.State); err != nil {
		return checkError(health.Bad, err)
	}
	return ok("no fault was met")
}

func (o *Overview) readStores(ctx context.Context) health.Result {
	sum, err := store.Verify(ctx, o.n.parts.State)
	if err != nil {
		r := checkError(health.Bad, err)
		r.Fix += "; cartage doctor --rescue shows what can be read"
		return r
	}
	return ok("%d records in %d tables were read", sum.Records, sum.Tables)
}

func (o *Overview) checkPieces(context.Context) health.Result {
	list, err := o.n.Pieces.List()
	if err != nil {
		return checkError(health.Bad, err)
	}
	bad := 0
	for _, sh := range list {
		if sh.State == dagstore.StateErrored {
			bad++
		}
	}
	if bad > 0 {
		return health.Result{State: health.Bad, Text: fmt.Sprintf("%d of %d have failed", bad, len(list)), Fix: "cartage pieces says which, cartage doctor pieces why"}
	}
	return ok("%d, none has failed", len(list))
}

func (o *Overview) readPieces(ctx context.Context) health.Result {
	list, err := o.n.Pieces.List()
	if err != nil {
		return checkError(health.Bad, err)
	}
	r := ok("%d were looked at", len(list))
	found := 0
	for f, err := range o.n.Pieces.Doctor(ctx) {
		if err != nil {
			return checkError(health.Bad, err)
		}
		if found++; found == 1 {
			r = health.Result{State: health.Bad, Text: fmt.Sprintf("%s: %s: %s", f.Piece, f.Reason, f.Detail), Fix: f.Repair}
		}
	}
	if found > 1 {
		r.Text += fmt.Sprintf("; and %d more: cartage dagstore doctor lists them", found-1)
	}
	return r
}

func (o *Overview) checkWallet(context.Context) health.Result {
	a, err := o.n.wallet()
	if err != nil {
		return checkError(health.Bad, err)
	}
	return ok("pays and is paid as %s", a)
}

func (o *Overview) checkPeers(context.Context) health.Result {
	hour := o.ended.Last(time.Now(), 1)
	if hour.Total() >= fewEnds && hour.Ours*5 > hour.Total() {
		return health.Result{State: health.Warn, Text: fmt.Sprintf("%d of %d deals of this hour ended by a fault of this node", hour.Ours, hour.Total()), Fix: "cartage deals says which; the log has the causes"}
	}
	return ok("%d deals ended in this hour, %d by a fault of this node", hour.Total(), hour.Ours)
}

// fewEnds is how many deals have to end before a share of them says anything.
const fewEnds = 5
