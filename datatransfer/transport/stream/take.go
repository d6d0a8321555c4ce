package stream

import (
	"fmt"

	"github.com/ipfs/go-cid"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/port"
)

// visit takes the next block of the traversal: out of the store if it is there already, else off the stream.
func (rc *recipient) visit(c cid.Cid, index int64, leaf bool) ([]byte, error) {
	if data, ok := carstore.Inlined(c); ok {
		return data, nil
	}
	resumes := rc.r.gate.count()
	if again := rc.seen.add(c); again || index <= rc.has {
		if err := carstore.CheckLinks(uint64(index), rc.seen.n); err != nil {
			return nil, err
		}
		if again && index > rc.has {
			if err := rc.count(); err != nil {
				return nil, err
			}
			if err := rc.pause(resumes, rc.t.handler().OnDataReceived(rc.r.chid, cidlink.Link{Cid: c}, 0, index, false)); err != nil {
				return nil, err
			}
		}
		if leaf {
			return nil, nil
		}
		data, err := load(rc.r.ctx, &rc.ls, c)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errGap, c, err)
		}
		return data, nil
	}
	if data, ok := rc.here(c, index); ok {
		return data, rc.pause(resumes, rc.t.handler().OnDataReceived(rc.r.chid, cidlink.Link{Cid: c}, uint64(len(data)), index, false))
	}
	data, err := rc.next(c)
	if err != nil {
		return nil, err
	}
	if err := save(rc.saving, &rc.ls, c, data); err != nil {
		return nil, fmt.Errorf("store block %s: %w", c, err)
	}
	if rc.t.handler().TakesBatches(rc.r.chid) {
		rc.got = append(rc.got, port.BlockRef{Cid: c, Size: uint64(len(data)), Index: index})
		return data, nil
	}
	if err := rc.gathered.Flush(); err != nil {
		return nil, err
	}
	rc.t.moved(rc.r, index)
	if err := rc.pause(resumes, rc.t.handler().OnDataReceived(rc.r.chid, cidlink.Link{Cid: c}, uint64(len(data)), index, true)); err != nil {
		return nil, err
	}
	return data, nil
}

// count has the store write the blocks that came, and tells the handler of them. It is called before the stream is waited for, so that no
// block waits for the next one.
func (rc *recipient) count() error {
	if len(rc.got) == 0 {
		return nil
	}
	got := rc.got
	rc.got = rc.got[:0]
	if err := rc.gathered.Flush(); err != nil {
		return fmt.Errorf("store blocks: %w", err)
	}
	rc.t.moved(rc.r, got[len(got)-1].Index)
	return rc.t.handler().OnBlocksReceived(rc.r.chid, got)
}

// here takes a block out of the store that comes before the first one that has to be asked for.
func (rc *recipient) here(c cid.Cid, index int64) ([]byte, bool) {
	if rc.question == nil {
		return nil, false
	}
	data, err := load(rc.r.ctx, &rc.ls, c)
	if err != nil || verify(c, data) != nil {
		return nil, false
	}
	rc.has = index
	rc.t.moved(rc.r, index)
	return data, true
}
