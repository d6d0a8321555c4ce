package storagedeal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// EpochsInDay is the number of epochs in a day.
const EpochsInDay abi.ChainEpoch = 2880

// ErrUnknownMiner means that the chain view has no such provider.
var ErrUnknownMiner = errors.New("provider is not known")

// MinerInfo is what the chain says of a provider.
type MinerInfo struct {
	Peer       peer.AddrInfo
	SectorSize abi.SectorSize
	// Worker is the key address that signs answers; undefined if the view does not know it.
	Worker address.Address
	// PeriodStart is the first epoch of the provider's proving period.
	PeriodStart abi.ChainEpoch
}

// Epochs tells where the chain stands.
type Epochs interface {
	Head(ctx context.Context) (abi.ChainEpoch, error)
	NetworkVersion(ctx context.Context) (uint, error)
}

// Miners knows providers, and what they have to lay down for a deal (attoFIL).
type Miners interface {
	MinerInfo(ctx context.Context, miner address.Address) (MinerInfo, error)
	CollateralBounds(ctx context.Context, size abi.PaddedPieceSize, verified bool) (low, high abi.TokenAmount, err error)
}

// Accounts knows clients. VerifiedStatus is the data cap that is left, or nil for a client without one.
type Accounts interface {
	AccountKey(ctx context.Context, a address.Address) (address.Address, error)
	VerifiedStatus(ctx context.Context, a address.Address) (*abi.StoragePower, error)
}

// ChainView is what storage deals need to know of a chain (R-T8).
type ChainView interface {
	Epochs
	Miners
	Accounts
}

// FileView is a ChainView that was written down: for private networks and tests, which then need no chain node. It must not be
// changed while it is used.
type FileView struct {
	// Epoch is the epoch at Since; without Since the chain stands still.
	Epoch        abi.ChainEpoch `json:"epoch"`
	Since        time.Time      `json:"since,omitzero"`
	EpochSeconds uint           `json:"epoch_seconds,omitempty"` // 30 when 0
	Version      uint           `json:"network_version"`
	// MinCollateral and MaxCollateral are attoFIL for a GiB of padded size.
	MinCollateral abi.TokenAmount             `json:"min_collateral_per_gib"`
	MaxCollateral abi.TokenAmount             `json:"max_collateral_per_gib"`
	Providers     map[string]FileMiner        `json:"miners"`
	Keys          map[string]address.Address  `json:"accounts,omitempty"` // id address to key address
	Caps          map[string]abi.StoragePower `json:"verified,omitempty"` // key address to bytes
}

// FileMiner is a provider of a FileView.
type FileMiner struct {
	Addrs       []string         `json:"addrs"` // multiaddresses with /p2p/
	SectorSize  abi.SectorSize   `json:"sector_size"`
	Worker      *address.Address `json:"worker,omitempty"`
	PeriodStart abi.ChainEpoch   `json:"proving_period_start"`
}

// ReadFileView reads a chain view from a JSON file.
func ReadFileView(ctx context.Context, name string) (*FileView, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	v := &FileView{MinCollateral: big.Zero(), MaxCollateral: big.Zero()}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("chain view %s: %w", name, err)
	}
	for a := range v.Providers {
		maddr, err := address.NewFromString(a)
		if err == nil {
			_, err = v.MinerInfo(ctx, maddr)
		}
		if err != nil {
			return nil, fmt.Errorf("chain view %s: miner %q: %w", name, a, err)
		}
	}
	return v, nil
}

// Head implements Epochs.
func (v *FileView) Head(context.Context) (abi.ChainEpoch, error) {
	if v.Since.IsZero() {
		return v.Epoch, nil
	}
	long := 30 * time.Second
	if v.EpochSeconds > 0 {
		long = time.Duration(v.EpochSeconds) * time.Second
	}
	return v.Epoch + abi.ChainEpoch(time.Since(v.Since)/long), nil
}

// NetworkVersion implements Epochs.
func (v *FileView) NetworkVersion(context.Context) (uint, error) { return v.Version, nil }

// MinerInfo implements Miners.
func (v *FileView) MinerInfo(_ context.Context, miner address.Address) (MinerInfo, error) {
	m, ok := v.Providers[miner.String()]
	if !ok {
		return MinerInfo{}, fmt.Errorf("%w: %s is not in the chain view", ErrUnknownMiner, miner)
	}
	info := MinerInfo{SectorSize: m.SectorSize, PeriodStart: m.PeriodStart}
	if m.Worker != nil {
		info.Worker = *m.Worker
	}
	for _, s := range m.Addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return info, err
		}
		p, err := peer.AddrInfoFromP2pAddr(a)
		if err != nil {
			return info, fmt.Errorf("%s: %w", s, err)
		}
		if info.Peer.ID != "" && info.Peer.ID != p.ID {
			return info, fmt.Errorf("addresses of two peers: %s and %s", info.Peer.ID, p.ID)
		}
		info.Peer.ID, info.Peer.Addrs = p.ID, append(info.Peer.Addrs, p.Addrs...)
	}
	return info, nil
}

// CollateralBounds implements Miners.
func (v *FileView) CollateralBounds(_ context.Context, size abi.PaddedPieceSize, _ bool) (low, high abi.TokenAmount, err error) {
	return forSize(v.MinCollateral, size), forSize(v.MaxCollateral, size), nil
}

// forSize is an amount for each GiB, for a size; a part of an attoFIL is none.
func forSize(perGiB abi.TokenAmount, size abi.PaddedPieceSize) abi.TokenAmount {
	if perGiB.Nil() {
		return big.Zero()
	}
	return big.Div(big.Mul(perGiB, big.NewIntUnsigned(uint64(size))), big.NewInt(1<<30))
}

// AccountKey implements Accounts.
func (v *FileView) AccountKey(_ context.Context, a address.Address) (address.Address, error) {
	if p := a.Protocol(); p == address.SECP256K1 || p == address.BLS {
		return a, nil
	}
	if k, ok := v.Keys[a.String()]; ok {
		return k, nil
	}
	return address.Undef, fmt.Errorf("account %s has no known key", a)
}

// VerifiedStatus implements Accounts.
func (v *FileView) VerifiedStatus(_ context.Context, a address.Address) (*abi.StoragePower, error) {
	if c, ok := v.Caps[a.String()]; ok {
		return &c, nil
	}
	return nil, nil
}
