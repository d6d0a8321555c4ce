package node

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/cartage-dev/cartage/internal/node/health"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Ops serves those who watch a node, without a token: /healthz, /readyz and /metrics, which name no peer, deal or token; and on an address of its
// own the profiler of Go.
type Ops struct {
	watch, profile net.Listener // nil: not served
	n              *Node
}

// OpenOps listens where the configuration says. A port that is taken is an error.
func OpenOps(ctx context.Context, n *Node) (*Ops, error) {
	o := &Ops{n: n}
	var err error
	c := n.parts.Config.Network
	if o.watch, err = listenAt(ctx, "network.ops", c.Ops); err != nil {
		return nil, err
	}
	if o.profile, err = listenAt(ctx, "network.pprof", c.PProf); err != nil {
		return nil, errors.Join(err, o.close())
	}
	if a := o.profile; a != nil && !a.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return nil, errors.Join(reason.ConfigValue.Errorf("network.pprof is %s, it must be an address of the loopback device", c.PProf), o.close())
	}
	return o, nil
}

// listenAt listens on an address that a key of the configuration names; nil if it names none.
func listenAt(ctx context.Context, key, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, reason.PortBusy.Errorf("%s: %w", key, err).WithHint("Choose another address: cartage config set " + key + " 127.0.0.1:PORT.")
	}
	return ln, nil
}

// ListenAPI listens for calls of the API where the configuration says.
func (s Settings) ListenAPI(ctx context.Context) (net.Listener, error) {
	return listenAt(ctx, "network.api", s.Config().Network.API)
}

func (o *Ops) close() error {
	var errs []error
	for _, ln := range []net.Listener{o.watch, o.profile} {
		if ln != nil {
			errs = append(errs, ln.Close())
		}
	}
	return errors.Join(errs...)
}

// URL is where the node is watched; empty: nowhere.
func (o *Ops) URL() string {
	if o.watch == nil {
		return ""
	}
	return "http://" + o.watch.Addr().String()
}

// Serve answers in the background until ctx ends; the function that it returns waits for that.
func (o *Ops) Serve(ctx context.Context) func() {
	watch := http.NewServeMux()
	watch.Handle("GET /metrics", o.n.metrics())
	watch.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	watch.HandleFunc("GET /readyz", o.ready)
	profile := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace} {
		profile.Handle(path, h)
	}
	waits := []func(){serveUntil(ctx, o.watch, watch), serveUntil(ctx, o.profile, profile)}
	return func() {
		for _, wait := range waits {
			wait()
		}
	}
}

// serveUntil serves a listener, if there is one, until ctx ends.
func serveUntil(ctx context.Context, ln net.Listener, h http.Handler) (wait func()) {
	if ln == nil {
		return func() {}
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() {
		defer close(ended)
		_ = srv.Serve(ln)
	}()
	return func() {
		if stop() {
			_ = srv.Close()
		}
		<-ended
	}
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready  bool     `json:"ready"`
	Failed []string `json:"failed,omitempty"`
}

// ready answers 200 when what a node needs to serve is well, and 503 with what is not.
func (o *Ops) ready(w http.ResponseWriter, r *http.Request) {
	needs := []string{"home", "store", "port"}
	if o.n.Provider != nil && !o.n.asks.GetAsk().PricePerByte.NilOrZero() {
		needs = append(needs, "ledger")
	}
	answer := readiness{Ready: true}
	for _, c := range o.n.overview.monitor.Look(r.Context(), false, needs...) {
		if c.State == health.Bad {
			answer.Ready, answer.Failed = false, append(answer.Failed, c.ID)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer)
}
