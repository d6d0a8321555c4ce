package stream

import (
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/port"
)

// askRelease asks the handler about the block after the last one, whose size is 0 if it has not been read, and says what it answers.
func (sd *sender) askRelease(size uint64) port.Release {
	may, say := sd.t.handler().MaySend(sd.r.chid, sd.at+1, size)
	for _, m := range say {
		if sd.flush() == nil {
			sd.out.message(m)
		}
	}
	sd.cleared, sd.bySize = may != port.ReleaseLater, may == port.ReleaseBySize
	return may
}

// pass says what is to be said, and waits until the next block may go, or may be read.
func (sd *sender) pass(next int64, size uint64) error {
	g := &sd.r.gate
	for {
		out, paused := g.take()
		for i, m := range out {
			if sd.flush() == nil {
				sd.out.message(m)
			}
			if sd.out.err != nil { // what was not said goes another way
				for _, m := range out[i:] {
					sd.t.undelivered(sd.r.chid, m, sd.out.err)
				}
				return sd.out.err
			}
		}
		if err := sd.alive(); err != nil {
			return err
		}
		if !paused && (!sd.cleared || next != sd.at+1) {
			sd.at = next - 1
			sd.askRelease(size)
		}
		if !paused && sd.cleared {
			return sd.out.err
		}
		if err := sd.flush(); err != nil {
			return err
		}
		sd.giveBack()
		select {
		case <-g.wake:
		case <-sd.r.ctx.Done():
		}
	}
}

// loadReleased reads a block that may go. Where that depends on its size it is read first, and read again when it has waited.
func (sd *sender) loadReleased(c cid.Cid, index int64) ([]byte, error) {
	for size := uint64(0); ; {
		if err := sd.pass(index, size); err != nil {
			return nil, err
		}
		data, err := sd.load(c)
		if err != nil || !sd.bySize {
			return data, err
		}
		size = uint64(len(data))
		if sd.askRelease(size); sd.cleared {
			return data, sd.out.err
		}
	}
}

// claimed tells of a block that the recipient says it has: whether the next one may go is decided anew.
func (sd *sender) claimed(c cid.Cid, index int64) ([]byte, error) {
	data, err := sd.load(c)
	if err != nil {
		return nil, err
	}
	sd.t.handler().OnBlockClaimed(sd.r.chid, uint64(len(data)), index)
	sd.cleared = false
	return data, nil
}
