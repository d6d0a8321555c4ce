package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
)

// Faucet mints 1,000 FIL to an address on a development ledger, once an hour.
func (l *Ledger) Faucet(ctx context.Context, to address.Address) (cid.Cid, error) {
	if !l.net.Dev {
		return cid.Undef, fmt.Errorf("%w: this ledger was made without --dev", ErrFaucet)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.now()
	recent := 0
	for a, at := range l.faucet {
		if now.Sub(at) >= time.Hour {
			delete(l.faucet, a)
		} else {
			recent++
		}
	}
	if _, again := l.faucet[to]; again || recent >= 100 {
		return cid.Undef, fmt.Errorf("%w: at most once an hour for %s, 100 an hour in all", ErrFaucet, to)
	}
	c, err := l.Mint(ctx, to, big.Mul(big.NewInt(faucetFIL), big.NewInt(1e18)))
	if err == nil {
		l.faucet[to] = now
	}
	return c, err
}

// Mint creates money with the operator's key; it is in the log like everything else.
func (l *Ledger) Mint(ctx context.Context, to address.Address, amount abi.TokenAmount) (cid.Cid, error) {
	v := newView(l.kv)
	m, err := v.meta()
	if err != nil {
		return cid.Undef, err
	}
	seq := uint64(0)
	if a, err := v.account(l.net.Operator, false, m); err != nil {
		return cid.Undef, err
	} else if a != nil {
		seq = a.Seq
	}
	t := &Tx{Network: l.net.ID, From: l.net.Operator, Seq: seq, ValidUntil: l.epoch(m) + validFor, Kind: KindMint, To: to, Value: amount, Intent: make([]byte, 16)}
	if _, err := rand.Read(t.Intent); err != nil {
		return cid.Undef, err
	}
	if err := t.Sign(l.operator); err != nil {
		return cid.Undef, err
	}
	data, err := t.Encode()
	if err != nil {
		return cid.Undef, err
	}
	c, err := l.Submit(ctx, data)
	if err != nil {
		return c, err
	}
	r, err := v.receipt(string(c.Bytes()))
	if err == nil && r.ExitCode != 0 {
		err = errors.New(r.Message)
	}
	return c, err
}
