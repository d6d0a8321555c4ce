package graphsync

import (
	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
)

// leftOut tells of a block that is not sent because the recipient says that it has it. What counts of that may use up what was paid: behind the last
// such block it is decided anew whether the next one may go.
func (t *Transport) leftOut(request graphsync.RequestData, block graphsync.BlockData, ha graphsync.OutgoingBlockHookActions) {
	chid, first, ok := t.claimAt(request.ID(), claimedBy(request), block)
	if !ok {
		return
	}
	h := t.handler()
	if first && h.ClaimCounts(chid, block.Index()) {
		h.OnBlockClaimed(chid, block.BlockSize(), block.Index())
	}
	if block.Index() != claimedBy(request) {
		return
	}
	t.beginAsking(chid, request.ID())
	may, say := t.release(chid, block.Index()+1)
	pause := t.endAsking(chid, request.ID(), may == port.ReleaseLater)
	if sayWithBlock(say, ha) && pause {
		ha.PauseResponse()
	}
}

// claimedBy is how many of the first blocks the recipient says that it has.
func claimedBy(request graphsync.RequestData) int64 {
	ext, ok := request.Extension(graphsync.ExtensionsDoNotSendFirstBlocks)
	if !ok {
		return 0
	}
	has, err := donotsendfirstblocks.DecodeDoNotSendFirstBlocks(ext)
	if err != nil {
		return 0
	}
	return has
}

// claimAt finds the channel of a block that was left out on the word of the recipient, and whether the block comes for the first time.
func (t *Transport) claimAt(id graphsync.RequestID, has int64, block graphsync.BlockData) (chid datatransfer.ChannelID, first, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[id]
	if c == nil || !c.sending || block.Index() > has {
		return chid, false, false
	}
	return c.id, c.walking == id && !c.walked.again, true
}
