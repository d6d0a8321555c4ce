package graphsync

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/reason"
)

// The traversal of graphsync keeps a path at each level, so that its memory is the square of the depth: 12 MiB for maxPath. A stream carries
// deeper DAGs.
const (
	// maxPath is how many steps may lead to a block: one or two a level with dag-cbor, three with dag-pb.
	maxPath = 1024
	// senderPath is maxPath of a sender. It is more, so that the recipient says first what is wrong.
	senderPath = maxPath + 96
)

// pathGuard notes how deep the requests of a channel have come. It is safe for concurrent use.
type pathGuard struct{ longest atomic.Int64 }

func (g *pathGuard) note(lc linking.LinkContext) {
	if n := int64(lc.LinkPath.Len()); n > g.longest.Load() {
		g.longest.Store(n)
	}
}

// watch makes a link system tell the guard of what it reads and writes. A block above the limit is none that it has: graphsync would wait for
// ever for the memory of one that is as large as its bound, on the one loop that serves everybody.
func (g *pathGuard) watch(ls ipld.LinkSystem) ipld.LinkSystem {
	read, write := ls.StorageReadOpener, ls.StorageWriteOpener
	if read != nil {
		ls.StorageReadOpener = func(lc linking.LinkContext, l ipld.Link) (io.Reader, error) {
			g.note(lc)
			r, err := read(lc, l)
			if b, ok := r.(*bytes.Buffer); ok && b.Len() > carstore.MaxBlock {
				return nil, reason.BlockTooLarge.Errorf("block %s has %d bytes, the limit is %d", l, b.Len(), carstore.MaxBlock)
			}
			return r, err
		}
	}
	if write != nil {
		ls.StorageWriteOpener = func(lc linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
			g.note(lc)
			return write(lc)
		}
	}
	return ls
}

// checkDepth is asked at each block that a request has read.
func (t *Transport) checkDepth(chid datatransfer.ChannelID, most int64) error {
	t.mu.Lock()
	s := t.stores[chid]
	t.mu.Unlock()
	if s == nil || s.guard.longest.Load() <= most {
		return nil
	}
	return reason.DAGTooDeep.Errorf("a block of the DAG lies more than %d steps below its root, the most that graphsync carries", most).
		WithHint("A stream carries deeper DAGs: use a provider of this product.")
}

// checkFollowed counts a link that the response to a request follows, repeats included, against the bounds of its channel.
func (t *Transport) checkFollowed(request graphsync.RequestData, block graphsync.BlockData) error {
	if n := t.overBound(request.ID()); n > 0 {
		return reason.TooManyLinks.Errorf("the selector follows more than %d links", n)
	}
	return t.checkLinks(request.ID(), block, senderSlack)
}

// senderSlack is how many times as many links a sender follows as a recipient, so that the recipient says first what is wrong.
const senderSlack = 2

// checkLinks counts a link that a request follows, repeats included.
func (t *Transport) checkLinks(id graphsync.RequestID, block graphsync.BlockData, slack uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[id]
	if c == nil {
		return nil
	}
	if c.walking != id {
		c.walking, c.walked = id, walked{}
	}
	return c.walked.count(block, slack)
}

// refusalDelay is how long a sender that refuses to walk on waits for the recipient to see why.
const refusalDelay = 3 * time.Second

// refuseToWalk ends a response because of the shape of its DAG. Graphsync tells the other side of a failure before what was sent is walked there, and
// without a reason: it is paused first, so that a recipient with the same bounds ends it itself.
func (t *Transport) refuseToWalk(id graphsync.RequestID, why error, ha graphsync.OutgoingBlockHookActions) {
	t.mu.Lock()
	c := t.requests[id]
	first := c != nil && c.refusing != id
	if c != nil {
		c.refusing = id
		if c.wrong == nil {
			c.wrong = why
		}
	}
	t.mu.Unlock()
	if !first {
		ha.TerminateWithError(why)
		return
	}
	ha.PauseResponse()
	t.background(func(ctx context.Context) {
		select {
		case <-time.After(refusalDelay):
			_ = t.gs.Unpause(ctx, id) // its next block is refused for good; it may have ended
		case <-ctx.Done():
		}
	})
}

// walked counts what a request walks: links, and blocks by the end of their hash.
type walked struct {
	links uint64
	met   map[[16]byte]struct{}
	again bool // the last one had been met before
}

func (w *walked) count(block graphsync.BlockData, slack uint64) error {
	l, ok := block.Link().(cidlink.Link)
	if !ok {
		return nil
	}
	if w.met == nil {
		w.met = map[[16]byte]struct{}{}
	}
	var key [16]byte
	hash := l.Cid.Hash()
	copy(key[:], hash[max(0, len(hash)-len(key)):])
	_, w.again = w.met[key]
	w.met[key] = struct{}{}
	w.links++
	return carstore.CheckLinks(w.links/slack, len(w.met))
}
