package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// accessLog writes a JSON object a line for each request. Addresses are cut to their network, channels to a few characters.
type accessLog struct {
	mu sync.Mutex
	w  io.Writer
}

func newAccessLog(w io.Writer) *accessLog { return &accessLog{w: w} }

// accessLine is a line of the log.
type accessLine struct {
	Time    time.Time `json:"time"`
	ID      string    `json:"id"`
	IP      string    `json:"ip"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Status  int       `json:"status"`
	Bytes   uint64    `json:"bytes"`
	Millis  int64     `json:"ms"`
	Tier    tier      `json:"tier"`
	Charge  string    `json:"charge,omitempty"`
	Asset   string    `json:"asset,omitempty"`
	Channel string    `json:"channel,omitempty"`
	Replay  bool      `json:"replay,omitempty"`
	Range   string    `json:"range,omitempty"`
	Agent   string    `json:"ua,omitempty"`
	Code    Code      `json:"code,omitempty"`
}

// shownCharacters of a channel or a header are written down.
const (
	shownChannel = 8
	shownText    = 200
)

func (l *accessLog) write(x *exchange, took time.Duration) {
	if l.w == nil {
		return
	}
	line := accessLine{Time: x.began.UTC(), ID: x.id, IP: networkOf(x.addr), Method: x.r.Method, Path: cut(x.r.URL.Path, 2*maxPath), Status: x.code, Bytes: x.sent, Millis: took.Milliseconds(),
		Tier: x.tier, Charge: x.charge, Asset: x.asset, Channel: cut(x.channel, shownChannel), Replay: x.replay, Range: cut(x.r.Header.Get("Range"), shownText),
		Agent: cut(x.r.UserAgent(), shownText), Code: x.failure}
	data, err := json.Marshal(line)
	if err != nil {
		return // no field of it can fail
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(append(data, '\n')) // a full disk does not stop answers
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// networkOf is the network of an address as it is written down: an IPv4 /24 or an IPv6 /48.
func networkOf(a netip.Addr) string {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// metrics are the counters of a gateway. No label has a CID or an address.
type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	plans    *prometheus.CounterVec
	payments *prometheus.CounterVec
	refused  *prometheus.CounterVec
	units    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("cartage_gateway_requests_total", "Requests by route, status and tier.", "route", "status", "tier"),
		bytes:    counter("cartage_gateway_bytes_total", "Bytes of bodies by route and tier.", "route", "tier"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cartage_gateway_duration_seconds", Help: "How long answers took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}, []string{"route", "tier"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cartage_gateway_in_flight", Help: "Requests that are being answered."}),
		plans:    counter("cartage_gateway_plans_total", "Plans of CARs by what they came to.", "result"),
		payments: counter("cartage_payment_total", "Payments that were taken over HTTP, and those that were answered again.", "outcome"),
		refused:  counter("cartage_payment_refused_total", "Requests that were answered with a challenge, by its code.", "code"),
		units:    counter("cartage_charged_units_total", "What was charged over HTTP, in the smallest unit of the asset.", "asset"),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.bytes, m.seconds, m.inFlight, m.plans, m.payments, m.refused, m.units} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) begin(*exchange) { m.inFlight.Inc() }

func (m *metrics) end(x *exchange, took time.Duration) {
	m.inFlight.Dec()
	m.requests.WithLabelValues(x.route, strconv.Itoa(x.code), string(x.tier)).Inc()
	m.bytes.WithLabelValues(x.route, string(x.tier)).Add(float64(x.sent))
	m.seconds.WithLabelValues(x.route, string(x.tier)).Observe(took.Seconds())
}

func (m *metrics) planned(p *plan, err error) {
	result := "closed"
	switch {
	case err != nil:
		result = "failed"
	case p.open:
		result = "open"
	}
	m.plans.WithLabelValues(result).Inc()
}

func (m *metrics) charged(s Sale) {
	if s.Replayed {
		m.payments.WithLabelValues("replayed").Inc()
		return
	}
	m.payments.WithLabelValues("applied").Inc()
	units, _ := new(big.Float).SetInt(s.Charge.Int()).Float64()
	m.units.WithLabelValues(s.Asset).Add(units)
}

func (m *metrics) refusedPayment(code string) { m.refused.WithLabelValues(code).Inc() }
