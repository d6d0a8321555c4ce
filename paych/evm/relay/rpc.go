package relay

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	fbig "github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// Chain reads a chain by JSON-RPC. It is safe for concurrent use.
type Chain struct {
	endpoint
	id  uint64
	now func() time.Time
}

// NewChain is a chain with an id at a URL. Check compares what is there. now is time.Now if it is nil.
func NewChain(at string, id uint64, now func() time.Time) *Chain {
	if now == nil {
		now = time.Now
	}
	return &Chain{newEndpoint(at, ""), id, now}
}

// Close ends idle connections.
func (c *Chain) Close() { c.close() }

// Network is the name of the chain in offers.
func (c *Chain) Network() string { return fmt.Sprintf("eip155:%d", c.id) }

// Domain is that of the settlement contract there.
func (c *Chain) Domain() evm.Domain { return evm.Domain{ChainID: c.id, Contract: evm.Settlement()} }

type rpcRequest struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
}

type rpcAnswer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// batch asks for many things at once. What the chain refuses is a *book.RefusedError.
func (c *Chain) batch(ctx context.Context, requests []rpcRequest) ([]json.RawMessage, error) {
	for i := range requests {
		requests[i].Version, requests[i].ID = "2.0", i+1
	}
	var answers []rpcAnswer
	if err := c.post(ctx, "", requests, &answers); err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, len(requests))
	for _, a := range answers {
		if a.ID < 1 || a.ID > len(out) {
			return nil, fmt.Errorf("%w: an answer to nothing that was asked", book.ErrUnavailable)
		}
		if a.Error != nil {
			return nil, &book.RefusedError{Text: limited(a.Error.Message)}
		}
		out[a.ID-1] = a.Result
	}
	for i := range out {
		if out[i] == nil {
			return nil, fmt.Errorf("%w: no answer to %s", book.ErrUnavailable, requests[i].Method)
		}
	}
	return out, nil
}

// limited is a text of somebody else as it may be shown.
func limited(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s), "")
	return s[:min(len(s), 300)]
}

// ask asks for one thing.
func (c *Chain) ask(ctx context.Context, out any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	results, err := c.batch(ctx, []rpcRequest{{Method: method, Params: params}})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(results[0], out); err != nil {
		return fmt.Errorf("%w: %s answers %.100s", book.ErrUnavailable, method, results[0])
	}
	return nil
}

// quantity asks for a number.
func (c *Chain) quantity(ctx context.Context, method string, params ...any) (*big.Int, error) {
	var text string
	if err := c.ask(ctx, &text, method, params...); err != nil {
		return nil, err
	}
	return parseQuantity(text)
}

func parseQuantity(text string) (*big.Int, error) {
	v, ok := new(big.Int).SetString(strings.TrimPrefix(text, "0x"), 16)
	if !ok || v.Sign() < 0 || v.BitLen() > 256 || !strings.HasPrefix(text, "0x") {
		return nil, fmt.Errorf("%w: %.80q is no number", book.ErrUnavailable, text)
	}
	return v, nil
}

// callObject is a call as eth_call and eth_estimateGas take it.
func callObject(from, to evm.Address, data []byte) map[string]any {
	return map[string]any{"from": from, "to": to, "data": "0x" + hex.EncodeToString(data)}
}

const latest = "latest"

// reads asks contracts for numbers, n of each call.
func (c *Chain) reads(ctx context.Context, calls []read) ([][]*big.Int, error) {
	requests := make([]rpcRequest, len(calls))
	for i, q := range calls {
		requests[i] = rpcRequest{Method: "eth_call", Params: []any{callObject(evm.Address{}, q.to, q.data), latest}}
	}
	results, err := c.batch(ctx, requests)
	if err != nil {
		return nil, err
	}
	out := make([][]*big.Int, len(calls))
	for i, q := range calls {
		var text string
		if err := json.Unmarshal(results[i], &text); err != nil {
			return nil, fmt.Errorf("%w: eth_call answers %.100s", book.ErrUnavailable, results[i])
		}
		data, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
		if err == nil {
			out[i], err = evm.UnpackUints(data, q.n)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", book.ErrUnavailable, err)
		}
	}
	return out, nil
}

type read struct {
	to   evm.Address
	data []byte
	n    int
}

// Calls of a batch, and those that a channel takes.
const (
	maxBatch     = 50
	callsPerRead = 3
)

// States reads channels, many at a time.
func (c *Chain) States(ctx context.Context, ids []evm.Hash) ([]book.Balance, error) {
	out := make([]book.Balance, 0, len(ids))
	for len(ids) > 0 {
		now := ids[:min(len(ids), maxBatch/callsPerRead)]
		ids = ids[len(now):]
		calls := make([]read, 0, callsPerRead*len(now))
		for _, id := range now {
			to := evm.Settlement()
			calls = append(calls, read{to, evm.PackChannels(id), 2}, read{to, evm.PackPending(id), 2}, read{to, evm.PackRefundNonce(id), 1})
		}
		seen := c.now()
		numbers, err := c.reads(ctx, calls)
		if err != nil {
			return nil, err
		}
		for i := range now {
			row := numbers[callsPerRead*i:]
			out = append(out, balanceOf(row[0][0], row[0][1], row[1][1], row[2][0], seen))
		}
	}
	return out, nil
}

// balanceOf is what the chain has of a channel, as its numbers say.
func balanceOf(deposit, claimed, since, nonce *big.Int, seen time.Time) book.Balance {
	b := book.Balance{Deposit: fbig.NewFromGo(deposit), Claimed: fbig.NewFromGo(claimed), RefundNonce: nonce.Uint64(), SeenAt: seen}
	if since.Sign() > 0 {
		b.WithdrawAt = time.Unix(int64(since.Uint64()), 0)
	}
	return b
}

// Head is the time of the last block, and the fee of the next.
func (c *Chain) Head(ctx context.Context) (at time.Time, fee *big.Int, err error) {
	var block struct {
		Timestamp string `json:"timestamp"`
		BaseFee   string `json:"baseFeePerGas"`
	}
	if err := c.ask(ctx, &block, "eth_getBlockByNumber", latest, false); err != nil {
		return at, nil, err
	}
	seconds, err := parseQuantity(block.Timestamp)
	if err != nil {
		return at, nil, err
	}
	fee, err = parseQuantity(block.BaseFee)
	return time.Unix(int64(seconds.Uint64()), 0), fee, err
}

// Check compares the id of the chain, and looks whether the contracts are there.
func (c *Chain) Check(ctx context.Context, token evm.Address) error {
	id, err := c.quantity(ctx, "eth_chainId")
	if err != nil {
		return err
	}
	if !id.IsUint64() || id.Uint64() != c.id {
		return fmt.Errorf("the chain behind the RPC has the id %s, and %d was named", id, c.id)
	}
	for name, a := range map[string]evm.Address{"settlement contract": evm.Settlement(), "collector": evm.Collector(), "token": token} {
		var code string
		if err := c.ask(ctx, &code, "eth_getCode", a, latest); err != nil {
			return err
		}
		if len(code) <= len("0x") {
			return fmt.Errorf("there is no %s at %s on %s", name, a, c.Network())
		}
	}
	return nil
}
