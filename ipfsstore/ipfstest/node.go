// Package ipfstest simulates the block part of the RPC API of an IPFS node, over real HTTP.
package ipfstest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multicodec"
	mh "github.com/multiformats/go-multihash"
)

// Manners are how a node answers.
type Manners struct {
	// NotFound is what it says about a block that it does not have; the status is 500 if it is 0.
	NotFound string
	Status   int
	// Lie changes the CID that a put answers; it may be nil.
	Lie func(cid.Cid) cid.Cid
}

// SimulatedNode has blocks by multihash, as an IPFS node does.
type SimulatedNode struct {
	mu      sync.Mutex
	manners Manners
	blocks  map[string][]byte
	calls   map[string]int
}

// Start serves a node until the test ends and returns its URL.
func Start(t testing.TB) (*SimulatedNode, string) {
	n := &SimulatedNode{manners: Manners{NotFound: "block was not found locally (offline): ipld: could not find it"}, blocks: map[string][]byte{}, calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v0/block/put", n.put)
	mux.HandleFunc("POST /api/v0/block/get", n.with("get", func(w http.ResponseWriter, _ cid.Cid, data []byte) { _, _ = w.Write(data) }))
	mux.HandleFunc("POST /api/v0/block/stat", n.with("stat", func(w http.ResponseWriter, c cid.Cid, data []byte) {
		_ = json.NewEncoder(w).Encode(map[string]any{"Key": c.String(), "Size": len(data)})
	}))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return n, srv.URL
}

// Behave changes how the node answers.
func (n *SimulatedNode) Behave(m Manners) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.manners = m
}

// Len is how many blocks it has.
func (n *SimulatedNode) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.blocks)
}

// Calls is how often something was called: put, get or stat.
func (n *SimulatedNode) Calls(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[what]
}

// Replace makes the bytes of a block others.
func (n *SimulatedNode) Replace(c cid.Cid, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocks[string(c.Hash())] = data
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"Message": message, "Code": 0, "Type": "error"})
}

func (n *SimulatedNode) with(what string, f func(http.ResponseWriter, cid.Cid, []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := cid.Decode(r.URL.Query().Get("arg"))
		if err != nil {
			fail(w, http.StatusBadRequest, "invalid path: "+err.Error())
			return
		}
		if r.URL.Query().Get("offline") != "true" {
			fail(w, http.StatusInternalServerError, "this node would look for the block in its network")
			return
		}
		n.mu.Lock()
		data, ok := n.blocks[string(c.Hash())]
		n.calls[what]++
		m := n.manners
		n.mu.Unlock()
		if !ok {
			fail(w, cmp.Or(m.Status, http.StatusInternalServerError), m.NotFound)
			return
		}
		f(w, c, data)
	}
}

func (n *SimulatedNode) put(w http.ResponseWriter, r *http.Request) {
	c, data, err := read(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	n.mu.Lock()
	n.calls["put"]++
	n.blocks[string(c.Hash())] = data
	lie := n.manners.Lie
	n.mu.Unlock()
	if lie != nil {
		c = lie(c)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Key": c.String(), "Size": len(data)})
}

// read makes the CID of a put out of its arguments, as a node does.
func read(r *http.Request) (cid.Cid, []byte, error) {
	q := r.URL.Query()
	var codec multicodec.Code
	if err := codec.Set(q.Get("cid-codec")); err != nil {
		return cid.Undef, nil, err
	}
	code, ok := mh.Names[q.Get("mhtype")]
	if !ok {
		return cid.Undef, nil, fmt.Errorf("unrecognized multihash function: %s", q.Get("mhtype"))
	}
	length, err := strconv.Atoi(q.Get("mhlen"))
	if err != nil {
		return cid.Undef, nil, err
	}
	f, _, err := r.FormFile("data")
	if err != nil {
		return cid.Undef, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return cid.Undef, nil, err
	}
	c, err := cid.V1Builder{Codec: uint64(codec), MhType: code, MhLength: length}.Sum(data)
	return c, data, err
}
