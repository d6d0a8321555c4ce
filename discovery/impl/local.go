// Package discoveryimpl keeps who provided what, and asks several resolvers as one.
package discoveryimpl

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// maxPeers bounds the record of one payload.
const maxPeers = 1000

// Local is a table of peers by payload. The key is the multihash: CIDs of one block in several codecs find the same peers.
// It is safe for concurrent use.
type Local struct {
	ds    datastore.Batching
	ready *shared.ReadyManager
	mu    sync.Mutex
}

var _ discovery.PeerResolver = (*Local)(nil)

// NewLocal returns a table over ds, which is namespaced by the caller.
func NewLocal(ds datastore.Batching) (*Local, error) {
	return &Local{ds: ds, ready: shared.NewReadyManager()}, nil
}

// Start makes the table ready. Peers from before records had a version are brought to it; what has another key than a payload is left alone.
func (l *Local) Start(ctx context.Context) error {
	err := store.MigrateUnversioned(ctx, l.ds, "", func(name string, value []byte) ([]byte, error) {
		hash, err := keyForm.DecodeString(name)
		if err != nil {
			return nil, nil
		}
		if _, err := mh.Cast(hash); err != nil {
			return nil, nil
		}
		var rec discovery.RetrievalPeers
		r := bytes.NewReader(value)
		if err := rec.UnmarshalTuple(r); err != nil {
			return nil, err
		}
		if r.Len() > 0 {
			return nil, fmt.Errorf("%d bytes after its end", r.Len())
		}
		return wire.Encode(&rec)
	})
	l.ready.FireReady(err)
	return err
}

// OnReady calls f when the table has started.
func (l *Local) OnReady(f shared.ReadyFunc) { l.ready.OnReady(f) }

// keyForm writes the multihash of a payload as a key.
var keyForm = base32.StdEncoding.WithPadding(base32.NoPadding)

func key(payload cid.Cid) datastore.Key {
	return datastore.NewKey("/" + store.RecordVersion + "/" + keyForm.EncodeToString(payload.Hash()))
}

// AddPeer adds a peer to a payload; an equal one again changes nothing.
func (l *Local) AddPeer(ctx context.Context, payload cid.Cid, p rm.RetrievalPeer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rec discovery.RetrievalPeers
	var err error
	if rec.Peers, err = l.read(ctx, payload); err != nil {
		return err
	}
	for _, known := range rec.Peers {
		if samePeer(known, p) {
			return nil
		}
	}
	if len(rec.Peers) >= maxPeers {
		return fmt.Errorf("payload %s has %d peers already", payload, len(rec.Peers))
	}
	rec.Peers = append(rec.Peers, p)
	data, err := wire.Encode(&rec)
	if err != nil {
		return err
	}
	return l.ds.Put(ctx, key(payload), data)
}

func samePeer(a, b rm.RetrievalPeer) bool {
	same := a.ID == b.ID && a.Address == b.Address && (a.PieceCID == nil) == (b.PieceCID == nil)
	return same && (a.PieceCID == nil || a.PieceCID.Equals(*b.PieceCID))
}

func (l *Local) read(ctx context.Context, payload cid.Cid) ([]rm.RetrievalPeer, error) {
	data, err := l.ds.Get(ctx, key(payload))
	if errors.Is(err, datastore.ErrNotFound) {
		return []rm.RetrievalPeer{}, nil
	}
	if err != nil {
		return nil, err
	}
	var rec discovery.RetrievalPeers
	if err := rec.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("peers of %s: %w", payload, err)
	}
	return rec.Peers, nil
}

// GetPeers implements discovery.PeerResolver.
func (l *Local) GetPeers(payload cid.Cid) ([]rm.RetrievalPeer, error) {
	ctx, cancel := shared.Lifetime()
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read(ctx, payload)
}

// Multi asks all resolvers and joins what they know. One that fails hides the others' answers only when none has any.
func Multi(resolvers ...discovery.PeerResolver) discovery.PeerResolver { return multi(resolvers) }

type multi []discovery.PeerResolver

// GetPeers implements discovery.PeerResolver.
func (m multi) GetPeers(payload cid.Cid) ([]rm.RetrievalPeer, error) {
	out := []rm.RetrievalPeer{}
	var errs []error
	for _, r := range m {
		peers, err := r.GetPeers(payload)
		errs = append(errs, err)
		for _, p := range peers {
			known := false
			for _, o := range out {
				known = known || samePeer(o, p)
			}
			if !known {
				out = append(out, p)
			}
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return out, errors.Join(errs...)
}
