package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/cartage-dev/cartage/gateway/x402"
)

// Bounds of waiting: payments of one channel, and any payment.
const (
	channelWaiting = 8
	patience       = 10 * time.Second
)

// How slowly a paid window may be taken: slowRate bytes a second, after a while to begin.
const (
	slowStart = 30 * time.Second
	slowRate  = 64 << 10
)

// till sells windows: one payment of a channel at a time, each committed before its bytes leave.
type till struct {
	cfg    *Config
	memory *semaphore.Weighted

	mu      sync.Mutex
	waiting int // for memory
	queues  map[string]*queue
}

// queue is who pays from one channel, first come first served.
type queue struct {
	turn  *semaphore.Weighted
	users int
}

func newTill(cfg *Config) *till {
	return &till{cfg: cfg, memory: semaphore.NewWeighted(cfg.Limits.Memory), queues: map[string]*queue{}}
}

func hasPayment(r *http.Request) bool {
	return r.Header.Get(x402.HeaderPayment) != "" || r.Header.Get(x402.HeaderPaymentV1) != ""
}

// admit lets a request in: one without a payment by its address, one with a payment unless too many of them failed.
func (t *till) admit(x *exchange) error {
	if !hasPayment(x.r) {
		return x.g.gate.admit(x.visitor)
	}
	if x.visitor.failures.Tokens() < 1 {
		t.cfg.Limits.reached(BoundFailedPayments)
		return tooMany("too many payments of this address were not taken").after(60 / max(1, t.cfg.Limits.FailedPayments))
	}
	return nil
}

// offers are all offers for n bytes.
func (t *till) offers(n uint64) (out []x402.Offer) {
	if t.cfg.Seller == nil {
		return nil
	}
	for _, c := range t.cfg.Seller.Cashiers {
		out = append(out, c.Offers(n)...)
	}
	return out
}

// isFree reports whether a body costs nothing.
func (t *till) isFree(b *body) bool {
	s := t.cfg.Seller
	return s == nil || s.Free != nil && s.Free(b.root, b.piece) || len(t.offers(perTiB)) == 0
}

// perTiB is the number of bytes that prices are given for.
const perTiB = 1 << 40

// priceHeader tells what a body costs: of a TiB, of a window, and of all of it.
func (t *till) priceHeader(h http.Header, b *body) {
	tib, window, total := t.offers(perTiB), t.offers(t.cfg.Limits.Window), t.offers(b.size)
	for i := range tib {
		if i >= len(window) || i >= len(total) {
			return // an ask changed between the calls
		}
		v := fmt.Sprintf("%q;tib=%s;window=%s", tib[i].Network+"/"+tib[i].Asset, tib[i].Amount, window[i].Amount)
		if !b.open {
			v += ";total=" + total[i].Amount.String()
		}
		h.Add("Cartage-Price", v)
	}
}

// sell answers a request for priced bytes.
func (t *till) sell(x *exchange, b *body, s stretch, partial bool) error {
	if !hasPayment(x.r) {
		if err := t.sellable(b, s); err != nil {
			return err
		}
		return t.challenge(x, b, s, x402.CodeRequired, "these bytes cost money")
	}
	p, draft, err := t.draft(x, b, s)
	if err != nil {
		return err
	}
	if !draft.Buys() {
		return t.refund(x, b, s, p, draft)
	}
	if err := t.sellable(b, s); err != nil {
		return err
	}
	leave, err := t.queue(x.r.Context(), x.channel)
	if err != nil {
		return err
	}
	sale, data, release, err := t.take(x, b, s, draft, p)
	leave()
	if err != nil {
		return t.refused(x, b, s, p, err)
	}
	defer release()
	return t.hand(x, b, s, partial, sale, data)
}

// draft reads the payment of a request.
func (t *till) draft(x *exchange, b *body, s stretch) (x402.Payment, Draft, error) {
	p, err := readPayment(x.r)
	if err != nil {
		return p, nil, err
	}
	draft, err := t.read(p)
	switch {
	case err != nil:
		return p, nil, t.refused(x, b, s, p, err)
	case draft == nil:
		return p, nil, t.challenge(x, b, s, x402.CodeTerms, "the payment takes none of the offers")
	}
	x.channel = draft.Channel()
	return p, draft, nil
}

// sellable refuses what cannot be bought at once.
func (t *till) sellable(b *body, s stretch) error {
	l := t.cfg.Limits
	if b.open {
		return fail(http.StatusBadRequest, WindowRequired, "this DAG is too large to be sold in one CAR").with("window", l.Window).with("maxWindow", l.MaxWindow).
			withHint("Ask for a file in it with entity-bytes=FROM:TO, for a path below, or for its blocks with format=raw.")
	}
	if s.len() <= l.MaxWindow {
		return nil
	}
	return fail(http.StatusBadRequest, WindowRequired, "%d bytes are more than the %d that are sold at once", s.len(), l.MaxWindow).
		with("length", b.size).with("window", l.Window).with("maxWindow", l.MaxWindow).with("example", fmt.Sprintf("Range: bytes=0-%d", l.Window-1)).
		withHint("Buy it window by window, with Range headers.")
}

