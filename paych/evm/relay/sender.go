package relay

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// txPrefix begins the keys of signed transactions.
const txPrefix = "/book/1/t"

// sent is a transaction that was signed: it is on stable storage before it is broadcast, so that after a crash the same one is sent.
type sent struct {
	Nonce  uint64
	Call   []byte
	Hashes []byte // of all that were signed with this nonce: another fee is another transaction
	Raw    []byte // the last of them
	MaxFee []byte
	Gas    uint64
}

const maxCall = 256 << 10

func (s *sent) fields() []wire.Field {
	return []wire.Field{wire.Uint("nonce", &s.Nonce), wire.Bytes("call", &s.Call, maxCall), wire.Bytes("hashes", &s.Hashes, maxCall), wire.Bytes("raw", &s.Raw, maxCall), wire.Bytes("maxFee", &s.MaxFee, 32), wire.Uint("gas", &s.Gas)}
}

// sender sends the transactions of a key to the settlement contract, one after the other.
type sender struct {
	chain         *Chain
	key           *evm.Key
	ds            datastore.Batching
	maxFee        *big.Int // wei for a unit of gas
	confirmations uint64
	poll          time.Duration
	patience      time.Duration // before a higher fee is offered

	mu sync.Mutex
}

func (s *sender) recordKey(nonce uint64) datastore.Key {
	return datastore.NewKey(fmt.Sprintf("%s/%s/%020d", txPrefix, s.key.Address(), nonce))
}

func (s *sender) put(ctx context.Context, t *sent) error {
	data, err := wire.EncodeTuple(t.fields())
	if err == nil {
		err = s.ds.Put(ctx, s.recordKey(t.Nonce), data)
	}
	if err == nil {
		err = s.ds.Sync(ctx, s.recordKey(t.Nonce))
	}
	return err
}

// flush brings what was sent before to its end. s.mu is held.
func (s *sender) flush(ctx context.Context) error {
	var open []sent
	err := store.Each(ctx, s.ds, txPrefix+"/"+s.key.Address().String(), func(key string, value []byte) error {
		t := sent{}
		err := wire.DecodeTuple(value, "record "+key, t.fields())
		open = append(open, t)
		return err
	})
	if err != nil {
		return err
	}
	for i := range open {
		if _, _, err := s.finish(ctx, &open[i]); err != nil {
			return err
		}
	}
	return nil
}

// send sends a call and waits until it is mined. One that fails there, or would, is a *book.RefusedError.
func (s *sender) send(ctx context.Context, call []byte) (evm.Hash, error) {
	gas, err := s.chain.quantity(ctx, "eth_estimateGas", callObject(s.key.Address(), evm.Settlement(), call))
	if err != nil {
		return evm.Hash{}, err
	}
	nonce, err := s.chain.quantity(ctx, "eth_getTransactionCount", s.key.Address(), "pending")
	if err != nil {
		return evm.Hash{}, err
	}
	_, base, err := s.chain.Head(ctx)
	if err != nil {
		return evm.Hash{}, err
	}
	fee := new(big.Int).Lsh(base, 1)
	if fee.Cmp(s.maxFee) > 0 {
		fee = s.maxFee
	}
	t := &sent{Nonce: nonce.Uint64(), Call: call, Gas: gas.Uint64() + gas.Uint64()/5}
	if err := s.sign(ctx, t, fee); err != nil {
		return evm.Hash{}, err
	}
	hash, ok, err := s.finish(ctx, t)
	if err == nil && !ok {
		err = &book.RefusedError{Text: "transaction " + hash.String() + " failed"}
	}
	return hash, err
}

// sign signs a transaction at a fee, and stores it.
func (s *sender) sign(ctx context.Context, t *sent, fee *big.Int) error {
	tip, err := s.chain.quantity(ctx, "eth_maxPriorityFeePerGas")
	if err != nil {
		return err
	}
	if tip.Cmp(fee) > 0 {
		tip = fee
	}
	raw, hash, err := evm.Transaction{ChainID: s.chain.id, Nonce: t.Nonce, Gas: t.Gas, Tip: tip, MaxFee: fee, To: evm.Settlement(), Data: t.Call}.Sign(s.key)
	if err != nil {
		return err
	}
	t.Raw, t.Hashes, t.MaxFee = raw, append(t.Hashes, hash[:]...), fee.Bytes()
	return s.put(ctx, t)
}

