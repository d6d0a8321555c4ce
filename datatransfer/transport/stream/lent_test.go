package stream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
)

// pipeStream is a stream whose other end is read by a test.
type pipeStream struct {
	network.Stream
	pipe net.Conn
	to   peer.ID
}

func (p *pipeStream) Write(b []byte) (int, error)         { return p.pipe.Write(b) }
func (p *pipeStream) SetWriteDeadline(at time.Time) error { return p.pipe.SetWriteDeadline(at) }
func (p *pipeStream) Conn() network.Conn                  { return pipeConn{to: p.to} }

type pipeConn struct {
	network.Conn
	to peer.ID
}

func (c pipeConn) RemotePeer() peer.ID { return c.to }

// slowSender is a sender of one block to a peer, and the end at which it is read.
func slowSender(ctx context.Context, t *Transport, to peer.ID, block []byte) (*sender, cid.Cid, net.Conn) {
	ours, theirs := net.Pipe()
	s := &pipeStream{pipe: ours, to: to}
	ls := carstore.Links(func(cid.Cid) ([]byte, error) { return block, nil })
	sd := &sender{t: t, r: &run{ctx: ctx, stream: s}, ls: ls, out: &output{s: s}, loan: lentBuffer}
	sd.reading = carstore.Lend(ctx, &sd.buf)
	c, _ := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(block)
	return sd, c, theirs
}

func block(seed byte) []byte {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i) ^ seed
	}
	return b
}

// TestUnreadBlocks: a thousand recipients that read nothing hold no buffer after a while, one that reads gets its block meanwhile, and a slow
// one gets all of it in the end.
func TestUnreadBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &Transport{}
		tr.lender.memory = Memory{Node: 8 * lentBuffer, Peer: 2 * lentBuffer}
		ctx, cancel := context.WithCancel(t.Context())
		const deals = 1000
		var ends []net.Conn
		done := make(chan error, deals)
		for i := range deals {
			sd, c, theirs := slowSender(ctx, tr, peer.ID(fmt.Sprint(i%50)), block(byte(i)))
			ends = append(ends, theirs)
			go func() {
				data, err := sd.load(c)
				if err == nil {
					_, err = sd.body(c, data)
				}
				sd.giveBack()
				done <- err
			}()
		}
		most := int64(0)
		for range 400 { // 200 s: a recipient that takes nothing for five minutes is given up
			time.Sleep(slowAfter / 2)
			most = max(most, tr.lender.inUse())
		}
		require.LessOrEqual(t, most, int64(8*lentBuffer), "the bound of all")
		require.Zero(t, tr.lender.inUse(), "who does not read holds nothing")

		sd, c, theirs := slowSender(ctx, tr, "honest", block(7))
		got := make(chan []byte, 1)
		go func() {
			b := make([]byte, 1<<20)
			_, _ = io.ReadFull(theirs, b)
			got <- b
		}()
		data, err := sd.load(c)
		require.NoError(t, err)
		_, err = sd.body(c, data)
		require.NoError(t, err)
		sd.giveBack()
		require.True(t, bytes.Equal(block(7), <-got))

		slow := make([]byte, 0, 1<<20) // 10,000 bytes every three seconds
		for len(slow) < 1<<20 {
			b := make([]byte, min(10_000, 1<<20-len(slow)))
			_, err := io.ReadFull(ends[3], b)
			require.NoError(t, err)
			slow = append(slow, b...)
			time.Sleep(3 * time.Second)
		}
		require.True(t, bytes.Equal(block(3), slow))
		cancel()
		for _, e := range ends {
			_ = e.Close()
		}
		sent := 0
		for range deals {
			if <-done == nil {
				sent++
			}
		}
		require.Equal(t, 1, sent)
	})
}

// TestLentAtLimit: the share of a peer and the memory of all are lent to the last buffer, and not one beyond.
func TestLentAtLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := map[bool]int{}
		l := &lender{memory: Memory{Node: 5 * lentBuffer, Peer: 3 * lentBuffer, Waits: func(ofPeer bool) { waits[ofPeer]++ }}}
		var out []*lent
		take := func(to peer.ID) bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b := l.take(ctx, to, lentBuffer)
			if b != nil {
				out = append(out, b)
			}
			return b != nil
		}
		for range 3 {
			require.True(t, take("a"))
		}
		require.False(t, take("a"), "one beyond the share")
		require.True(t, take("b"))
		require.True(t, take("b"))
		require.False(t, take("b"), "one beyond the memory of all")
		require.Equal(t, map[bool]int{true: 1, false: 1}, waits)
		l.put(out[0])
		require.True(t, take("b"))
		for _, b := range out[1:] {
			l.put(b)
		}
		require.Zero(t, l.inUse())
	})
}

// TestLargeBlocksAtLimit: blocks of more than a MiB count as what they are: no more of them are held than the memory of all has room for, whoever
// reads them, and each arrives in the end. One that was not expected is counted too.
func TestLargeBlocksAtLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &Transport{}
		tr.lender.memory = Memory{Node: 3 * largeLoan, Peer: 2 * largeLoan}
		big := bytes.Repeat(block(1), 3)
		const deals = 10
		var ends []net.Conn
		done := make(chan error, deals)
		loaded := make(chan int64, deals)
		for i := range deals {
			sd, c, theirs := slowSender(t.Context(), tr, peer.ID(fmt.Sprint(i%2)), big)
			ends = append(ends, theirs)
			go func() {
				data, err := sd.load(c)
				loaded <- tr.lender.inUse()
				if err == nil {
					_, err = sd.body(c, data)
				}
				sd.giveBack()
				done <- err
			}()
		}
		synctest.Wait()
		require.EqualValues(t, 3*largeLoan, tr.lender.inUse())
		require.Len(t, loaded, 3, "the others wait before they read")
		for i, theirs := range ends {
			go func() {
				got := make([]byte, len(big))
				_, err := io.ReadFull(theirs, got)
				if err == nil && !bytes.Equal(big, got) {
					err = fmt.Errorf("deal %d got something else", i)
				}
				done <- err
			}()
		}
		for range 2 * deals {
			require.NoError(t, <-done)
		}
		require.Zero(t, tr.lender.inUse())
	})
}