// readPayment decodes the payment of a request.
func readPayment(r *http.Request) (x402.Payment, error) {
	text := r.Header.Get(x402.HeaderPayment)
	if text == "" {
		text = r.Header.Get(x402.HeaderPaymentV1)
	}
	p, err := x402.DecodePayment(text)
	if err != nil {
		return p, fail(http.StatusBadRequest, x402.CodeMalformed, "the payment cannot be read: %s", quoted(err.Error()))
	}
	return p, nil
}

// read finds the cashier of a payment.
func (t *till) read(p x402.Payment) (Draft, error) {
	for _, c := range t.cfg.Seller.Cashiers {
		if d, err := c.Read(p); d != nil || err != nil {
			return d, err
		}
	}
	return nil, nil
}

// channelBusy is the code of a channel of which too many payments come at once.
const channelBusy Code = "channel_busy"

func errBusy() error {
	return fail(http.StatusServiceUnavailable, channelBusy, "too many payments of this channel come at once").withHint("Nothing was charged. Send one at a time.").after(1)
}

// queue waits for the turn of a payment of a channel.
func (t *till) queue(ctx context.Context, channel string) (leave func(), err error) {
	t.mu.Lock()
	q := t.queues[channel]
	if q == nil {
		q = &queue{turn: semaphore.NewWeighted(1)}
		t.queues[channel] = q
	}
	if q.users > channelWaiting {
		t.mu.Unlock()
		return nil, errBusy()
	}
	q.users++
	t.mu.Unlock()
	gone := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if q.users--; q.users == 0 {
			delete(t.queues, channel)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := q.turn.Acquire(ctx, 1); err != nil {
		gone()
		return nil, errBusy()
	}
	return func() {
		q.turn.Release(1)
		gone()
	}, nil
}

// purchaseKey is the same for the same bytes under the same terms.
func purchaseKey(b *body, s stretch, o x402.Offer) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d\x00%s\x00%s\x00%s\x00%s", b.tag, s.from, s.to, o.Network, o.Asset, o.Amount, o.PayTo))
}

// take checks a payment, reads what it buys into memory, and commits. release gives the memory back.
func (t *till) take(x *exchange, b *body, s stretch, d Draft, p x402.Payment) (sale Sale, data []byte, release func(), err error) {
	ctx := x.r.Context()
	if sale, err = d.Check(ctx, Purchase{Bytes: s.len(), Key: purchaseKey(b, s, p.Accepted)}); err != nil {
		return sale, nil, nil, err
	}
	defer func() {
		if err != nil {
			t.spoil(x, sale)
		}
	}()
	if release, err = t.reserve(ctx, int64(s.len())); err != nil {
		return sale, nil, nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	// From here on a client that leaves changes nothing: it may ask again for what it has paid.
	ctx = context.WithoutCancel(ctx)
	if data, err = t.load(ctx, b, s); err != nil {
		return sale, nil, release, err
	}
	return sale, data, release, sale.Commit(ctx)
}

// load reads a window into memory.
func (t *till) load(ctx context.Context, b *body, s stretch) ([]byte, error) {
	var window bytes.Buffer
	window.Grow(int(s.len()))
	if err := b.write(ctx, &window, s); err != nil {
		return nil, err
	}
	if uint64(window.Len()) != s.len() {
		return nil, fmt.Errorf("a window of %d bytes has %d", s.len(), window.Len())
	}
	return window.Bytes(), nil
}

// reserve takes memory for a window.
func (t *till) reserve(ctx context.Context, n int64) (release func(), err error) {
	full := fail(http.StatusServiceUnavailable, Busy, "as many windows are being sent as can be").withHint("Nothing was charged. Wait, and ask again with the same payment.").after(5)
	t.mu.Lock()
	if t.waiting >= t.cfg.Limits.Waiting {
		t.mu.Unlock()
		t.cfg.Limits.reached(BoundMemory)
		return nil, full
	}
	t.waiting++
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = t.memory.Acquire(ctx, n)
	t.mu.Lock()
	t.waiting--
	t.mu.Unlock()
	if err != nil {
		t.cfg.Limits.reached(BoundMemory)
		return nil, full
	}
	return func() { t.memory.Release(n) }, nil
}

// hand answers with what was bought.
func (t *till) hand(x *exchange, b *body, s stretch, partial bool, sale Sale, data []byte) error {
	receipt, err := sale.Receipt.Encode()
	if err != nil {
		return err
	}
	x.charge, x.asset, x.replay = sale.Charge.String(), sale.Asset, sale.Replayed
	if sale.Replayed {
		x.charge = "0"
	}
	x.g.metrics.charged(sale)
	x.w.Header().Set(x402.HeaderReceipt, receipt)
	out := x.body(x.lengthHeaders(b, s, partial))
	// The window is in memory until it is taken: a client that is slower than this gives its place to others, and may ask again.
	out.end = time.Now().Add(slowStart + time.Duration(len(data))*time.Second/slowRate)
	if _, err := out.Write(data); err != nil {
		x.abort(err)
	}
	return nil
}
