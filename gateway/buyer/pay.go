package buyer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
)

// more fetches the window that begins at a position of the CAR.
func (f *fetch) more(from uint64) ([]byte, error) {
	switch {
	case !f.quote.Ranges && f.quote.Free:
		return f.streamed(from)
	case !f.quote.Ranges:
		return nil, reason.PeerRefused.Errorf("the gateway sells no ranges of this DAG: it is too large").WithHint("Buy a part of it: CID/PATH, or a file with --range.")
	case from >= f.quote.Size:
		return nil, io.ErrUnexpectedEOF
	}
	if data, err := f.resume(from); data != nil || err != nil {
		return data, err
	}
	to := min(f.quote.Size, from+f.window)
	if f.quote.Free {
		return f.free(from, to)
	}
	if f.order.Purse == nil {
		return nil, reason.PriceAbove.Errorf("this costs %s, and no budget was given", f.quote.costs()).WithHint("Allow it with --budget.")
	}
	return f.buy(from, to)
}

// free fetches a window that costs nothing.
func (f *fetch) free(from, to uint64) ([]byte, error) {
	resp, err := f.get(f.ctx, from, to, nil)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	return f.body(resp, from, to)
}

// costs is what all of it costs, for people.
func (q Quote) costs() string {
	var out []string
	for _, p := range q.Prices {
		out = append(out, p.Total.String()+" "+p.Asset)
	}
	return strings.Join(out, " or ")
}

// refused is a payment that a gateway did not take.
type refused struct {
	code, message string
	status        int
}

// Error implements error.
func (r *refused) Error() string { return "the gateway did not take the payment: " + r.code }

// resume asks for what an earlier run has paid for, if it may not have come: first, and as it was.
func (f *fetch) resume(from uint64) ([]byte, error) {
	if f.resumed || f.order.Purse == nil {
		return nil, nil
	}
	f.resumed = true
	last, err := f.order.Purse.Last(f.ctx)
	if err != nil || last == nil {
		return nil, err
	}
	wanted := last.From <= from && from < last.To
	if last.Done && !wanted || last.To > f.quote.Size {
		return nil, nil
	}
	data, err := f.claim(last)
	var no *refused
	switch {
	case errors.As(err, &no): // it is too late for it
		return nil, f.order.Purse.Renew(f.ctx)
	case err != nil || !wanted:
		return nil, err
	}
	return data[from-last.From:], nil
}

// buy pays for a window and fetches it.
func (f *fetch) buy(from, to uint64) ([]byte, error) {
	for {
		o, rate, err := f.offer(from, to)
		if err != nil {
			return nil, err
		}
		signed, err := f.order.Purse.Sign(f.ctx, o, from, to, rate.Ceiling(f.quote.Size-from))
		if err != nil {
			return nil, err
		}
		f.progress.Windows++
		f.progress.Paid = big.Add(f.progress.Paid, big.NewFromGo(o.Amount.Int()))
		data, err := f.claim(signed)
		var no *refused
		if !errors.As(err, &no) {
			return data, err
		}
		if f.renewed {
			return nil, reason.PeerRefused.Errorf("the gateway does not take payments: %s", no.code).FromPeer(no.message)
		}
		if err := f.order.Purse.Renew(f.ctx); err != nil {
			return nil, err
		}
		f.renewed, f.pattern = true, nil
	}
}

// offerTime is how long an offer is taken as a pattern for the windows that follow. Gateways take their prices for ten minutes.
const offerTime = 5 * time.Minute

// offer is the offer for a window: that of the window before, as long as its price holds, else one that the gateway is asked for.
func (f *fetch) offer(from, to uint64) (x402.Offer, accounting.Rate, error) {
	if f.pattern != nil && time.Since(f.offered) < offerTime {
		o := *f.pattern
		amount, err := x402.NewAmount(f.patternRate.Ceiling(to - from).Int)
		o.Amount = amount
		return o, f.patternRate, err
	}
	o, rate, err := f.ask(from, to)
	if err == nil && rate.Ceiling(to-from).Equals(big.NewFromGo(o.Amount.Int())) {
		f.pattern, f.patternRate, f.offered = &o, rate, time.Now()
	}
	return o, rate, err
}

