// Package limits is the one registry of what a node lets others cost it. A limit has a name, a default, a hard cap, a unit and a reason;
// the code that enforces it reads its value here and counts here how often it was reached. `cartage limits` and the configuration
// are made from the same list.
package limits

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Unit is what a value counts.
type Unit uint8

// The units.
const (
	Count Unit = iota
	Bytes
	Duration // in nanoseconds
)

// Name is the key of a limit in the table [limits] of the configuration.
type Name string

// The limits.
const (
	ConnsNode      Name = "conns_node"
	ConnsPeer      Name = "conns_peer"
	ConnsAddress   Name = "conns_address"
	StreamsNode    Name = "streams_node"
	StreamsPeer    Name = "streams_peer"
	DealsNode      Name = "deals_node"
	DealsPeer      Name = "deals_peer"
	RestartBurst   Name = "restart_burst"
	RestartEvery   Name = "restart_every"
	Yield          Name = "yield"
	MemoryNode     Name = "memory_node"
	MemoryPeer     Name = "memory_peer"
	GraphsyncDeals Name = "graphsync_deals"
	RPCConns       Name = "rpc_conns"
	RPCBody        Name = "rpc_body"
	RefusedTokens  Name = "refused_tokens"
)

// definition is a row of the registry.
type definition struct {
	name     Name
	unit     Unit
	min, def int64
	max      int64
	code     reason.Reason // what is told when it is reached
	doc      string
}

// definitions are all limits, in the order in which they are shown.
func definitions() []definition {
	const mib = 1 << 20
	return append([]definition{
		{ConnsNode, Count, 1, 1024, 65536, reason.NodeLimit, "connections of others at once"},
		{ConnsPeer, Count, 1, 8, 64, reason.PeerLimit, "connections of one peer at once"},
		{ConnsAddress, Count, 1, 64, 4096, reason.PeerLimit, "connections from one IPv4 address or IPv6 /56 at once"},
		{StreamsNode, Count, 1, 8192, 262144, reason.NodeLimit, "streams of others at once"},
		{StreamsPeer, Count, 1, 256, 4096, reason.PeerLimit, "streams of one peer at once; a deal has one, and its messages and queries one each for a moment"},
		{DealsNode, Count, 1, 4096, 100_000, reason.NodeLimit, "transfers that are answered at once"},
		{DealsPeer, Count, 1, 64, 1024, reason.PeerLimit, "transfers of one peer that are answered at once"},
		{Yield, Duration, 1, int64(60 * time.Second), int64(time.Hour), reason.Idle, "a transfer on which nothing moves for so long yields its place when others wait"},
		{RestartBurst, Count, 1, 16, 256, reason.PeerLimit, "restarts of a transfer that are taken at once"},
		{RestartEvery, Duration, 1, int64(5 * time.Second), int64(time.Minute), reason.PeerLimit, "and one more after each such time"},
		{MemoryNode, Bytes, 1, 256 * mib, 4096 * mib, reason.MemoryLimit, "memory for blocks that are being sent over streams, of all transfers"},
		{MemoryPeer, Bytes, 1, 16 * mib, 256 * mib, reason.MemoryLimit, "and of one peer"},
		{GraphsyncDeals, Count, 1, 64, 1024, reason.NodeLimit, "requests of graphsync that are served at once; others wait in line"},
		{RPCConns, Count, 1, 64, 1024, reason.NodeLimit, "connections to the API at once"},
		{RPCBody, Bytes, 1, 1 * mib, 16 * mib, reason.Usage, "bytes of a call of the API"},
		{RefusedTokens, Count, 1, 60, 10_000, reason.NodeLimit, "calls a minute with a token that opens nothing which are told why; others are told to wait"},
	}, append(shapeDefinitions(), gatewayDefinitions()...)...)
}

// Row is a limit as it is shown.
type Row struct {
	Name   Name
	Unit   Unit
	Value  int64
	Min    int64
	Max    int64 // hard cap
	Origin string
	InUse  int64 // -1: it is not counted
	Hits   uint64
	Code   reason.Reason
	Doc    string
}

// Fixed reports whether no configuration changes the limit: both sides of a protocol count on it.
func (r Row) Fixed() bool { return r.Min == r.Max }

// limit is a limit in force.
type limit struct {
	definition
	value  int64
	origin string
	hits   atomic.Uint64
	use    atomic.Pointer[func() int64]
}

