package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/ipfsstore"
	"github.com/cartage-dev/cartage/storagedeal"
)

// dealBlocks reads the data of online deals: what was imported, else what an IPFS node has. Nothing is copied.
type dealBlocks struct{ n *Node }

// Open implements storagedeal.Blocks.
func (b dealBlocks) Open(ctx context.Context, root cid.Cid) (ipld.LinkSystem, io.Closer, error) {
	i, ok, err := b.n.imports.Find(ctx, root)
	if err != nil {
		return ipld.LinkSystem{}, nil, err
	}
	if ok {
		v, err := b.n.imports.View(ctx, i.ID)
		if err != nil {
			return ipld.LinkSystem{}, nil, err
		}
		return v.LinkSystem(), v, nil
	}
	at := b.n.parts.Config.Client.IpfsMAddr
	if at == "" {
		return ipld.LinkSystem{}, nil, api.Errorf(api.CodeNotFound, "Import it with cartage import, or name an IPFS node in [Client] of config.toml.", "no import has root %s", root)
	}
	s, err := ipfsstore.New(at, nil)
	if err != nil {
		return ipld.LinkSystem{}, nil, api.Errorf(api.CodeUsage, "It is IpfsMAddr of [Client] in config.toml.", "%w", err)
	}
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		blk, err := s.Get(b.n.ctx, c)
		if err != nil {
			return nil, fmt.Errorf("block %s of the IPFS node at %s: %w", c, at, err)
		}
		return blk.RawData(), carstore.Verify(c, blk.RawData())
	})
	return ls, io.NopCloser(nil), nil
}

// pieceOf is the piece that the data below a root makes, without writing its archive.
func (b dealBlocks) pieceOf(ctx context.Context, root cid.Cid) (p commp.Piece, err error) {
	ls, closer, err := b.Open(ctx, root)
	if err != nil {
		return p, err
	}
	w := commp.NewWriter(0)
	werr := carstore.WriteCARFrom(ctx, &ls, root, w)
	p, err = w.Sum()
	if werr != nil {
		err = werr
	}
	return p, errors.Join(err, closer.Close())
}

// Piece implements storagedeal.Blocks.
func (b dealBlocks) Piece(ctx context.Context, root cid.Cid) (cid.Cid, abi.UnpaddedPieceSize, error) {
	p, err := b.pieceOf(ctx, root)
	return p.CID, abi.UnpaddedPieceSize(p.Padded.Unpadded()), err
}

// ClientStartDeal answers Cartage.ClientStartDeal: a free deal whose data is pushed to the provider. The piece is computed if the params
// do not name it.
func (s Service) ClientStartDeal(ctx context.Context, p api.StartDealParams) (*cid.Cid, error) {
	if s.n.pusher == nil {
		return nil, noChainView()
	}
	if p.Data == nil {
		return nil, api.Errorf(api.CodeUsage, "", "no data reference is given")
	}
	if p.Data.TransferType == storagedeal.TTManual {
		return nil, api.Errorf(api.CodeUsage, "cartage deal --manual-stateless-deal, or ClientStatelessDeal, proposes one.", "data that comes by other ways is no online deal")
	}
	if p.Data.TransferType == "" {
		d := *p.Data
		d.TransferType = storagedeal.TTGraphsync
		p.Data = &d
	}
	q, err := s.dealParams(ctx, p)
	if err != nil {
		return nil, err
	}
	c, err := s.n.pusher.StartDeal(ctx, q)
	if err != nil {
		err = coded(err)
		var e *api.Error
		if c.Defined() && !errors.As(err, &e) {
			err = api.Errorf(api.CodeOther, "It can go on: cartage deal resume "+c.String(), "%w", err)
		}
		return nil, err
	}
	return &c, nil
}

func push(p storagedeal.Push) api.StoragePush {
	return api.StoragePush{Proposal: p.Proposal.String(), Root: p.Ref.Root.String(), Wallet: p.Wallet.String(), Miner: p.Miner().String(), Peer: p.Peer.String(),
		State: strings.TrimPrefix(p.State.String(), "StorageDeal"), Message: p.Message, Sent: p.Sent, Pushing: p.State.Pushing(), Created: p.Created.UTC().Format(time.RFC3339)}
}

// StoragePushes answers Cartage.StoragePushes.
func (s Service) StoragePushes(ctx context.Context) ([]api.StoragePush, error) {
	out := []api.StoragePush{}
	if s.n.pusher == nil {
		return out, nil
	}
	list, err := s.n.pusher.Pushes(ctx)
	for _, p := range list {
		out = append(out, push(p))
	}
	return out, coded(err)
}

// StoragePush answers Cartage.StoragePush.
func (s Service) StoragePush(ctx context.Context, proposal string) (*api.StoragePush, error) {
	if s.n.pusher == nil {
		return nil, noChainView()
	}
	c, err := ParseCID(proposal)
	if err != nil {
		return nil, err
	}
	p, err := s.n.pusher.Push(ctx, c)
	if err != nil {
		return nil, coded(err)
	}
	v := push(p)
	return &v, nil
}

// ResumeStoragePush answers Cartage.ResumeStoragePush: a push that failed goes on.
func (s Service) ResumeStoragePush(ctx context.Context, proposal string) error {
	if s.n.pusher == nil {
		return noChainView()
	}
	c, err := ParseCID(proposal)
	if err != nil {
		return err
	}
	return coded(s.n.pusher.Resume(ctx, c))
}

// startStorage answers storage deals, when the transfers of their data are up.
func (n *Node) startStorage(ctx context.Context) error {
	if n.storage != nil {
		if err := n.migrateDeals(ctx); err != nil {
			return err
		}
		if err := n.storage.Start(n.ctx); err != nil {
			return err
		}
	}
	return nil
}

// startPushes goes on with the data of storage deals, when others can be reached.
func (n *Node) startPushes(ctx context.Context) error {
	if n.pusher == nil {
		return nil
	}
	return n.pusher.Start(ctx)
}
