package storagedeal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/multiformats/go-multibase"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/paych"
)

// Signer has the keys of a node.
type Signer interface {
	Has(address.Address) bool
	Sign(address.Address, []byte) (*crypto.Signature, error)
}

// ClientConfig is what a Client needs.
type ClientConfig struct {
	Host     host.Host
	Chain    ChainView
	Wallet   Signer
	Timeouts Timeouts
}

// Client proposes storage deals and keeps nothing of them (R-T6). It is safe for concurrent use.
type Client struct{ cfg ClientConfig }

// NewClient makes a client.
func NewClient(cfg ClientConfig) *Client {
	cfg.Timeouts = cfg.Timeouts.orDefaults()
	return &Client{cfg}
}

// defaultStart is how far ahead a deal starts whose start is not given.
const defaultStart = 8 * EpochsInDay

// StatelessDeal proposes a free, offline deal to a provider and returns the CID of the signed proposal, which is all that remains
// of it: a status query needs it later. With an error after signing it comes too: the provider may have taken the deal although its answer
// was lost. The same params make another proposal when the chain has moved on, unless they name a start epoch.
func (c *Client) StatelessDeal(ctx context.Context, p StartDealParams) (cid.Cid, error) {
	if err := p.check(TTManual); err != nil {
		return cid.Undef, err
	}
	return c.proposeOnce(ctx, p)
}

// Propose proposes a deal whose data the caller transfers, and returns the CID of the signed proposal when the provider waits for it. Like
// StatelessDeal it keeps nothing; a Pusher does the whole.
func (c *Client) Propose(ctx context.Context, p StartDealParams) (cid.Cid, error) {
	if err := p.check(TTGraphsync); err != nil {
		return cid.Undef, err
	}
	if p.Data.PieceCid == nil {
		return cid.Undef, fmt.Errorf("%w: no piece CID is given", ErrOnline)
	}
	return c.proposeOnce(ctx, p)
}

// proposeOnce signs and proposes a deal of which nothing is kept.
func (c *Client) proposeOnce(ctx context.Context, p StartDealParams) (cid.Cid, error) {
	deal, miner, err := c.signProposal(ctx, p)
	if err != nil {
		return cid.Undef, err
	}
	name, err := ProposalCID(deal)
	if err != nil {
		return cid.Undef, err
	}
	state, message, err := c.offerDeal(ctx, miner, name, &Proposal{DealProposal: deal, Piece: p.Data, FastRetrieval: p.FastRetrieval})
	if err == nil && state != StorageDealWaitingForData {
		err = &RefusedError{Proposal: name, State: state, Message: message}
	}
	return name, err
}

// offerDeal proposes a signed deal and answers in which state the provider has it.
func (c *Client) offerDeal(ctx context.Context, miner MinerInfo, name cid.Cid, p *Proposal) (State, string, error) {
	resp, err := c.sendProposal(ctx, miner, p)
	if err != nil {
		return 0, "", fmt.Errorf("proposal %s: %w", name, err)
	}
	r := resp.Response
	if !r.Proposal.Equals(name) {
		return 0, "", fmt.Errorf("%w: provider returned proposal cid %s but we expected %s", ErrBadAnswer, r.Proposal, name)
	}
	return r.State, printable(r.Message), nil
}

// ErrBadAnswer means that a provider answered something else than was asked.
var ErrBadAnswer = errors.New("the provider's answer is for something else")

// printable is a text of a peer without what could change a terminal or forge a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// RefusedError is the answer of a provider that does not wait for the data of a proposal.
type RefusedError struct {
	Proposal cid.Cid
	State    State
	Message  string
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("provider returned unexpected state %d for proposal %s, with message: %s", e.State, e.Proposal, e.Message)
}

// dealParties finds out who makes a deal: the key that signs it, and the provider.
func (c *Client) dealParties(ctx context.Context, p StartDealParams) (address.Address, MinerInfo, error) {
	key, err := c.cfg.Chain.AccountKey(ctx, p.Wallet)
	if err != nil {
		return key, MinerInfo{}, fmt.Errorf("resolve wallet %s: %w", p.Wallet, err)
	}
	if !c.cfg.Wallet.Has(key) {
		return key, MinerInfo{}, fmt.Errorf("provided address doesn't exist in wallet: %s", key)
	}
	miner, err := c.cfg.Chain.MinerInfo(ctx, p.Miner)
	if err != nil {
		return key, miner, err
	}
	version, err := c.cfg.Chain.NetworkVersion(ctx)
	if err != nil {
		return key, miner, err
	}
	return key, miner, checkDuration(p.MinBlocksDuration, version)
}

