package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Data is a CAR that has to be of a certain piece.
type Data struct {
	Path string // of the caller; it is linked or copied
	// Build, if it is there, writes the CAR to the path that it is given; Path is its name only.
	Build    func(ctx context.Context, to string) error
	Piece    cid.Cid
	Size     abi.PaddedPieceSize
	Progress func(done, total int64) // may be nil
}

// Pieces takes the data of deals. Add makes its own link or copy of it a shard under the piece's name and returns when every block of it can be found
// (R-W2: a piece that is there already is success); data of another piece is an error and leaves nothing.
type Pieces interface {
	Add(ctx context.Context, d Data) error
}

// Publisher puts a deal on a chain and returns its number there. The same deal again is the same number.
type Publisher interface {
	Publish(ctx context.Context, d Deal) (abi.DealID, error)
}

// Filter decides about a deal that keeps all rules. A refusal has a reason.
type Filter func(ctx context.Context, d Deal) (accept bool, reason string, err error)

// ProviderConfig is what a Provider needs.
type ProviderConfig struct {
	Host      host.Host
	Miner     address.Address // the provider's name on the chain
	Worker    address.Address // the key that signs answers
	Wallet    Signer
	Chain     ChainView
	Store     datastore.Batching
	Pieces    Pieces
	Publisher Publisher
	Filter    Filter   // may be nil
	SkipRules []string // names of Rules
	Timeouts  Timeouts
	FS        blob.FS // of what it writes itself; the host's if it is nil
	Log       *slog.Logger
}

// Bounds of what is answered at once: in all, and of one peer. A question has to come soon.
const (
	maxStreams   = 1024
	streamsOfOne = 128
	readQuestion = 10 * time.Second
)

// Provider is the intake of storage deals: it takes offline proposals, and the data that is imported for them, and after JoinTransfers
// online ones too, whose data their clients push. It is safe for concurrent use.
type Provider struct {
	cfg   ProviderConfig
	recs  recordStore[Deal, *Deal]
	skip  map[string]bool
	slots chan struct{}
	group lifecycle.Group

	transfers *Transfers // nil: offline deals only
	staging   *staging
	receive   ReceiveConfig

	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	ask       StorageAsk
	claims    map[cid.Cid]chan struct{}
	streamsOf map[peer.ID]int       // streams by peer
	pushes    map[cid.Cid]*incoming // that bring the data of deals
	refused   map[cid.Cid]string    // why the data that arrives is not taken
}

// NewProvider makes a provider; Start lets it answer.
func NewProvider(cfg ProviderConfig) (*Provider, error) {
	p := &Provider{cfg: cfg, recs: newDealStore(cfg.Store), skip: map[string]bool{}, slots: make(chan struct{}, maxStreams),
		claims: map[cid.Cid]chan struct{}{}, streamsOf: map[peer.ID]int{}, pushes: map[cid.Cid]*incoming{}, refused: map[cid.Cid]string{}}
	p.ctx, p.cancel = shared.Lifetime()
	p.cfg.Timeouts = cfg.Timeouts.orDefaults()
	if p.cfg.Log == nil {
		p.cfg.Log = slog.Default()
	}
	p.cfg.FS = blob.Or(p.cfg.FS)
	known := map[string]bool{}
	for _, r := range Rules() {
		known[r.Name] = true
	}
	for _, name := range cfg.SkipRules {
		if !known[name] {
			return nil, fmt.Errorf("there is no rule %q to leave out", name)
		}
		p.skip[name] = true
	}
	if !cfg.Wallet.Has(cfg.Worker) {
		return nil, fmt.Errorf("the wallet does not hold %s, which signs the answers of storage deals", cfg.Worker)
	}
	return p, nil
}

// Start finishes what a crash interrupted and answers from then on, until Stop.
func (p *Provider) Start(ctx context.Context) error {
	if err := p.loadAsk(ctx); err != nil {
		return err
	}
	list, err := p.recs.unfinishedRecords(ctx)
	if err != nil {
		p.cfg.Log.Error("storage deals that were on their way", "error", err)
	}
	for _, d := range list {
		if err := p.resumeDeal(ctx, d); err != nil { // for one that was being published, importing its data again does it too
			p.cfg.Log.Error("storage deal", "proposal", d.ProposalCid, "error", err)
		}
	}
	if p.transfers != nil {
		if err := p.sweepStaging(ctx); err != nil {
			p.cfg.Log.Warn("clear away data of storage deals", "error", err)
		}
		p.group.Go(p.maintainDeals)
	}
	for id, answer := range p.answerHandlers() {
		p.cfg.Host.SetStreamHandler(id, p.serveStreams(answer))
	}
	return nil
}

// answerHandlers are the protocols that are answered.
func (p *Provider) answerHandlers() map[protocol.ID]answer {
	return map[protocol.ID]answer{
		DealProtocol111:   p.answerDeal,
		DealProtocol110:   p.answerDeal,
		DealProtocol101:   p.answerDeal,
		AskProtocol110:    p.answerAsk,
		AskProtocol101:    p.answerAsk,
		StatusProtocol110: p.answerStatus,
		StatusProtocol101: p.answerStatus,
	}
}

type answer func(context.Context, network.Stream) error

// Stop ends the answers and waits for those that are being given, or until ctx ends.
func (p *Provider) Stop(ctx context.Context) error {
	for id := range p.answerHandlers() {
		p.cfg.Host.RemoveStreamHandler(id)
	}
	p.cancel()
	return p.group.Close(ctx)
}