// Registry has the limits in force of one node. It is safe for concurrent use.
type Registry struct {
	byName map[Name]*limit
	order  []*limit
}

// Default has every limit at its default.
func Default() *Registry {
	r := &Registry{byName: map[Name]*limit{}}
	for _, d := range definitions() {
		l := &limit{definition: d, value: d.def, origin: "default"}
		r.byName[d.name], r.order = l, append(r.order, l)
	}
	return r
}

// New takes over values of a configuration, as numbers or as text with a unit ("256MiB", "30s"); origin says where one stands. All faults are
// told at once: a name that does not exist, a value that does not parse, or one outside its bounds.
func New(values map[string]any, origin func(Name) string) (*Registry, error) {
	r := Default()
	var faults []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name := Name(key)
		l := r.byName[name]
		if l == nil {
			faults = append(faults, fmt.Sprintf("limits.%s is not a key: cartage limits lists them", name))
			continue
		}
		v, err := l.unit.Parse(values[key])
		switch {
		case err != nil:
			faults = append(faults, fmt.Sprintf("limits.%s: %v", name, err))
		case v < l.min || v > l.max:
			faults = append(faults, fmt.Sprintf("limits.%s is %s, it must be between %s and %s", name, l.unit.Format(v), l.unit.Format(l.min), l.unit.Format(l.max)))
		default:
			l.value, l.origin = v, origin(name)
		}
	}
	if len(faults) > 0 {
		return nil, reason.ConfigValue.Errorf("%s", strings.Join(faults, "; "))
	}
	return r, nil
}

// Value is a limit in force. A name that was not defined is a fault of the program.
func (r *Registry) Value(n Name) int64 { return r.byName[n].value }

// Int is Value as an int.
func (r *Registry) Int(n Name) int { return int(r.Value(n)) }

// Duration is Value as a time.
func (r *Registry) Duration(n Name) time.Duration { return time.Duration(r.Value(n)) }

// Hit counts that a limit was reached, and returns the refusal for the one who reached it.
func (r *Registry) Hit(n Name) error {
	l := r.byName[n]
	l.hits.Add(1)
	return l.code.Errorf("%s: the limit %s is %s", l.code.Error(), l.name, l.unit.Format(l.value))
}

// Use tells the registry how to see how much of a limit is in use.
func (r *Registry) Use(n Name, f func() int64) { r.byName[n].use.Store(&f) }

// Rows are all limits with what is in use.
func (r *Registry) Rows() []Row {
	out := make([]Row, 0, len(r.order))
	for _, l := range r.order {
		row := Row{Name: l.name, Unit: l.unit, Value: l.value, Min: l.min, Max: l.max, Origin: l.origin, InUse: -1, Hits: l.hits.Load(), Code: l.code, Doc: l.doc}
		if f := l.use.Load(); f != nil {
			row.InUse = (*f)()
		}
		out = append(out, row)
	}
	return out
}

// sizes are the units of bytes, the largest first.
var sizes = [...]struct {
	suffix string
	shift  int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// Format is a value for a person.
func (u Unit) Format(v int64) string {
	switch u {
	case Duration:
		text := time.Duration(v).String()
		if head, ok := strings.CutSuffix(text, "m0s"); ok {
			text = head + "m"
		}
		if head, ok := strings.CutSuffix(text, "h0m"); ok {
			text = head + "h"
		}
		return text
	case Bytes:
		for _, s := range sizes {
			if v != 0 && v%(1<<s.shift) == 0 {
				return strconv.FormatInt(v>>s.shift, 10) + s.suffix
			}
		}
	}
	return strconv.FormatInt(v, 10)
}

// Parse reads a value of a configuration: a number, or a text with a unit ("256MiB", "30s").
func (u Unit) Parse(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		if u == Duration {
			return 0, fmt.Errorf("%d has no unit: say for example \"30s\"", v)
		}
		return v, nil
	case string:
		if u == Duration {
			d, err := time.ParseDuration(v)
			return int64(d), err
		}
		return parseSize(v, u)
	}
	return 0, fmt.Errorf("%v is neither a number nor a text", v)
}

func parseSize(text string, u Unit) (int64, error) {
	shift := 0
	for _, s := range sizes {
		if head, ok := strings.CutSuffix(text, s.suffix); ok && u == Bytes {
			text, shift = strings.TrimSpace(head), s.shift
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<(62-shift) {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return n << shift, nil
}
