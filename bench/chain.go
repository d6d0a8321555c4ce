package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/paych"
)

// simulatedChain has one open payment channel, of which both processes know. Its messages land at once: what is measured is what a deal on
// an open channel costs.
type simulatedChain struct {
	info paych.ChannelInfo
	msg  cid.Cid
}

// moneyKey is the key of one of the two, the same in both processes.
func moneyKey(who string) (*paych.Key, error) {
	seed := sha256.Sum256([]byte(who))
	return paych.KeyFromPrivate(paych.KeySecp256k1, seed[:])
}

func newSimulatedChain() (*simulatedChain, error) {
	payer, err := moneyKey("payer")
	if err != nil {
		return nil, err
	}
	payee, err := moneyKey("payee")
	if err != nil {
		return nil, err
	}
	ch, err := address.NewActorAddress([]byte("the channel of the benchmark"))
	if err != nil {
		return nil, err
	}
	msg, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("create"))
	return &simulatedChain{paych.ChannelInfo{Address: ch, From: payer.Address, To: payee.Address, Balance: big.NewInt(1 << 62), ToSend: big.Zero(), Lanes: map[uint64]paych.LaneInfo{}}, msg}, err
}

// Head implements paych.Head.
func (*simulatedChain) Head(context.Context) ([]byte, abi.ChainEpoch, error) { return nil, 100, nil }

// Finality implements paych.Head.
func (*simulatedChain) Finality() abi.ChainEpoch { return 0 }

// Timing implements paych.Head.
func (*simulatedChain) Timing(context.Context) (paych.Timing, error) {
	return paych.Timing{Epoch: 30 * time.Second, SettleDelay: 1440}, nil
}

// ResolveKey implements paych.Reader.
func (*simulatedChain) ResolveKey(_ context.Context, a address.Address) (address.Address, error) {
	return a, nil
}

// Balance implements paych.Reader.
func (*simulatedChain) Balance(context.Context, address.Address) (abi.TokenAmount, error) {
	return big.NewInt(1 << 62), nil
}

// Channel implements paych.Reader.
func (c *simulatedChain) Channel(_ context.Context, ch address.Address) (*paych.ChannelInfo, error) {
	if ch != c.info.Address {
		return nil, fmt.Errorf("%w: %s", paych.ErrUnknownChannel, ch)
	}
	info := c.info
	return &info, nil
}

// Submit implements paych.Submitter.
func (c *simulatedChain) Submit(context.Context, paych.Op) (cid.Cid, error) { return c.msg, nil }

// Wait implements paych.Submitter.
func (c *simulatedChain) Wait(context.Context, cid.Cid) (*paych.Receipt, error) {
	return &paych.Receipt{Channel: c.info.Address, Epoch: 1}, nil
}

// Lookup implements paych.Submitter.
func (c *simulatedChain) Lookup(context.Context, address.Address, uuid.UUID) (cid.Cid, error) {
	return c.msg, nil
}

// keyring is one key in memory.
type keyring struct{ key *paych.Key }

// Has implements paych.Signer.
func (k keyring) Has(a address.Address) bool { return a == k.key.Address }

// Key implements paych.Signer.
func (k keyring) Key(a address.Address) (*paych.Key, error) {
	if !k.Has(a) {
		return nil, fmt.Errorf("%w: %s", paych.ErrNoKey, a)
	}
	return k.key, nil
}