// serveStreams bounds how many streams are answered at once, and ends each one.
func (p *Provider) serveStreams(give answer) network.StreamHandler {
	return func(s network.Stream) {
		from := s.Conn().RemotePeer()
		if !p.admitStream(from) {
			_ = s.Reset()
			return
		}
		ok := p.group.Go(func() {
			defer p.dismissStream(from)
			stop := context.AfterFunc(p.ctx, func() { _ = s.Reset() })
			defer stop()
			if err := give(p.ctx, s); err != nil {
				p.cfg.Log.Info("storage deal stream", "peer", s.Conn().RemotePeer(), "protocol", s.Protocol(), "error", err)
				_ = s.Reset()
				return
			}
			_ = s.Close()
		})
		if !ok {
			p.dismissStream(from)
			_ = s.Reset()
		}
	}
}

// admitStream counts a stream of a peer, unless there are too many.
func (p *Provider) admitStream(from peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streamsOf[from] >= streamsOfOne {
		return false
	}
	select {
	case p.slots <- struct{}{}:
		p.streamsOf[from]++
		return true
	default:
		return false
	}
}

func (p *Provider) dismissStream(from peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	<-p.slots
	if p.streamsOf[from]--; p.streamsOf[from] == 0 {
		delete(p.streamsOf, from)
	}
}

func (p *Provider) answerDeal(ctx context.Context, s network.Stream) error {
	f := formOfProtocol(s.Protocol())
	var prop Proposal
	if err := receiveMessage(s, min(p.cfg.Timeouts.Read, readQuestion), &prop, f); err != nil {
		return fmt.Errorf("read the proposal: %w", err)
	}
	if prop.DealProposal == nil || prop.Piece == nil {
		return errors.New("the proposal or its data reference is missing")
	}
	resp, err := p.considerProposal(ctx, s, &prop)
	if err != nil {
		return err
	}
	sig, err := p.signAnswer(resp, f)
	if err != nil {
		return err
	}
	return sendMessage(s, p.cfg.Timeouts.Write, &SignedResponse{Response: *resp, Signature: sig}, f)
}

// considerProposal answers a proposal: one that is known with its state, a new one by the rules and the filter.
func (p *Provider) considerProposal(ctx context.Context, s network.Stream, prop *Proposal) (*Response, error) {
	name, err := ProposalCID(prop.DealProposal)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, admitWait)
	defer cancel()
	if err := p.lockDeal(wait, name); err != nil { // the same proposal twice at once is judged once
		return nil, err
	}
	defer p.unlockDeal(name)
	old, err := p.recs.getRecord(ctx, name)
	if err == nil {
		return &Response{State: old.State, Message: old.Message, Proposal: name}, nil
	}
	if !errors.Is(err, ErrUnknownDeal) {
		return nil, err
	}
	c := &Candidate{Signed: prop.DealProposal, Piece: prop.Piece, Protocol: s.Protocol(), miner: p.cfg.Miner, chain: p.cfg.Chain, ask: p.Ask(), online: p.transfers != nil}
	d := Deal{ProposalCid: name, Proposal: *prop.DealProposal, Ref: *prop.Piece, FastRetrieval: prop.FastRetrieval, Client: s.Conn().RemotePeer(),
		State: StorageDealWaitingForData, Created: time.Now()}
	err = applyRules(ctx, c, p.skip)
	if err == nil {
		err = p.filterDeal(ctx, d)
	}
	if err != nil {
		p.cfg.Log.Info("storage deal refused", "proposal", name, "peer", d.Client, "reason", err)
		why := err.Error()
		if own := (*ownFaultError)(nil); errors.As(err, &own) {
			why = reason.ToldStrangers(p.cfg.Log, own.what, own.cause)
		}
		return &Response{State: StorageDealFailing, Message: clipText("deal rejected: " + why), Proposal: name}, nil
	}
	if err := p.recs.putRecord(ctx, d); err != nil {
		return nil, err
	}
	return &Response{State: d.State, Message: d.Message, Proposal: name}, nil
}

// clipText keeps a reason within what a message may hold.
func clipText(s string) string { return strings.ToValidUTF8(s[:min(len(s), 4096)], "") }

// lockDeal waits until the caller is the only one who deals with a proposal; free ends it.
func (p *Provider) lockDeal(ctx context.Context, proposal cid.Cid) error {
	for {
		taken := p.claimDeal(proposal)
		if taken == nil {
			return nil
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// claimDeal makes the caller the only one who changes a deal until free; while another is, it returns what is closed at its end.
func (p *Provider) claimDeal(c cid.Cid) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if taken := p.claims[c]; taken != nil {
		return taken
	}
	p.claims[c] = make(chan struct{})
	return nil
}

func (p *Provider) unlockDeal(c cid.Cid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.claims[c])
	delete(p.claims, c)
}

func (p *Provider) filterDeal(ctx context.Context, d Deal) error {
	if p.cfg.Filter == nil {
		return nil
	}
	ok, reason, err := p.cfg.Filter(ctx, d)
	switch {
	case err != nil:
		return &ownFaultError{"the filter of storage deals failed", err}
	case !ok:
		return errors.New(reason)
	}
	return nil
}

// Deals returns all deals, oldest proposals in no order.
func (p *Provider) Deals(ctx context.Context) ([]Deal, error) { return p.recs.listRecords(ctx) }

// Deal returns the deal of a proposal.
func (p *Provider) Deal(ctx context.Context, proposal cid.Cid) (Deal, error) {
	return p.recs.getRecord(ctx, proposal)
}
