package storagedeal

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	commcid "github.com/filecoin-project/go-fil-commcid"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
)

// StartDealParams are the terms of a deal that a client proposes.
type StartDealParams struct {
	Data              *DataRef
	Wallet            address.Address // an id address is resolved to its key
	Miner             address.Address
	EpochPrice        big.Int
	MinBlocksDuration uint64
	// ProviderCollateral is attoFIL; the network's minimum if it is not given.
	ProviderCollateral big.Int
	DealStartEpoch     abi.ChainEpoch // eight days from now if it is 0
	FastRetrieval      bool           // true when the JSON does not say
	VerifiedDeal       bool
}

// UnmarshalJSON reads params; what JSON does not say about fast retrieval is true.
func (p *StartDealParams) UnmarshalJSON(data []byte) error {
	type plain StartDealParams
	v := plain{FastRetrieval: true}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	*p = StartDealParams(v)
	return nil
}

// Bounds of the duration of a deal, in epochs. The longer one is of network version 21 and later.
const (
	MinDealDuration     = 180 * EpochsInDay
	MaxDealDuration     = 540 * EpochsInDay
	MaxDealDurationLong = 1278 * EpochsInDay
	longDeals           = 21 // network version
)

// MaxDuration is the longest deal in a network version.
func MaxDuration(version uint) abi.ChainEpoch {
	if version >= longDeals {
		return MaxDealDurationLong
	}
	return MaxDealDuration
}

// maxEpoch is far beyond every deal, and far from where epochs overflow.
const maxEpoch = 1 << 40

// ErrStateless marks params that no stateless deal can have, ErrOnline those that no online deal can.
var (
	ErrStateless = errors.New("not a stateless storage deal")
	ErrOnline    = errors.New("not an online storage deal")
)

// check refuses, before anything is asked for or signed, what cannot become a deal whose data comes in this way (4.1, R-T1, R-T2).
func (p *StartDealParams) check(transfer string) error {
	kind, name := ErrStateless, "stateless"
	if transfer != TTManual {
		kind, name = ErrOnline, "online"
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{kind}, args...)...)
	}
	switch d := p.Data; {
	case d == nil:
		return bad("no data reference is given")
	case d.TransferType != transfer:
		return bad("invalid transfer type %s for %s storage deal", d.TransferType, name)
	case !p.EpochPrice.Nil() && p.EpochPrice.Sign() != 0:
		return bad("%s storage deals can only be initiated with storage price of 0, not %s", name, p.EpochPrice)
	case !d.Root.Defined():
		return bad("no data CID is given")
	case transfer == TTManual && (d.PieceCid == nil || !d.PieceCid.Defined()):
		return bad("no piece CID is given")
	case d.PieceCid != nil && d.PieceSize == 0:
		return bad("must specify piece size when manually setting cid")
	case p.Wallet == address.Undef, p.Miner == address.Undef:
		return bad("a wallet and a miner address are needed")
	case !p.ProviderCollateral.Nil() && p.ProviderCollateral.Sign() < 0:
		return bad("provider collateral %s is negative", p.ProviderCollateral)
	case p.DealStartEpoch < 0, p.DealStartEpoch > maxEpoch:
		return bad("start epoch %d is none of this millennium", p.DealStartEpoch)
	}
	if p.Data.PieceCid == nil { // it is computed
		return nil
	}
	if err := CheckPieceCID(*p.Data.PieceCid); err != nil {
		return bad("%w", err)
	}
	if err := p.Data.PieceSize.Validate(); err != nil {
		return bad("piece size %d: %w: it is the unpadded size, 127 for each 128 bytes of a power of two", p.Data.PieceSize, err)
	}
	return nil
}

// ErrDuration marks a duration that no deal can have.
var ErrDuration = errors.New("not a storage deal")

// checkDuration bounds the duration.
func checkDuration(d uint64, version uint) error {
	switch low, high := uint64(MinDealDuration), uint64(MaxDuration(version)); {
	case d < low:
		return fmt.Errorf("%w: minimum deal duration is %d blocks", ErrDuration, low)
	case d > high:
		return fmt.Errorf("%w: maximum deal duration is %d blocks", ErrDuration, high)
	}
	return nil
}

// CheckPieceCID refuses what is not the CID of a piece: version 1, codec 0xf101, multihash 0x1012 of 32 bytes (R-D17).
func CheckPieceCID(c cid.Cid) error {
	if _, err := commcid.CIDToDataCommitmentV1(c); err != nil {
		return fmt.Errorf("%s is not a piece CID: %w", c, err)
	}
	return nil
}

// EndEpoch is the end of a deal: at least the duration after its start, in the last epoch of a proving period (4.2 step 6).
func EndEpoch(start abi.ChainEpoch, duration uint64, periodStart abi.ChainEpoch) abi.ChainEpoch {
	low := start + abi.ChainEpoch(duration)
	end := low + EpochsInDay - low%EpochsInDay + periodStart%EpochsInDay - 1
	if end < low { // by less than a day
		end += EpochsInDay
	}
	return end
}
