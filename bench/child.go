package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// hello is what a server tells: where it is, and what it has.
type hello struct {
	Peer  peer.AddrInfo `json:"peer"`
	Addr  string        `json:"addr"`
	Root  string        `json:"root"`
	Bytes uint64        `json:"bytes"`
	Roots []cid.Cid     `json:"roots,omitempty"` // of as many transfers
}

// result is what a child has used for a transfer.
type result struct {
	usage
	Bytes      uint64 `json:"bytes"`
	Signed     uint64 `json:"vouchers,omitempty"`
	Goroutines int    `json:"goroutines"` // at most
	Error      string `json:"error,omitempty"`
}

const rowLimit = 5 * time.Minute

// serve is the process of a server: a line on its input begins the measurement, a second one ends it.
func serve(ctx context.Context, r row, d dag, size int) error {
	m, err := d.build(size)
	if err != nil {
		return err
	}
	h, err := newHost(r)
	if err != nil {
		return err
	}
	defer h.Close()
	addr, err := r.serve(ctx, h, m, r)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	about := hello{peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}, addr, m.root.String(), m.bytes, nil}
	if r.many {
		about.Roots, about.Bytes = m.leaves, uint64(len(m.leaves)*d.leaf)
	}
	about.Bytes *= uint64(max(1, r.crowd))
	if err := out.Encode(about); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	debug.FreeOSMemory()
	before, most := now(), countGoroutines(ctx)
	in.Scan()
	return out.Encode(result{usage: now().since(before), Goroutines: most()})
}

// fetch is the process of a client.
func fetch(ctx context.Context, r row) error {
	var from hello
	if err := json.NewDecoder(os.Stdin).Decode(&from); err != nil {
		return err
	}
	root, err := cid.Decode(from.Root)
	if err != nil {
		return err
	}
	h, err := newHost(r)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, rowLimit)
	defer cancel()
	if r.far {
		if from.Peer, err = shaped(ctx, from.Peer); err != nil {
			return err
		}
	}
	if r.crowd == 0 {
		err = h.Connect(ctx, from.Peer)
	}
	if err != nil {
		return err
	}
	r.roots, r.signed = from.Roots, new(atomic.Uint64)
	before, most := now(), countGoroutines(ctx)
	n, err := r.fetch(ctx, h, from.Peer, from.Addr, root, r)
	res := result{usage: now().since(before), Bytes: n, Signed: r.signed.Load(), Goroutines: most()}
	if err == nil && n != from.Bytes {
		err = fmt.Errorf("%w: %d of %d", errBytes, n, from.Bytes)
	}
	if err != nil {
		res.Error = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}