// ask asks for the offers for a window, and takes the first that the purse can pay; rate is its price.
func (f *fetch) ask(from, to uint64) (x402.Offer, accounting.Rate, error) {
	resp, err := f.get(f.ctx, from, to, nil)
	if err != nil {
		return x402.Offer{}, accounting.Rate{}, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusPaymentRequired {
		return x402.Offer{}, accounting.Rate{}, statusError(f.base, resp, readMessage(resp))
	}
	c, err := x402.DecodeChallenge(resp.Header.Get(x402.HeaderRequired))
	if err != nil {
		return x402.Offer{}, accounting.Rate{}, reason.PeerFailed.Errorf("the gateway's challenge cannot be read: %w", err)
	}
	for _, o := range c.Accepts {
		if !f.order.Purse.Takes(o) {
			continue
		}
		rate, err := f.rate(o, to-from)
		return o, rate, err
	}
	return x402.Offer{}, accounting.Rate{}, reason.PeerRefused.Errorf("none of the gateway's %d ways to pay can be used here", len(c.Accepts)).
		WithHint("It has to be paid on the ledger of this node: cartage info.")
}

// rate is the price of an offer. An offer above the price that was quoted is refused: it would cost more than anybody said.
func (f *fetch) rate(o x402.Offer, n uint64) (accounting.Rate, error) {
	for _, p := range f.quote.Prices {
		if p.Asset != o.Network+"/"+o.Asset {
			continue
		}
		rate := accounting.Rate{PerTiB: big.NewFromGo(p.TiB.Int())}
		if asked := big.NewFromGo(o.Amount.Int()); asked.GreaterThan(rate.Ceiling(n)) {
			return rate, reason.PriceAbove.Errorf("the gateway asks %s for %d bytes, and has quoted %s", asked, n, rate.Ceiling(n)).WithHint("Its price has changed: run the command again.")
		}
		return rate, nil
	}
	return accounting.Rate{}, reason.PeerFailed.Errorf("the gateway offers %s on %s, which it has not quoted", o.Asset, o.Network)
}

// claim sends a request that was paid for until its bytes are here. The gateway charges it once.
func (f *fetch) claim(s *Signed) ([]byte, error) {
	text, err := s.Payment.Encode()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		data, err := f.claimOnce(s, text)
		var no *refused
		if err == nil || try == maxClaims || errors.As(err, &no) || f.ctx.Err() != nil {
			return data, err
		}
		f.b.cfg.Log.Warn("a window that is paid for did not come whole; asking again", "from", s.From, "error", err)
	}
}

// maxClaims is how often a request that was paid for is sent: once, and three replays.
const maxClaims = 4

func (f *fetch) claimOnce(s *Signed, payment string) ([]byte, error) {
	resp, err := f.get(f.ctx, s.From, s.To, http.Header{x402.HeaderPayment: {payment}})
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode == http.StatusPaymentRequired {
		m := readMessage(resp)
		return nil, &refused{m.Error, m.Message, resp.StatusCode}
	}
	data, err := f.body(resp, s.From, s.To)
	if err != nil {
		return nil, err
	}
	r, err := x402.DecodeReceipt(resp.Header.Get(x402.HeaderReceipt))
	if err != nil || !r.Success {
		return nil, reason.PeerFailed.Errorf("the gateway gave no receipt for what was paid")
	}
	f.renewed = false
	return data, f.order.Purse.Confirm(f.ctx)
}

// get asks for a range of the CAR, or with to 0 for all of it.
func (f *fetch) get(ctx context.Context, from, to uint64, header http.Header) (*http.Response, error) {
	if header == nil {
		header = http.Header{}
	}
	if to > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		if f.quote.Tag != "" {
			header.Set("If-Range", f.quote.Tag)
		}
	}
	return f.b.request(ctx, http.MethodGet, f.base, f.order.Query, header)
}

// body reads a range, which has to be the one that was asked for, to its end.
func (f *fetch) body(resp *http.Response, from, to uint64) ([]byte, error) {
	if resp.StatusCode != http.StatusPartialContent {
		return nil, statusError(f.base, resp, readMessage(resp))
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", from, to-1, f.quote.Size); resp.Header.Get("Content-Range") != want {
		return nil, reason.PeerFailed.Errorf("the gateway answers with the range %.100q instead of %q", resp.Header.Get("Content-Range"), want)
	}
	data := make([]byte, to-from)
	if _, err := io.ReadFull(resp.Body, data); err != nil {
		return nil, reason.PeerUnreachable.Errorf("the answer of the gateway was cut: %w", err)
	}
	return data, nil
}

// streamed reads on in a whole answer: that of a gateway that serves no ranges of a CAR.
func (f *fetch) streamed(from uint64) ([]byte, error) {
	if f.stream == nil {
		resp, err := f.get(f.ctx, 0, 0, nil)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			defer drain(resp)
			return nil, statusError(f.base, resp, readMessage(resp))
		}
		f.stream = resp.Body
		if err := f.skipHeader(); err != nil {
			return nil, err
		}
	}
	if _, err := io.CopyN(io.Discard, f.stream, int64(from-f.streamAt)); err != nil {
		return nil, err
	}
	buf := make([]byte, streamBuffer)
	n, err := io.ReadAtLeast(f.stream, buf, 1)
	f.streamAt = from + uint64(n)
	return buf[:n], err
}

// streamBuffer is how much of a whole answer is read at once.
const streamBuffer = 256 << 10

// messageOf is what a gateway says of a failure.
type messageOf struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

// readMessage reads the JSON of a failure; of anything else nothing.
func readMessage(resp *http.Response) *messageOf {
	m := &messageOf{}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil || json.Unmarshal(data, m) != nil {
		return &messageOf{}
	}
	return m
}

// statusError is the failure that a status stands for; m may be nil.
func statusError(base *url.URL, resp *http.Response, m *messageOf) error {
	why := reason.PeerFailed
	switch resp.StatusCode {
	case http.StatusNotFound:
		why = reason.RootUnknown
	case http.StatusBadRequest, http.StatusGone, http.StatusUnavailableForLegalReasons, http.StatusForbidden, http.StatusPaymentRequired, http.StatusNotAcceptable:
		why = reason.PeerRefused
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		why = reason.PeerLimit
	}
	e := why.Errorf("the gateway %s answers %s", base.Host, resp.Status)
	if m != nil && m.Message != "" {
		e = e.FromPeer(m.Message)
	}
	return e
}