// signProposal makes the signed proposal of params.
func (c *Client) signProposal(ctx context.Context, p StartDealParams) (*market.ClientDealProposal, MinerInfo, error) {
	key, miner, err := c.dealParties(ctx, p)
	if err != nil {
		return nil, miner, err
	}
	deal, err := c.dealTerms(ctx, p, key, miner)
	if err != nil {
		return nil, miner, err
	}
	data, err := MarshalProposal(deal)
	if err != nil {
		return nil, miner, err
	}
	sig, err := c.cfg.Wallet.Sign(key, data)
	if err != nil {
		return nil, miner, err
	}
	return &market.ClientDealProposal{Proposal: *deal, ClientSignature: *sig}, miner, nil
}

// dealTerms fills in what params leave to the chain.
func (c *Client) dealTerms(ctx context.Context, p StartDealParams, key address.Address, miner MinerInfo) (*market.DealProposal, error) {
	size := p.Data.PieceSize.Padded()
	if uint64(size) > uint64(miner.SectorSize) {
		return nil, fmt.Errorf("data doesn't fit in a sector: a piece of %d bytes, sectors of %d", size, miner.SectorSize)
	}
	start := p.DealStartEpoch
	if start == 0 {
		head, err := c.cfg.Chain.Head(ctx)
		if err != nil {
			return nil, err
		}
		start = head + defaultStart
	}
	collateral := p.ProviderCollateral
	if collateral.Nil() {
		low, _, err := c.cfg.Chain.CollateralBounds(ctx, size, p.VerifiedDeal)
		if err != nil {
			return nil, err
		}
		collateral = low
	}
	base := multibase.Encoding(multibase.Base64url)
	if p.Data.Root.Version() == 0 {
		base = multibase.Base58BTC // the one form that it has
	}
	text, err := p.Data.Root.StringOfBase(base)
	if err != nil {
		return nil, fmt.Errorf("label of %s: %w", p.Data.Root, err)
	}
	label, err := market.NewLabelFromString(text)
	if err != nil {
		return nil, fmt.Errorf("label of %s: %w", p.Data.Root, err)
	}
	return &market.DealProposal{
		PieceCID: *p.Data.PieceCid, PieceSize: size, VerifiedDeal: p.VerifiedDeal, Client: key, Provider: p.Miner, Label: label,
		StartEpoch: start, EndEpoch: EndEpoch(start, p.MinBlocksDuration, miner.PeriodStart),
		StoragePricePerEpoch: big.Zero(), ProviderCollateral: collateral, ClientCollateral: big.Zero(),
	}, nil
}

// sendProposal sends a proposal and checks who answered.
func (c *Client) sendProposal(ctx context.Context, miner MinerInfo, p *Proposal) (*SignedResponse, error) {
	s, err := openStream(ctx, c.cfg.Host, miner.Peer, c.cfg.Timeouts, DealProtocol111, DealProtocol110, DealProtocol101)
	if err != nil {
		return nil, err
	}
	var r SignedResponse
	if err := askPeer(ctx, s, c.cfg.Timeouts, p, &r); err != nil {
		return nil, err
	}
	if miner.Worker == address.Undef {
		return &r, nil
	}
	return &r, verifySignature(r.Signature, miner.Worker, r.Signed)
}

// ErrBadSignature means that an answer was not signed by who had to.
var ErrBadSignature = errors.New("the signature does not match")

func verifySignature(sig *crypto.Signature, by address.Address, data []byte) error {
	if sig == nil {
		return fmt.Errorf("%w: there is none of %s", ErrBadSignature, by)
	}
	if err := paych.Verify(sig, by, data); err != nil {
		return fmt.Errorf("%w: of %s: %w", ErrBadSignature, by, err)
	}
	return nil
}

