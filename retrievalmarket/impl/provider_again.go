package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// againIdle is how long the piece of a deal that is over stays open without a read.
const againIdle = 30 * time.Second

// againReader reads the piece of a completed deal for a client who lost the tail of it: the transfer sends again what it has
// counted, and nothing else. The piece is opened by a read and given back after a while without any.
type againReader struct {
	p     *Provider
	piece cid.Cid

	mu     sync.Mutex
	reader Reader
	idle   *time.Timer
}

// linkSystemAgain serves a deal whose piece is given back; nil if it did not complete on this channel.
func (p *Provider) linkSystemAgain(chid dt.ChannelID, id rm.DealID) *ipld.LinkSystem {
	a := p.again(chid, id)
	if a == nil {
		return nil
	}
	ls := carstore.Links(a.get)
	return &ls
}

func (p *Provider) again(chid dt.ChannelID, id rm.DealID) *againReader {
	if p.cfg.Hub.awaitProvider() != nil {
		return nil
	}
	d, err := p.store.get(p.ctx, rm.ProviderDealIdentifier{Receiver: chid.Initiator, DealID: id}.String())
	done := d.Status == rm.DealStatusCompleted || d.Status == rm.DealStatusCompleting
	if err != nil || !done || d.ChannelID != chid || d.PieceInfo == nil {
		return nil
	}
	return &againReader{p: p, piece: d.PieceInfo.PieceCID}
}

func (a *againReader) get(c cid.Cid) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reader == nil {
		if err := a.open(); err != nil {
			return nil, fmt.Errorf("send a completed deal again: %w", err)
		}
	}
	a.idle.Reset(againIdle)
	return a.reader.Get(c)
}

// open opens the piece until it has been idle, or the provider stops; mu is held.
func (a *againReader) open() error {
	ctx, cancel := context.WithTimeout(a.p.ctx, againIdle) // nothing is unsealed once more for it
	defer cancel()
	r, err := a.p.cfg.Pieces.Acquire(ctx, a.piece)
	if err != nil {
		return err
	}
	idle := time.NewTimer(againIdle)
	a.reader, a.idle = r, idle
	if a.p.group.Go(func() {
		defer a.close()
		defer idle.Stop()
		select {
		case <-idle.C:
		case <-a.p.ctx.Done():
		}
	}) {
		return nil
	}
	a.reader = nil
	return errors.Join(errors.New("the provider has stopped"), r.Close())
}

func (a *againReader) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.reader.Close(); err != nil {
		a.p.cfg.Log.Warn("piece of a completed deal did not close", "piece", a.piece, "error", err)
	}
	a.reader = nil
}
