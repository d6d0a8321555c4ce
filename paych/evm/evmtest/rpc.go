package evmtest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cartage-dev/cartage/paych/evm"
)

// rpcRequest is a JSON-RPC request.
type rpcRequest struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type rpcAnswer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  any             `json:"result"`
	Error   *rpcError       `json:"error,omitempty"`
}

// ServeHTTP answers JSON-RPC, single requests and lists of them.
func (c *Chain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	away := c.away
	c.mu.Unlock()
	if err != nil || away {
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	var list []rpcRequest
	var one rpcRequest
	single := json.Unmarshal(body, &list) != nil
	if single {
		if err := json.Unmarshal(body, &one); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		list = []rpcRequest{one}
	}
	answers := make([]rpcAnswer, 0, len(list))
	for _, q := range list {
		a := rpcAnswer{Version: "2.0", ID: q.ID}
		if a.Result, err = c.answer(q); err != nil {
			a.Error = &rpcError{3, err.Error()}
		}
		if q.Method == "eth_sendRawTransaction" && c.drops() {
			http.Error(w, "the answer is lost", http.StatusBadGateway)
			return
		}
		answers = append(answers, a)
	}
	var out any = answers
	if single {
		out = answers[0]
	}
	_ = json.NewEncoder(w).Encode(out)
}

// callOf is a call as eth_call and eth_estimateGas have it.
type callOf struct {
	From evm.Address `json:"from"`
	To   evm.Address `json:"to"`
	Data string      `json:"data"`
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		panic(err)
	}
	return b
}

func param[T any](q rpcRequest, i int) (v T, err error) {
	if len(q.Params) <= i {
		return v, fmt.Errorf("%s has no parameter %d", q.Method, i)
	}
	return v, json.Unmarshal(q.Params[i], &v)
}

func (c *Chain) answer(q rpcRequest) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch q.Method {
	case "eth_chainId":
		return fmt.Sprintf("0x%x", c.ID), nil
	case "eth_getCode":
		return "0x00", nil
	case "eth_maxPriorityFeePerGas":
		return "0x3e8", nil
	case "eth_getBlockByNumber":
		return map[string]string{"number": fmt.Sprintf("0x%x", c.height), "timestamp": fmt.Sprintf("0x%x", c.now.Unix()), "baseFeePerGas": "0x5f5e100"}, nil
	case "eth_call", "eth_estimateGas":
		in, err := param[callOf](q, 0)
		if err != nil {
			return nil, err
		}
		if q.Method == "eth_estimateGas" {
			return "0x186a0", c.execute(in.From, in.To, unhex(in.Data), true)
		}
		out, err := c.view(in.To, unhex(in.Data))
		return "0x" + hex.EncodeToString(out), err
	case "eth_getTransactionCount":
		a, err := param[evm.Address](q, 0)
		return fmt.Sprintf("0x%x", c.nonces[a]), err
	case "eth_blockNumber":
		return fmt.Sprintf("0x%x", c.height), nil
	case "eth_getTransactionByHash":
		h, err := param[evm.Hash](q, 0)
		_, mined := c.receipts[h]
		for _, w := range c.waiting {
			mined = mined || w.hash == h
		}
		if mined && err == nil {
			return map[string]any{"hash": h}, nil
		}
		return nil, err
	case "eth_sendRawTransaction":
		text, err := param[string](q, 0)
		if err != nil {
			return nil, err
		}
		return c.take(unhex(text))
	case "eth_getTransactionReceipt":
		h, err := param[evm.Hash](q, 0)
		if ok, mined := c.receipts[h]; mined && err == nil {
			return map[string]string{"status": map[bool]string{true: "0x1", false: "0x0"}[ok], "blockNumber": fmt.Sprintf("0x%x", c.height)}, nil
		}
		return nil, err
	}
	return nil, fmt.Errorf("the method %s does not exist", q.Method)
}

// take takes a signed transaction. One with the nonce of a waiting one replaces it.
func (c *Chain) take(raw []byte) (any, error) {
	t, err := parseTransaction(raw)
	if err != nil {
		return nil, err
	}
	if _, mined := c.receipts[t.hash]; mined {
		return nil, fmt.Errorf("already known")
	}
	for i, w := range c.waiting {
		if w.from == t.from && w.nonce == t.nonce {
			c.waiting[i] = t
			return t.hash, nil
		}
	}
	if next := c.nonces[t.from]; t.nonce < next {
		return nil, fmt.Errorf("nonce too low: next nonce %d, tx nonce %d", next, t.nonce)
	} else if t.nonce > next {
		return nil, fmt.Errorf("nonce too high: next nonce %d, tx nonce %d", next, t.nonce)
	}
	c.nonces[t.from]++
	if c.held {
		c.waiting = append(c.waiting, t)
		return t.hash, nil
	}
	c.mine(t)
	return t.hash, nil
}
