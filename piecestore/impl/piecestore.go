// Package piecestoreimpl stores which deals hold a piece and where payloads lie in pieces.
package piecestoreimpl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/piecestore"
	"github.com/cartage-dev/cartage/shared"
)

// Where the records lie in the store that is given, below these and the version of the records.
const (
	DSPiecePrefix = "/pieces"
	DSCIDPrefix   = "/cid-infos"
)

const (
	pieces = DSPiecePrefix + "/" + store.RecordVersion + "/"
	cids   = DSCIDPrefix + "/" + store.RecordVersion + "/"
)

// Store implements piecestore.PieceStore. It is safe for concurrent use.
type Store struct {
	ds    datastore.Batching
	ready *shared.ReadyManager
	mu    sync.Mutex
}

var _ piecestore.PieceStore = (*Store)(nil)

// NewPieceStore returns a store over ds, which is namespaced by the caller.
func NewPieceStore(ds datastore.Batching) (piecestore.PieceStore, error) {
	return &Store{ds: ds, ready: shared.NewReadyManager()}, nil
}

// Start implements piecestore.PieceStore. Records from before they had a version are brought to it.
func (s *Store) Start(ctx context.Context) error {
	err := store.MigrateUnversioned(ctx, s.ds, DSPiecePrefix, func(_ string, value []byte) ([]byte, error) {
		var info piecestore.PieceInfo
		return upgraded(value, &info)
	})
	if err == nil {
		err = store.MigrateUnversioned(ctx, s.ds, DSCIDPrefix, func(_ string, value []byte) ([]byte, error) {
			var info piecestore.CIDInfo
			return upgraded(value, &info)
		})
	}
	s.ready.FireReady(err)
	return err
}

// tupled is a record that had a form before it was a map.
type tupled interface {
	UnmarshalTuple(r io.Reader) error
	MarshalCBOR(w io.Writer) error
}

// upgraded is the record of today of one of version 0.
func upgraded(value []byte, rec tupled) ([]byte, error) {
	r := bytes.NewReader(value)
	if err := rec.UnmarshalTuple(r); err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes after its end", r.Len())
	}
	return wire.Encode(rec)
}

// OnReady implements piecestore.PieceStore.
func (s *Store) OnReady(f shared.ReadyFunc) { s.ready.OnReady(f) }

func (s *Store) getRecord(prefix, what string, c cid.Cid, v cbg.CBORUnmarshaler) error {
	ctx, cancel := shared.Lifetime()
	defer cancel()
	data, err := s.ds.Get(ctx, datastore.NewKey(prefix+c.String()))
	if errors.Is(err, datastore.ErrNotFound) {
		return fmt.Errorf("%s CID %s: %w", what, c, shared.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if err := wire.Decode(data, v); err != nil {
		return fmt.Errorf("%s CID %s: %w", what, c, err)
	}
	return nil
}

func (s *Store) putRecord(ctx context.Context, w datastore.Write, prefix string, c cid.Cid, v cbg.CBORMarshaler) error {
	data, err := wire.Encode(v)
	if err != nil {
		return err
	}
	return w.Put(ctx, datastore.NewKey(prefix+c.String()), data)
}

// AddDealForPiece implements piecestore.PieceStore.
func (s *Store) AddDealForPiece(piece cid.Cid, deal piecestore.DealInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := s.GetPieceInfo(piece)
	if errors.Is(err, shared.ErrNotFound) {
		info, err = piecestore.PieceInfo{PieceCID: piece}, nil
	}
	if err != nil || slices.Contains(info.Deals, deal) {
		return err
	}
	info.Deals = append(info.Deals, deal)
	ctx, cancel := shared.Lifetime()
	defer cancel()
	return s.putRecord(ctx, s.ds, pieces, piece, &info)
}

// AddPieceBlockLocations implements piecestore.PieceStore: all locations or none.
func (s *Store) AddPieceBlockLocations(piece cid.Cid, locations map[cid.Cid]piecestore.BlockLocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := shared.Lifetime()
	defer cancel()
	b, err := s.ds.Batch(ctx)
	if err != nil {
		return err
	}
	for c, l := range locations {
		info, err := s.GetCIDInfo(c)
		if errors.Is(err, shared.ErrNotFound) {
			info, err = piecestore.CIDInfo{CID: c}, nil
		}
		if err != nil {
			return err
		}
		at := piecestore.PieceBlockLocation{BlockLocation: l, PieceCID: piece}
		if slices.Contains(info.PieceBlockLocations, at) {
			continue
		}
		info.PieceBlockLocations = append(info.PieceBlockLocations, at)
		if err := s.putRecord(ctx, b, cids, c, &info); err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

// GetPieceInfo implements piecestore.PieceStore.
func (s *Store) GetPieceInfo(piece cid.Cid) (info piecestore.PieceInfo, err error) {
	return info, s.getRecord(pieces, "piece with", piece, &info)
}

// GetCIDInfo implements piecestore.PieceStore.
func (s *Store) GetCIDInfo(payload cid.Cid) (info piecestore.CIDInfo, err error) {
	return info, s.getRecord(cids, "payload", payload, &info)
}

// ListCidInfoKeys implements piecestore.PieceStore.
func (s *Store) ListCidInfoKeys() ([]cid.Cid, error) { return s.listKeys(cids) }

// ListPieceInfoKeys implements piecestore.PieceStore.
func (s *Store) ListPieceInfoKeys() ([]cid.Cid, error) { return s.listKeys(pieces) }

func (s *Store) listKeys(prefix string) ([]cid.Cid, error) {
	ctx, cancel := shared.Lifetime()
	defer cancel()
	res, err := s.ds.Query(ctx, query.Query{Prefix: strings.TrimSuffix(prefix, "/"), KeysOnly: true})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	out := []cid.Cid{}
	for e := range res.Next() {
		if e.Error != nil {
			return nil, e.Error
		}
		c, err := cid.Decode(strings.TrimPrefix(e.Key, prefix))
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", e.Key, err)
		}
		out = append(out, c)
	}
	return out, nil
}
