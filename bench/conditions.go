package main

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	slowStore  = 30_000_000      // bytes a second
	linkRate   = 400_000_000 / 8 // bytes a second
	linkDelay  = 25 * time.Millisecond
	linkBuffer = 128 // chunks on their way in one direction
	linkChunk  = 32 << 10
	linkSlack  = 5 * time.Millisecond // a sleep is longer than it should be: what it was too long is made up for
)

// conditions are transfers into a store that is slow, or over a link that is slow and long.
var conditions = []row{
	{name: "Cartage, stream", serve: serveOurs(true), fetch: fetchOurs(true)},
	{name: "Cartage, stream, into a store of 30 MB/s", slow: true, serve: serveOurs(true), fetch: fetchOurs(true)},
	{name: "Cartage, graphsync, into a store of 30 MB/s", slow: true, serve: serveOurs(false), fetch: fetchOurs(false)},
	{name: "go-graphsync v0.18.1, into a store of 30 MB/s", slow: true, serve: serveGraphsync, fetch: fetchGraphsync},
	{name: "Cartage, stream, over 400 Mbit/s and 50 ms", far: true, serve: serveOurs(true), fetch: fetchOurs(true)},
	{name: "Cartage, paid deal over a stream, interval of 8 MiB, over 400 Mbit/s and 50 ms", far: true, pays: 8 << 20, serve: servePaid, fetch: fetchPaid(false)},
	{name: "Cartage, graphsync, over 400 Mbit/s and 50 ms", far: true, serve: serveOurs(false), fetch: fetchOurs(false)},
	{name: "go-graphsync v0.18.1, over 400 Mbit/s and 50 ms", far: true, serve: serveGraphsync, fetch: fetchGraphsync},
}

// store throws blocks away, as fast as it can or as fast as a slow disk takes them.
func (r row) store() ipld.LinkSystem {
	ls := discard()
	if !r.slow {
		return ls
	}
	free := time.Now() // when the disk has written what it was given
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w := &counter{}
		return w, func(ipld.Link) error {
			if now := time.Now(); free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(w.n) * time.Second / slowStore)
			time.Sleep(time.Until(free))
			return nil
		}, nil
	}
	return ls
}

// shaped returns the address of a simulated link to a server, which has a rate and a delay and loses nothing.
func shaped(ctx context.Context, to peer.AddrInfo) (peer.AddrInfo, error) {
	_, addr, err := manet.DialArgs(to.Addrs[0])
	if err != nil {
		return to, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return to, err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				_ = near.Close()
				continue
			}
			go carry(near, far)
			go carry(far, near)
		}
	}()
	through, err := manet.FromNetAddr(l.Addr())
	return peer.AddrInfo{ID: to.ID, Addrs: []ma.Multiaddr{through}}, err
}

type chunk struct {
	data []byte
	at   time.Time // when its last byte arrives
}

// carry is one direction of a link.
func carry(to, from net.Conn) {
	way := make(chan chunk, linkBuffer)
	go func() {
		defer close(way)
		sent := time.Now()
		for {
			buf := make([]byte, linkChunk)
			n, err := from.Read(buf)
			if n > 0 {
				if due := time.Now().Add(-linkSlack); sent.Before(due) {
					sent = due
				}
				sent = sent.Add(time.Duration(n) * time.Second / linkRate)
				time.Sleep(time.Until(sent)) // the next byte goes out after the last one
				way <- chunk{buf[:n], sent.Add(linkDelay)}
			}
			if err != nil {
				return
			}
		}
	}()
	var err error
	for c := range way {
		if err != nil {
			continue
		}
		time.Sleep(time.Until(c.at))
		_, err = to.Write(c.data)
	}
	_ = errors.Join(to.Close(), from.Close())
}
