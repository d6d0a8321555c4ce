package storagedeal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/network"
)

// answerStatus tells the client of a deal, and nobody else, how it stands.
func (p *Provider) answerStatus(ctx context.Context, s network.Stream) error {
	f := formOfProtocol(s.Protocol())
	var req DealStatusRequest
	if err := receiveMessage(s, min(p.cfg.Timeouts.Read, readQuestion), &req, f); err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	st := p.statusOf(ctx, &req)
	sig, err := p.signAnswer(st, f)
	if err != nil {
		return err
	}
	return sendMessage(s, p.cfg.Timeouts.Write, &DealStatusResponse{DealState: *st, Signature: *sig}, f)
}

func (p *Provider) statusOf(ctx context.Context, req *DealStatusRequest) *ProviderDealState {
	name := req.Proposal
	fail := func(err error) *ProviderDealState {
		p.cfg.Log.Info("storage deal status", "proposal", name, "error", err)
		return &ProviderDealState{State: StorageDealError, Message: "internal error"}
	}
	d, err := p.recs.getRecord(ctx, name)
	if errors.Is(err, ErrUnknownDeal) {
		return &ProviderDealState{State: StorageDealProposalNotFound, Message: "deal proposal not found", ProposalCid: &name}
	}
	if err != nil {
		return fail(err)
	}
	key, err := p.cfg.Chain.AccountKey(ctx, d.Proposal.Proposal.Client)
	if err == nil {
		err = verifySignature(&req.Signature, key, cidBytes(name))
	}
	if err != nil {
		return fail(err)
	}
	return &ProviderDealState{State: d.State, Message: d.Message, Proposal: &d.Proposal.Proposal, ProposalCid: &name, DealID: d.DealID, FastRetrieval: d.FastRetrieval}
}

func (p *Provider) answerAsk(_ context.Context, s network.Stream) error {
	f := formOfProtocol(s.Protocol())
	var req AskRequest
	if err := receiveMessage(s, min(p.cfg.Timeouts.Read, readQuestion), &req, f); err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	var resp AskResponse
	if req.Miner == p.cfg.Miner {
		a := p.Ask()
		sig, err := p.signAnswer(&a, f)
		if err != nil {
			return err
		}
		resp.Ask = &SignedStorageAsk{Ask: &a, Signature: sig}
	}
	return sendMessage(s, p.cfg.Timeouts.Write, &resp, f)
}

// signAnswer signs an answer in the form in which it is sent.
func (p *Provider) signAnswer(m message, f form) (*crypto.Signature, error) {
	data, err := encodeMessage(m, f)
	if err != nil {
		return nil, err
	}
	return p.cfg.Wallet.Sign(p.cfg.Worker, data)
}

// Ask is what the provider takes.
func (p *Provider) Ask() StorageAsk {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ask
}

var askKey = datastore.NewKey("/ask")

// SetAsk changes prices (attoFIL for a GiB and epoch) and sizes (padded bytes) durably, for so many epochs from now.
func (p *Provider) SetAsk(ctx context.Context, price, verified abi.TokenAmount, low, high abi.PaddedPieceSize, epochs abi.ChainEpoch) (StorageAsk, error) {
	for _, s := range []abi.PaddedPieceSize{low, high} {
		if err := s.Validate(); err != nil {
			return StorageAsk{}, fmt.Errorf("piece size %d: %w", s, err)
		}
	}
	if low > high || price.Sign() < 0 || verified.Sign() < 0 || epochs <= 0 {
		return StorageAsk{}, fmt.Errorf("not an ask: prices %s and %s, pieces of %d to %d bytes, for %d epochs", price, verified, low, high, epochs)
	}
	head, err := p.cfg.Chain.Head(ctx)
	if err != nil {
		return StorageAsk{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := StorageAsk{Price: price, VerifiedPrice: verified, MinPieceSize: low, MaxPieceSize: high, Miner: p.cfg.Miner, Timestamp: head, Expiry: head + epochs, SeqNo: p.ask.SeqNo + 1}
	data, err := json.Marshal(a)
	if err != nil {
		return a, err
	}
	if err := p.cfg.Store.Put(ctx, askKey, data); err != nil {
		return a, err
	}
	if err := p.cfg.Store.Sync(ctx, askKey); err != nil {
		return a, err
	}
	p.ask = a
	return a, nil
}

// loadAsk reads the ask; the first one is free, for what fits into a sector.
func (p *Provider) loadAsk(ctx context.Context) error {
	data, err := p.cfg.Store.Get(ctx, askKey)
	if err == nil {
		if err := json.Unmarshal(data, &p.ask); err != nil || p.ask.Miner == p.cfg.Miner {
			return err
		}
		a := p.ask // of another name of this provider
		_, err = p.SetAsk(ctx, a.Price, a.VerifiedPrice, a.MinPieceSize, a.MaxPieceSize, 365*EpochsInDay)
		return err
	}
	if !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	info, err := p.cfg.Chain.MinerInfo(ctx, p.cfg.Miner)
	if err != nil {
		return err
	}
	_, err = p.SetAsk(ctx, big.Zero(), big.Zero(), 128, abi.PaddedPieceSize(info.SectorSize), 365*EpochsInDay)
	return err
}
