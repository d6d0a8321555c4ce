package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/cartage-dev/cartage/gateway/x402"
)

// serveChannel answers at the door for those who want to see a channel, or its money back: it always costs nothing.
func (g *Gateway) serveChannel(x *exchange) error {
	b, s := &body{tag: `"channel"`, mime: "application/json"}, stretch{}
	t := g.till
	if len(t.offers(perTiB)) == 0 {
		return fail(http.StatusNotFound, NotFound, "nothing is sold here")
	}
	x.tier = tierPaid
	if !hasPayment(x.r) {
		return t.challenge(x, b, s, x402.CodeRequired, "show a voucher of the channel")
	}
	p, draft, err := t.draft(x, b, s)
	if err != nil {
		return err
	}
	if !draft.Buys() {
		return t.refund(x, b, s, p, draft)
	}
	sale, err := t.takeAlone(x, b, s, p, draft)
	if err != nil {
		return err
	}
	state, err := json.Marshal(sale.Receipt.Extra["channelState"])
	if err != nil {
		return err
	}
	return t.answerSale(x, sale, append(state, '\n'))
}

// refund gives money back and answers without a body.
func (t *till) refund(x *exchange, b *body, s stretch, p x402.Payment, d Draft) error {
	sale, err := t.takeAlone(x, b, s, p, d)
	if err != nil {
		return err
	}
	return t.answerSale(x, sale, nil)
}

// takeAlone takes a payment that no bytes are sent for.
func (t *till) takeAlone(x *exchange, b *body, s stretch, p x402.Payment, d Draft) (Sale, error) {
	leave, err := t.queue(x.r.Context(), x.channel)
	if err != nil {
		return Sale{}, err
	}
	defer leave()
	sale, err := d.Check(x.r.Context(), Purchase{Key: purchaseKey(b, s, p.Accepted)})
	if err == nil {
		err = sale.Commit(context.WithoutCancel(x.r.Context()))
	}
	if err != nil {
		return sale, t.refused(x, b, s, p, err)
	}
	return sale, nil
}

// answerSale answers with a receipt, and a text that costs nothing.
func (t *till) answerSale(x *exchange, sale Sale, text []byte) error {
	receipt, err := sale.Receipt.Encode()
	if err != nil {
		return err
	}
	x.charge, x.asset, x.replay = sale.Charge.String(), sale.Asset, sale.Replayed
	h := x.w.Header()
	h.Set(x402.HeaderReceipt, receipt)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	for _, name := range []string{"Etag", "Accept-Ranges", "Content-Disposition", "Cartage-Window"} {
		h.Del(name)
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.status(http.StatusOK)
	if x.r.Method != http.MethodHead && len(text) > 0 {
		_, _ = x.w.Write(text)
	}
	return nil
}

// spoil books what was done for a window that cannot be served, and puts its receipt on the answer.
func (t *till) spoil(x *exchange, sale Sale) {
	if sale.Spoiled == nil {
		return
	}
	r, err := sale.Spoiled(context.WithoutCancel(x.r.Context()))
	if err != nil || r == nil {
		if err != nil {
			t.cfg.Log.Error("what was paid for a window that was not served could not be booked", "id", x.id, "error", err)
		}
		return
	}
	if text, err := r.Encode(); err == nil {
		x.w.Header().Set(x402.HeaderReceipt, text)
	}
}