// Result is the outcome of one proposal of a batch.
type Result struct {
	Index    int // in the order of the params
	Proposal cid.Cid
	Err      error
}

// StatelessDeals proposes many deals, at most jobs at a time (64 when 0), and yields outcomes as they come. It takes params as it
// goes, so that their number does not matter; params that let it wait let outcomes wait too. When ctx ends no more are taken; the outcomes
// of what was begun come still.
func (c *Client) StatelessDeals(ctx context.Context, params iter.Seq[StartDealParams], jobs int) iter.Seq[Result] {
	if jobs <= 0 {
		jobs = 64
	}
	return func(yield func(Result) bool) {
		next, stop := iter.Pull(params)
		defer stop()
		results := make(chan Result, jobs) // nobody who has an outcome waits
		under, index := 0, 0
		begin := func() bool {
			if ctx.Err() != nil {
				return false
			}
			p, ok := next()
			if !ok {
				return false
			}
			at := index
			index++
			under++
			go func() {
				name, err := c.StatelessDeal(ctx, p)
				results <- Result{at, name, err}
			}()
			return true
		}
		defer func() {
			for ; under > 0; under-- {
				<-results
			}
		}()
		more := true
		for {
			for more && under < jobs {
				more = begin()
			}
			if under == 0 {
				return
			}
			r := <-results
			under--
			if !yield(r) {
				return
			}
		}
	}
}

// DealStatus asks a provider how a deal stands; only the client that signed the proposal may.
func (c *Client) DealStatus(ctx context.Context, miner, client address.Address, proposal cid.Cid) (*ProviderDealState, error) {
	info, err := c.cfg.Chain.MinerInfo(ctx, miner)
	if err != nil {
		return nil, err
	}
	key, err := c.cfg.Chain.AccountKey(ctx, client)
	if err != nil {
		return nil, err
	}
	sig, err := c.cfg.Wallet.Sign(key, cidBytes(proposal))
	if err != nil {
		return nil, err
	}
	s, err := openStream(ctx, c.cfg.Host, info.Peer, c.cfg.Timeouts, StatusProtocol110, StatusProtocol101)
	if err != nil {
		return nil, err
	}
	var r DealStatusResponse
	if err := askPeer(ctx, s, c.cfg.Timeouts, &DealStatusRequest{proposal, *sig}, &r); err != nil {
		return nil, err
	}
	if info.Worker != address.Undef {
		if err := verifySignature(&r.Signature, info.Worker, r.Signed); err != nil {
			return nil, err
		}
	}
	if c := r.DealState.ProposalCid; c != nil && !c.Equals(proposal) {
		return nil, fmt.Errorf("%w: the state of %s instead of %s", ErrBadAnswer, c, proposal)
	}
	r.DealState.Message = printable(r.DealState.Message)
	return &r.DealState, nil
}

// QueryAsk asks a provider for its storage ask.
func (c *Client) QueryAsk(ctx context.Context, miner address.Address) (*StorageAsk, error) {
	info, err := c.cfg.Chain.MinerInfo(ctx, miner)
	if err != nil {
		return nil, err
	}
	s, err := openStream(ctx, c.cfg.Host, info.Peer, c.cfg.Timeouts, AskProtocol110, AskProtocol101)
	if err != nil {
		return nil, err
	}
	var r AskResponse
	if err := askPeer(ctx, s, c.cfg.Timeouts, &AskRequest{miner}, &r); err != nil {
		return nil, err
	}
	if r.Ask == nil || r.Ask.Ask == nil {
		return nil, fmt.Errorf("provider %s has no storage ask", miner)
	}
	if r.Ask.Ask.Miner != miner {
		return nil, fmt.Errorf("got back ask for wrong miner %s", r.Ask.Ask.Miner)
	}
	if info.Worker != address.Undef {
		if err := verifySignature(r.Ask.Signature, info.Worker, r.Ask.Signed); err != nil {
			return nil, err
		}
	}
	return r.Ask.Ask, nil
}

// cidBytes is the encoding of a CID: what the client of a deal signs to ask for its state.
func cidBytes(c cid.Cid) []byte {
	var b bytes.Buffer
	_ = cbg.WriteCid(&b, c) // a buffer takes everything
	return b.Bytes()
}
