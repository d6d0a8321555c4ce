package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/paych/evm"
	"github.com/cartage-dev/cartage/paych/evm/evmtest"
)

// evmWorld is the double of a chain, one who pays on it, and what was charged so far.
type evmWorld struct {
	chain   *evmtest.Chain
	payer   *evmtest.Payer
	charged int64
	last    string // payment
}

type evmKey struct{}

func evmOf(ts *testscript.TestScript) *evmWorld { return ts.Value(evmKey{}).(*evmWorld) }

// evm-chain NAME: a double of a chain with a token, and of a facilitator; sets NAME_RPC and NAME_HELP.
func evmChain(t *testing.T, ts *testscript.TestScript, args []string) {
	w := evmOf(ts)
	w.chain = evmtest.NewChain(31337, evm.Address{19: 1}, time.Now())
	key, err := evm.NewKey(bytes.Repeat([]byte{1}, 32))
	ts.Check(err)
	w.payer = &evmtest.Payer{Chain: w.chain, Key: key}
	w.chain.Mint(key.Address(), 100_000_000)
	node, helper := httptest.NewServer(w.chain), httptest.NewServer(&evmtest.Facilitator{Chain: w.chain})
	t.Cleanup(node.Close)
	t.Cleanup(helper.Close)
	ts.Setenv(args[0]+"_RPC", node.URL)
	ts.Setenv(args[0]+"_HELP", helper.URL)
}

// askToken asks for a range with a payment.
func askToken(ts *testscript.TestScript, url, ranges, payment string) (status int, header http.Header, body []byte) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	ts.Check(err)
	r.Header.Set("Range", ranges)
	if payment != "" {
		r.Header.Set(x402.HeaderPayment, payment)
	}
	resp, err := http.DefaultClient.Do(r)
	ts.Check(err)
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	ts.Check(err)
	return resp.StatusCode, resp.Header, body
}

// evm-buy URL FROM-TO FILE [deposit|refund|again]: a client of x402 buys a range, with a deposit first, or asks for its money back, or sends its last payment again.
func evmBuy(ts *testscript.TestScript, _ bool, args []string) {
	w, how := evmOf(ts), ""
	if len(args) > 3 {
		how = args[3]
	}
	ranges := "bytes=" + args[1]
	status, header, body := askToken(ts, args[0], ranges, "")
	if status != http.StatusPaymentRequired {
		ts.Fatalf("%d: %s", status, body)
	}
	c, err := x402.DecodeChallenge(header.Get(x402.HeaderRequired))
	ts.Check(err)
	if how != "again" {
		w.last = w.payment(ts, c.Accepts[0], how)
	}
	status, header, body = askToken(ts, args[0], ranges, w.last)
	if status/100 != 2 {
		ts.Fatalf("%d: %s", status, body)
	}
	receipt, err := x402.DecodeReceipt(header.Get(x402.HeaderReceipt))
	ts.Check(err)
	if n, ok := receipt.Extra["chargedAmount"].(string); ok && how != "again" {
		charged, err := strconv.ParseInt(n, 10, 64)
		ts.Check(err)
		w.charged += charged
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o600))
	fmt.Fprintf(ts.Stdout(), "charged %d of %s\n", w.charged, receipt.Amount)
}

func (w *evmWorld) payment(ts *testscript.TestScript, o x402.Offer, how string) string {
	receiver, err := evm.ParseAddress(o.PayTo)
	ts.Check(err)
	authorizer, err := evm.ParseAddress(o.Extra["receiverAuthorizer"].(string))
	ts.Check(err)
	cfg := w.payer.Channel(receiver, authorizer, uint64(o.Extra["withdrawDelay"].(float64)), 0)
	p := evm.Payload{Type: evm.TypeVoucher, Config: cfg, Voucher: w.payer.Voucher(cfg, w.charged+o.Amount.Int().Int64())}
	switch how {
	case "deposit":
		least, ok := new(big.Int).SetString(o.Extra["minDeposit"].(string), 10)
		if !ok {
			ts.Fatalf("no least deposit")
		}
		p.Type, p.Deposit = evm.TypeDeposit, w.payer.Deposit(cfg, least.Int64())
	case "refund":
		p.Type, p.Voucher = evm.TypeRefund, w.payer.Voucher(cfg, w.charged)
	}
	data, err := json.Marshal(p)
	ts.Check(err)
	text, err := x402.Payment{X402Version: x402.Version, Accepted: o, Payload: data}.Encode()
	ts.Check(err)
	return text
}

// evm-balance ADDRESS UNITS: an account of the double has so much; charged stands for what was charged so far.
func evmBalance(ts *testscript.TestScript, _ bool, args []string) {
	w := evmOf(ts)
	a, err := evm.ParseAddress(args[0])
	ts.Check(err)
	want := fmt.Sprint(w.charged)
	if args[1] != "charged" {
		want = args[1]
	}
	if have := fmt.Sprint(w.chain.BalanceOf(a)); have != want {
		ts.Fatalf("%s has %s, not %s", a, have, want)
	}
}
