package retrievalimpl

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// Stop implements retrievalmarket.RetrievalProvider; deals go on at the next start.
func (p *Provider) Stop() error {
	if p.cancel == nil {
		return nil
	}
	err := p.cfg.Network.StopHandlingRequests()
	p.mu.Lock()
	list := make([]*providerDeal, 0, len(p.deals))
	for _, d := range p.deals {
		list = append(list, d)
	}
	chids := slices.Collect(maps.Keys(p.byChan))
	p.mu.Unlock()
	p.suspend(chids)
	p.cancel()
	for _, d := range list {
		err = errors.Join(err, d.machine.Stop(context.WithoutCancel(p.ctx)), d.release())
		d.keep.close()
	}
	err = errors.Join(err, p.group.Close(context.WithoutCancel(p.ctx)), p.subs.flush(context.WithoutCancel(p.ctx)))
	if p.onStop != nil {
		err = errors.Join(err, p.onStop())
	}
	return err
}

// suspendWait bounds how long a transfer may take to let go of its piece.
const suspendWait = time.Second

// suspend has transfers let go of their pieces before these are given back: a client would be told that a block is missing.
func (p *Provider) suspend(chids []dt.ChannelID) {
	ctx, cancel := context.WithTimeout(p.ctx, suspendWait)
	defer cancel()
	var wg sync.WaitGroup
	for _, chid := range chids {
		wg.Go(func() {
			if err := p.cfg.Hub.dt.Suspend(ctx, chid); err != nil && !errors.Is(err, dt.ErrChannelNotFound) {
				p.cfg.Log.Debug("suspend a transfer", "channel", chid, "error", err)
			}
		})
	}
	wg.Wait()
}
