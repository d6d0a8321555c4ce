package node

import (
	"math/big"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cartage-dev/cartage/dagstore"
)

// metrics answers GET /metrics: how the node stands, for Prometheus. Nothing is measured but when it is asked for.
func (n *Node) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{n})
	return promhttp.HandlerFor(prometheus.Gatherers{r, n.registry}, promhttp.HandlerOpts{})
}

// Collector has the numbers of the node, for a registry of the caller's.
func (n *Node) Collector() prometheus.Collector { return collector{n} }

// metric is a number of the dagstore.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	of         func(dagstore.Stats) float64
}

func (m metric) desc() *prometheus.Desc {
	return prometheus.NewDesc("cartage_dagstore_"+m.name, m.help, nil, nil)
}

// dagstoreMetrics are those of R-N20.
func dagstoreMetrics() []metric {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	return []metric{
		{"lookups_total", "Look-ups of blocks by multihash.", counter, func(s dagstore.Stats) float64 { return float64(s.Lookups) }},
		{"lookup_hits_total", "Look-ups that found a piece.", counter, func(s dagstore.Stats) float64 { return float64(s.Hits) }},
		{"filter_rejections_total", "Look-ups of tables that a filter answered.", counter, func(s dagstore.Stats) float64 { return float64(s.FilterRejections) }},
		{"filter_passes_total", "Look-ups of tables that a filter let through.", counter, func(s dagstore.Stats) float64 { return float64(s.FilterPasses) }},
		{"open_readers", "Open files of pieces.", gauge, func(s dagstore.Stats) float64 { return float64(s.OpenReaders) }},
		{"index_jobs_running", "Pieces that are read for their index.", gauge, func(s dagstore.Stats) float64 { return float64(s.JobsRunning) }},
		{"index_jobs_queued", "Pieces that wait to be read for their index.", gauge, func(s dagstore.Stats) float64 { return float64(s.JobsQueued) }},
		{"index_records_total", "Records that were indexed.", counter, func(s dagstore.Stats) float64 { return float64(s.Records) }},
		{"index_seconds_total", "Time that reading pieces for their index took.", counter, func(s dagstore.Stats) float64 { return s.IndexTime.Seconds() }},
		{"index_bytes", "Bytes that the index takes on disk.", gauge, func(s dagstore.Stats) float64 { return float64(s.IndexBytes) }},
	}
}

// Descriptions of what has labels.
func failureDesc() *prometheus.Desc {
	return prometheus.NewDesc("cartage_dagstore_failures_total", "Failures by kind: a piece that could not be indexed, or opened, or a block that could not be read.", []string{"kind"}, nil)
}

func dealsDesc() *prometheus.Desc {
	return prometheus.NewDesc("cartage_deals_active", "Retrieval deals in progress.", []string{"role"}, nil)
}

func lostDesc() *prometheus.Desc {
	return prometheus.NewDesc("cartage_lost_units_total", "attoFIL that were vouchered to this node and not redeemed in time.", nil, nil)
}

// limitDesc describes what is known of each limit: how often it was reached, and what is in use.
func limitDesc(name string) *prometheus.Desc {
	help := map[string]string{"hits_total": "How often a limit was reached.", "use": "What is in use of a limit, in its unit."}
	return prometheus.NewDesc("cartage_limit_"+name, help[name], []string{"limit"}, nil)
}

// collector asks the parts of a node.
type collector struct{ n *Node }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range dagstoreMetrics() {
		out <- m.desc()
	}
	out <- failureDesc()
	out <- dealsDesc()
	out <- lostDesc()
	out <- limitDesc("hits_total")
	out <- limitDesc("use")
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s, err := c.n.Pieces.Stats()
	if err != nil {
		return // it ends
	}
	for _, m := range dagstoreMetrics() {
		out <- prometheus.MustNewConstMetric(m.desc(), m.kind, m.of(s))
	}
	for kind, n := range map[string]uint64{"index": s.InitFailures, "open": s.OpenFailures, "block": s.BlockFailures} {
		out <- prometheus.MustNewConstMetric(failureDesc(), prometheus.CounterValue, float64(n), kind)
	}
	out <- prometheus.MustNewConstMetric(dealsDesc(), prometheus.GaugeValue, float64(len(c.n.Client.ActiveDeals())), "client")
	c.collectLost(out)
	for _, r := range c.n.limits.Rows() {
		out <- prometheus.MustNewConstMetric(limitDesc("hits_total"), prometheus.CounterValue, float64(r.Hits), string(r.Name))
		if r.InUse >= 0 {
			out <- prometheus.MustNewConstMetric(limitDesc("use"), prometheus.GaugeValue, float64(r.InUse), string(r.Name))
		}
	}
	if c.n.Provider != nil {
		out <- prometheus.MustNewConstMetric(dealsDesc(), prometheus.GaugeValue, float64(c.n.Provider.Active()), "provider")
	}
}

func (c collector) collectLost(out chan<- prometheus.Metric) {
	if c.n.Payments == nil {
		return
	}
	if lost, err := c.n.Payments.Lost(c.n.ctx); err == nil {
		units, _ := new(big.Float).SetInt(lost.Int).Float64()
		out <- prometheus.MustNewConstMetric(lostDesc(), prometheus.CounterValue, units)
	}
}