// finish broadcasts a transaction until one of its kind is mined, with a higher fee when it takes long, and forgets it. ok says whether it succeeded.
func (s *sender) finish(ctx context.Context, t *sent) (hash evm.Hash, ok bool, err error) {
	until := time.Now().Add(s.patience)
	if err := s.broadcast(ctx, t); err != nil {
		return hash, false, err
	}
	for {
		hash, mined, ok, err := s.receipt(ctx, t)
		if err != nil {
			return hash, false, err
		}
		if mined {
			return hash, ok, errors.Join(s.ds.Delete(ctx, s.recordKey(t.Nonce)), s.ds.Sync(ctx, s.recordKey(t.Nonce)))
		}
		if !lifecycle.Sleep(ctx, s.poll) {
			return hash, false, fmt.Errorf("%w: the transaction is not mined yet", book.ErrUnavailable)
		}
		if time.Now().Before(until) {
			continue
		}
		until = time.Now().Add(s.patience)
		if err := s.raise(ctx, t); err != nil {
			return hash, false, err
		}
	}
}

// raise offers an eighth more than before, up to the largest fee.
func (s *sender) raise(ctx context.Context, t *sent) error {
	fee := new(big.Int).SetBytes(t.MaxFee)
	fee.Add(fee, new(big.Int).Rsh(fee, 3)).Add(fee, big.NewInt(1))
	if fee.Cmp(s.maxFee) <= 0 {
		if err := s.sign(ctx, t, fee); err != nil {
			return err
		}
	}
	return s.broadcast(ctx, t)
}

// broadcast sends the last of a kind. That the chain knows it already is no failure: its receipt tells.
func (s *sender) broadcast(ctx context.Context, t *sent) error {
	var hash evm.Hash
	err := s.chain.ask(ctx, &hash, "eth_sendRawTransaction", "0x"+hex.EncodeToString(t.Raw))
	var refused *book.RefusedError
	if errors.As(err, &refused) {
		if _, mined, _, rerr := s.receipt(ctx, t); rerr == nil && mined {
			return nil
		}
		return s.known(ctx, t, refused)
	}
	return err
}

// known tells whether a transaction that the chain did not take is one that it has.
func (s *sender) known(ctx context.Context, t *sent, refused *book.RefusedError) error {
	for i := 0; i < len(t.Hashes); i += len(evm.Hash{}) {
		var found json.RawMessage
		h := evm.Hash(t.Hashes[i : i+len(evm.Hash{})])
		if err := s.chain.ask(ctx, &found, "eth_getTransactionByHash", h); err == nil && string(found) != "null" {
			return nil
		}
	}
	next, err := s.chain.quantity(ctx, "eth_getTransactionCount", s.key.Address(), latest)
	if err != nil {
		return err
	}
	if next.Uint64() > t.Nonce { // another transaction of the key took its place: what it was for is looked at anew
		return errors.Join(refused, s.ds.Delete(ctx, s.recordKey(t.Nonce)))
	}
	return fmt.Errorf("%w: %w", book.ErrUnavailable, refused)
}

// receipt looks whether one of the transactions of a kind was mined, deep enough.
func (s *sender) receipt(ctx context.Context, t *sent) (hash evm.Hash, mined, ok bool, err error) {
	for i := 0; i < len(t.Hashes); i += len(hash) {
		hash = evm.Hash(t.Hashes[i : i+len(hash)])
		var r *struct {
			Status string `json:"status"`
			Block  string `json:"blockNumber"`
		}
		if err := s.chain.ask(ctx, &r, "eth_getTransactionReceipt", hash); err != nil {
			return hash, false, false, err
		}
		if r == nil {
			continue
		}
		deep, err := s.deepEnough(ctx, r.Block)
		return hash, deep, r.Status == "0x1", err
	}
	return hash, false, false, nil
}

func (s *sender) deepEnough(ctx context.Context, block string) (bool, error) {
	if s.confirmations <= 1 {
		return true, nil
	}
	at, err := parseQuantity(block)
	if err != nil {
		return false, err
	}
	head, err := s.chain.quantity(ctx, "eth_blockNumber")
	return err == nil && head.Uint64()+1 >= at.Uint64()+s.confirmations, err
}
