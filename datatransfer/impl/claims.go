package impl

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
)

// What counts as sent on a pull are the unique bytes of its traversal, from its base on: blocks that were handed out, and blocks that the recipient
// says it got. The count is stored now and then, so that a crash forgets the newest; the recipient tells of them again at its restart, by its
// position, and is believed: it owes what it says it has.

// ClaimCounts implements port.ClaimCounter.
func (m *Manager) ClaimCounts(chid dt.ChannelID, index int64) bool {
	c, err := m.live(chid)
	return err == nil && index > 0 && c.Claimable(uint64(index))
}

// OnBlockClaimed implements port.ClaimCounter.
func (m *Manager) OnBlockClaimed(chid dt.ChannelID, size uint64, index int64) {
	if c, err := m.live(chid); err == nil && index > 0 {
		c.Claim(uint64(index), size)
	}
}

// recount counts all blocks of a pull whose recipient says that it has everything. Only a count that was taken up from the store can be behind.
func (m *Manager) recount(c *channels.Channel) error {
	behind := false
	c.Do(func(_ *channels.Record, cr *channels.Credit) { behind = cr.Behind })
	store, known := m.transport.StoreOf(c.ID())
	if !behind || !c.IsPull() || !known {
		return nil
	}
	s := c.State()
	if err := walkUnique(&store, s.BaseCID(), s.Selector(), func(index, size uint64) {
		if c.Claimable(index) {
			c.Claim(index, size)
		}
	}); err != nil {
		return fmt.Errorf("count what was sent on channel %s: %w", c.ID(), err)
	}
	c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Behind = false })
	return nil
}

// walkUnique tells of each block that a selector selects below a root, once, with its place among all links, from 1, and its size.
func walkUnique(store *ipld.LinkSystem, root cid.Cid, selector ipld.Node, tell func(index, size uint64)) error {
	mine, index, met := *store, uint64(0), map[string]struct{}{}
	mine.StorageReadOpener = func(lc linking.LinkContext, l ipld.Link) (io.Reader, error) {
		index++
		r, err := store.StorageReadOpener(lc, l)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(r, carstore.MaxBlock+1))
		if err != nil {
			return nil, err
		}
		cl, ok := l.(cidlink.Link)
		if !ok {
			return nil, fmt.Errorf("link of type %T", l)
		}
		key := string(cl.Cid.Hash())
		_, again := met[key]
		met[key] = struct{}{}
		if _, inlined := carstore.Inlined(cl.Cid); !again && !inlined {
			tell(index, uint64(len(data)))
		}
		return bytes.NewReader(data), carstore.CheckLinks(index, len(met))
	}
	return carstore.WalkBounded(&mine, root, selector)
}
