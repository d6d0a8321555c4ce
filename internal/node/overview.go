package node

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node/health"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// homeVersion is the version of homes that this program makes and opens.
const homeVersion = 1

// Overview answers how a node stands: its checks, and sums over what it does. It is safe for concurrent use.
type Overview struct {
	n       *Node
	begun   time.Time
	monitor *health.Monitor
	ended   health.Tally // deals
	running atomic.Bool  // others can reach the node
	rates   struct {
		sync.Mutex
		last moved
	}
}

func newOverview(n *Node) *Overview {
	o := &Overview{n: n, begun: time.Now()}
	o.monitor = health.NewMonitor(o.checks(), nil)
	n.Client.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if clientstates.IsFinal(d.Status) {
			why := clientstates.ReasonOf(&d)
			n.limits.Ended(why)
			o.ended.Add(time.Now(), endOf(d.Status, why.Blame()))
		}
	})
	if n.Provider != nil {
		n.Provider.SubscribeToEvents(func(_ rm.ProviderEvent, d rm.ProviderDealState) {
			if clientstates.IsFinal(d.Status) {
				o.ended.Add(time.Now(), endOf(d.Status, reason.Nobody))
			}
		})
	}
	return o
}

// endOf is how one deal has ended. A record of a provider does not say whose fault it was.
func endOf(s rm.DealStatus, blame reason.Blame) health.Counts {
	switch {
	case s == rm.DealStatusCompleted:
		return health.Counts{Well: 1}
	case blame == reason.Ours:
		return health.Counts{Ours: 1}
	case blame == reason.Theirs:
		return health.Counts{Theirs: 1}
	case blame == reason.Network:
		return health.Counts{Network: 1}
	}
	return health.Counts{Unclear: 1}
}

// keep takes the checks every 30 seconds for as long as the node runs.
func (o *Overview) keep() {
	o.running.Store(true)
	o.n.wg.Go(func() { o.monitor.Keep(o.n.ctx) })
}

// Version answers Cartage.Version.
func (o *Overview) Version(context.Context) (*api.Version, error) {
	v := BuildVersion(o.n.parts.Version)
	v.Protocols = protocol.ConvertToStrings(o.n.Host.Mux().Protocols())
	slices.Sort(v.Protocols)
	return &v, nil
}

// BuildVersion is what a program knows of itself; version is what its build was told.
func BuildVersion(version string) api.Version {
	v := api.Version{Version: version, Go: runtime.Version(), Home: homeVersion}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			v.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	if v.Commit != "" {
		v.Commit += changed
	}
	return v
}

// Doctor answers Cartage.Doctor.
func (o *Overview) Doctor(ctx context.Context, r api.DoctorRequest) ([]api.Check, error) {
	names := o.monitor.Names()
	for _, c := range r.Checks {
		if !slices.Contains(names, c) {
			return nil, coded(reason.Usage.Errorf("there is no check %q", c).WithHint("The checks are " + strings.Join(names, ", ") + "."))
		}
	}
	return checksOf(o.monitor.Look(ctx, r.Deep, r.Checks...)), nil
}

func checksOf(results []health.Result) []api.Check {
	out := make([]api.Check, 0, len(results))
	for _, r := range results {
		out = append(out, api.Check{ID: r.ID, State: r.State.String(), Text: r.Text, Fix: r.Fix, Since: r.Since.UTC().Format(time.RFC3339)})
	}
	return out
}
