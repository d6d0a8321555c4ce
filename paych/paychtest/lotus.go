// Package paychtest simulates the JSON-RPC API of a Lotus node, over real HTTP and WebSocket, with a small chain behind it: a message
// pool, tipsets that a test makes, confirmations, reorganisations, messages that run out of gas, permissions and faults of the
// transport (payments spec 3.10). Embedders can test against it what they would run on a real node.
package paychtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/paych/lotus"
)

// Tokens of the node, by what they allow.
const (
	TokenRead = "token-read"
	TokenSign = "token-sign"
)

// Fault is what happens to a request.
type Fault int

// The faults of the transport.
const (
	DropBefore Fault = iota + 1 // the connection breaks before the request is carried out
	DropAfter                   // ... and after
	BadGateway                  // 502
	Garbage                     // the answer is no JSON
)

// SimulatedLotus is the node. Time stands still until Advance.
type SimulatedLotus struct {
	// URL of its API.
	URL string

	srv  *httptest.Server
	mu   sync.Mutex
	news *sync.Cond

	states   []*state
	forks    map[abi.ChainEpoch]int
	pool     []pending
	sent     map[string]pending // by uuid
	ids      map[address.Address]address.Address
	wallet   map[address.Address]bool
	objects  map[cid.Cid][]byte
	code     cid.Cid
	outOfGas int
	fee      big.Int
	away     bool
	age      time.Duration
	faults   map[string][]Fault
	requests []string
}

// NewSimulatedLotus starts a node. Close ends it.
func NewSimulatedLotus() *SimulatedLotus {
	n := &SimulatedLotus{
		states: []*state{{balances: map[address.Address]big.Int{}, channels: map[address.Address]*channel{}, made: map[address.Address]address.Address{}, next: 1000, nonces: map[address.Address]uint64{}}},
		forks:  map[abi.ChainEpoch]int{}, sent: map[string]pending{}, ids: map[address.Address]address.Address{},
		wallet: map[address.Address]bool{}, objects: map[cid.Cid][]byte{}, code: hashed(cid.Raw, []byte("payment channel actor")), faults: map[string][]Fault{},
	}
	n.news = sync.NewCond(&n.mu)
	rpc := jsonrpc.NewServer()
	rpc.Register(lotus.Namespace, &methods{n})
	n.srv = httptest.NewServer(n.gate(rpc))
	n.URL = n.srv.URL + "/rpc/v1"
	return n
}

// Close ends the node.
func (n *SimulatedLotus) Close() {
	n.mu.Lock()
	n.news.Broadcast()
	n.mu.Unlock()
	n.srv.CloseClientConnections()
	n.srv.Close()
}

// Fund makes an account of a key with some money; with inWallet the node holds its key and sends its messages.
func (n *SimulatedLotus) Fund(key address.Address, amount abi.TokenAmount, inWallet bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.states[len(n.states)-1]
	id, ok := n.ids[key]
	if !ok {
		id, _ = address.NewIDAddress(s.next)
		s.next++
		n.ids[key], n.ids[id] = id, id
		s.balances[id] = big.Zero()
	}
	s.balances[id] = big.Add(s.balances[id], amount)
	n.wallet[key] = n.wallet[key] || inWallet
}

// Mine makes a tipset each interval until the returned function is called, which waits for the last.
func (n *SimulatedLotus) Mine(interval time.Duration) (stop func()) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				n.Advance(1)
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-over
	}
}

// Balance is the money of a key at the head.
func (n *SimulatedLotus) Balance(key address.Address) abi.TokenAmount {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.states[len(n.states)-1].balances[n.ids[key]]
}

// Pool is how many messages wait.
func (n *SimulatedLotus) Pool() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.pool)
}

// OutOfGas makes the next messages fail.
func (n *SimulatedLotus) OutOfGas(messages int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outOfGas = messages
}

// Fee sets what a message costs at most; one that may cost less is refused. Nothing is charged.
func (n *SimulatedLotus) Fee(fee abi.TokenAmount) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fee = fee
}

// Away makes the node answer nothing, or again.
func (n *SimulatedLotus) Away(away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = away
	n.news.Broadcast()
}

// Age makes the head look so old.
func (n *SimulatedLotus) Age(age time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.age = age
}

// Fail lets the next requests of a method meet faults, one each.
func (n *SimulatedLotus) Fail(method string, faults ...Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults[method] = append(n.faults[method], faults...)
}

// Requests counts the requests of a method.
func (n *SimulatedLotus) Requests(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, r := range n.requests {
		if r == method {
			count++
		}
	}
	return count
}

// needsSign tells whether a method needs more than reading.
func needsSign(method string) bool { return method == "MpoolPushMessage" || method == "WalletSign" }

// drop ends the connection of a request.
func drop(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			_ = c.Close()
		}
	}
}

// gate is what stands before the methods: token, permissions, faults and the record of requests.
func (n *SimulatedLotus) gate(rpc http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		n.mu.Lock()
		away := n.away
		n.mu.Unlock()
		switch {
		case away:
			drop(w)
			return
		case r.URL.Path != "/rpc/v1":
			http.NotFound(w, r)
			return
		case token != "" && token != TokenRead && token != TokenSign:
			w.WriteHeader(http.StatusUnauthorized)
			return
		case r.Method != http.MethodPost: // WebSocket
			rpc.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
		if err != nil {
			return
		}
		var req struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
		}
		_ = json.Unmarshal(body, &req)
		method := strings.TrimPrefix(req.Method, lotus.Namespace+".")
		switch n.meet(method) {
		case DropBefore:
			drop(w)
			return
		case BadGateway:
			w.WriteHeader(http.StatusBadGateway)
			return
		case Garbage:
			_, _ = w.Write([]byte("<html>"))
			return
		case DropAfter:
			r.Body = io.NopCloser(bytes.NewReader(body))
			rpc.ServeHTTP(httptest.NewRecorder(), r)
			drop(w)
			return
		}
		if token != TokenSign && needsSign(method) {
			_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": req.ID,
				"error": map[string]any{"code": 1, "message": fmt.Sprintf("missing permission to invoke '%s' (need 'sign')", method)}})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rpc.ServeHTTP(w, r)
	})
}

// meet records a request and takes the fault that it meets.
func (n *SimulatedLotus) meet(method string) Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests = append(n.requests, method)
	list := n.faults[method]
	if len(list) == 0 {
		return 0
	}
	n.faults[method] = list[1:]
	return list[0]
}
