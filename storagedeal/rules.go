package storagedeal

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"

	"github.com/filecoin-project/go-address"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Candidate is a proposal that is being judged.
type Candidate struct {
	Signed   *market.ClientDealProposal
	Piece    *DataRef
	Protocol protocol.ID

	miner   address.Address
	chain   ChainView
	ask     StorageAsk
	online  bool // data can be pushed
	head    abi.ChainEpoch
	version uint
}

// Rule is one condition of taking a deal. Its error is the reason that the client hears.
type Rule struct {
	Name  string
	Check func(ctx context.Context, c *Candidate) error
}

// Rules are the conditions of taking a deal, in the order of their checks (node spec 4.4). An operator can leave some out by name.
func Rules() []Rule {
	return []Rule{
		{"signature", checkSignature}, {"provider", checkProvider}, {"label", checkLabel}, {"piece-size", checkPieceSize}, {"piece-cid", checkPieceCid},
		{"transfer", checkTransfer}, {"epochs", checkEpochs}, {"duration", checkLength}, {"end", checkEnd}, {"collateral", checkCollateral}, {"price", checkPrice},
		{"ask-size", checkAskSize}, {"free", checkFree}, {"verified", checkVerified},
	}
}

// applyRules applies the rules; the first that does not hold is the answer.
func applyRules(ctx context.Context, c *Candidate, skip map[string]bool) error {
	var err error
	if c.head, err = c.chain.Head(ctx); err != nil {
		return &ownFaultError{"the chain is not known", err}
	}
	if c.version, err = c.chain.NetworkVersion(ctx); err != nil {
		return &ownFaultError{"the chain is not known", err}
	}
	for _, r := range Rules() {
		if skip[r.Name] {
			continue
		}
		if err := r.Check(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// ownFaultError is a fault of this side that keeps a rule from being applied.
type ownFaultError struct {
	what  string
	cause error
}

func (e *ownFaultError) Error() string { return e.what + ": " + e.cause.Error() }
func (e *ownFaultError) Unwrap() error { return e.cause }

func checkSignature(ctx context.Context, c *Candidate) error {
	key, err := c.chain.AccountKey(ctx, c.Signed.Proposal.Client)
	if err != nil {
		return &ownFaultError{"the key of the client is not known", err}
	}
	data, err := MarshalProposal(&c.Signed.Proposal)
	if err != nil {
		return err
	}
	if err := verifySignature(&c.Signed.ClientSignature, key, data); err != nil {
		return fmt.Errorf("verifying deal signature: %w", err)
	}
	return nil
}

func checkProvider(_ context.Context, c *Candidate) error {
	if c.Signed.Proposal.Provider != c.miner {
		return fmt.Errorf("incorrect provider for deal: %s, this is %s", c.Signed.Proposal.Provider, c.miner)
	}
	return nil
}

func checkLabel(_ context.Context, c *Candidate) error {
	l := c.Signed.Proposal.Label
	if l.Length() > MaxLabel {
		return fmt.Errorf("deal label can be at most %d bytes, is %d", MaxLabel, l.Length())
	}
	if c.Protocol != DealProtocol111 && !l.IsString() {
		return fmt.Errorf("deal label must be a text on protocol %s: its signature would not be that of the chain", c.Protocol)
	}
	return nil
}

func checkPieceSize(_ context.Context, c *Candidate) error {
	if err := c.Signed.Proposal.PieceSize.Validate(); err != nil {
		return fmt.Errorf("proposal piece size is invalid: %w", err)
	}
	return nil
}

func checkPieceCid(_ context.Context, c *Candidate) error {
	if !c.Signed.Proposal.PieceCID.Defined() {
		return errors.New("proposal PieceCID undefined")
	}
	return CheckPieceCID(c.Signed.Proposal.PieceCID)
}

func checkTransfer(_ context.Context, c *Candidate) error {
	switch t := c.Piece.TransferType; {
	case t == TTManual:
	case t != TTGraphsync:
		return fmt.Errorf("transfer type %q: this provider takes %s and %s", t, TTManual, TTGraphsync)
	case !c.online:
		return fmt.Errorf("transfer type %q: this provider takes offline deals only (%s)", t, TTManual)
	case !c.Piece.Root.Defined():
		return errors.New("the data reference names no payload to be pushed")
	}
	if p := c.Piece.PieceCid; p != nil && !p.Equals(c.Signed.Proposal.PieceCID) {
		return fmt.Errorf("the data reference is of piece %s, the proposal of %s", p, c.Signed.Proposal.PieceCID)
	}
	return nil
}

func checkEpochs(_ context.Context, c *Candidate) error {
	p := &c.Signed.Proposal
	if p.StartEpoch < 0 || p.EndEpoch > maxEpoch {
		return fmt.Errorf("epochs %d to %d are none of this millennium", p.StartEpoch, p.EndEpoch)
	}
	if p.EndEpoch <= p.StartEpoch {
		return errors.New("proposal end before proposal start")
	}
	if c.head > p.StartEpoch {
		return fmt.Errorf("deal start epoch has already elapsed: %d, the chain is at %d", p.StartEpoch, c.head)
	}
	return nil
}

func checkLength(_ context.Context, c *Candidate) error {
	low, high := MinDealDuration, MaxDuration(c.version)
	if d := c.Signed.Proposal.Duration(); d < low || d > high {
		return fmt.Errorf("deal duration out of bounds (min, max, provided): %d, %d, %d", low, high, d)
	}
	return nil
}

// checkEnd: sectors cannot be promised for longer than the longest deal from now on.
func checkEnd(_ context.Context, c *Candidate) error {
	if high := MaxDuration(c.version); c.Signed.Proposal.EndEpoch > c.head+high {
		return fmt.Errorf("invalid deal end epoch %d: cannot be more than %d past current epoch %d", c.Signed.Proposal.EndEpoch, high, c.head)
	}
	return nil
}

func checkCollateral(ctx context.Context, c *Candidate) error {
	p := &c.Signed.Proposal
	low, high, err := c.chain.CollateralBounds(ctx, p.PieceSize, p.VerifiedDeal)
	if err != nil {
		return &ownFaultError{"the bounds of collateral are not known", err}
	}
	if p.ProviderCollateral.Nil() || p.ProviderCollateral.LessThan(low) {
		return fmt.Errorf("proposed provider collateral %s below minimum %s", p.ProviderCollateral, low)
	}
	if high.Sign() > 0 && p.ProviderCollateral.GreaterThan(high) {
		return fmt.Errorf("proposed provider collateral %s above maximum %s", p.ProviderCollateral, high)
	}
	return nil
}

func checkPrice(_ context.Context, c *Candidate) error {
	p := &c.Signed.Proposal
	price := c.ask.Price
	if p.VerifiedDeal {
		price = c.ask.VerifiedPrice
	}
	if low := forSize(price, p.PieceSize); p.StoragePricePerEpoch.LessThan(low) {
		return fmt.Errorf("storage price per epoch less than asking price: %s < %s", p.StoragePricePerEpoch, low)
	}
	return nil
}

func checkAskSize(_ context.Context, c *Candidate) error {
	switch s := c.Signed.Proposal.PieceSize; {
	case s < c.ask.MinPieceSize:
		return fmt.Errorf("piece size less than minimum required size: %d < %d", s, c.ask.MinPieceSize)
	case s > c.ask.MaxPieceSize:
		return fmt.Errorf("piece size more than maximum allowed size: %d > %d", s, c.ask.MaxPieceSize)
	}
	return nil
}

// checkFree: no money of deals is handled here, so that there are no funds of a client to look at.
func checkFree(_ context.Context, c *Candidate) error {
	if p := c.Signed.Proposal.ClientCollateral; p.Nil() || p.Sign() != 0 {
		return fmt.Errorf("client collateral is %s: this provider takes deals without", p)
	}
	if p := c.Signed.Proposal.StoragePricePerEpoch; p.Nil() || p.Sign() != 0 {
		return fmt.Errorf("storage price per epoch is %s: this provider takes deals with a price of 0 only", p)
	}
	return nil
}

func checkVerified(ctx context.Context, c *Candidate) error {
	p := &c.Signed.Proposal
	if !p.VerifiedDeal {
		return nil
	}
	key, err := c.chain.AccountKey(ctx, p.Client)
	if err != nil {
		return &ownFaultError{"the key of the client is not known", err}
	}
	left, err := c.chain.VerifiedStatus(ctx, key)
	switch {
	case err != nil:
		return &ownFaultError{"the data cap of the client is not known", err}
	case left == nil:
		return fmt.Errorf("client %s is not verified", p.Client)
	case left.LessThan(big.NewIntUnsigned(uint64(p.PieceSize))):
		return fmt.Errorf("verified deal DataCap %s too small for proposed piece size %d", left, p.PieceSize)
	}
	return nil
}
