// Package blockunsealing serves pieces out of sealed sectors: it finds the pieces that hold a payload in a piece store, and
// unseals a piece on demand into a store of its own, once for all deals that wait for it (M-20). The store is dropped after
// the last of them.
package blockunsealing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	ipldformat "github.com/ipfs/go-ipld-format"
	carv2 "github.com/ipld/go-car/v2"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// Unsealer reads a piece: a CAR and zero padding.
type Unsealer interface {
	UnsealSector(ctx context.Context, sectorID abi.SectorNumber, offset abi.UnpaddedPieceSize, length abi.UnpaddedPieceSize) (io.ReadCloser, error)
}

// SectorAccessor is optional on an Unsealer: it tells whether an unsealed copy is at hand. Such a piece is preferred.
type SectorAccessor interface {
	IsUnsealed(ctx context.Context, sectorID abi.SectorNumber, offset abi.UnpaddedPieceSize, length abi.UnpaddedPieceSize) (bool, error)
}

// Source finds and unseals pieces. It is safe for concurrent use.
type Source struct {
	pieces piecestore.PieceStore
	stores *multistore.MultiStore
	node   Unsealer
	ds     datastore.Batching // the ids of the stores in use, so that a start drops what a crash left

	mu    sync.Mutex
	open  map[cid.Cid]*piece
	group lifecycle.Group
}

// New returns a source. Stores that an earlier process left are dropped.
func New(ctx context.Context, pieces piecestore.PieceStore, stores *multistore.MultiStore, node Unsealer, ds datastore.Batching) (*Source, error) {
	s := &Source{pieces: pieces, stores: stores, node: node, ds: ds, open: map[cid.Cid]*piece{}}
	var left []multistore.StoreID
	err := store.Each(ctx, ds, "", func(key string, _ []byte) error {
		id, err := strconv.ParseUint(datastore.NewKey(key).BaseNamespace(), 10, 64)
		if err != nil {
			return fmt.Errorf("store id %q: %w", key, err)
		}
		left = append(left, multistore.StoreID(id))
		return nil
	})
	for _, id := range left {
		err = errors.Join(err, s.drop(ctx, id))
	}
	return s, err
}

func storeKey(id multistore.StoreID) datastore.Key {
	return datastore.NewKey(strconv.FormatUint(uint64(id), 10))
}

func (s *Source) drop(ctx context.Context, id multistore.StoreID) error {
	if err := s.stores.Delete(id); err != nil {
		return err
	}
	return s.ds.Delete(ctx, storeKey(id))
}

// accessLimit bounds one question about an unsealed copy.
const accessLimit = 5 * time.Second

// Find returns a piece that holds a payload, one with an unsealed copy if there is one, and the bytes of its CAR at most. It
// unseals nothing. A payload that is in no piece, or not in the named one, answers an error that wraps ErrNotFound.
func (s *Source) Find(ctx context.Context, payload cid.Cid, named *cid.Cid) (piecestore.PieceInfo, uint64, error) {
	info, err := s.pieces.GetCIDInfo(payload)
	if err != nil {
		return piecestore.PieceInfoUndefined, 0, err
	}
	var found []piecestore.PieceInfo
	var errs []error
	for _, at := range info.PieceBlockLocations {
		if named != nil && !named.Equals(at.PieceCID) {
			continue
		}
		p, err := s.pieces.GetPieceInfo(at.PieceCID)
		if err == nil && len(p.Deals) == 0 {
			err = fmt.Errorf("piece with CID %s: %w", at.PieceCID, rm.ErrNotFound)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, p)
	}
	if len(found) == 0 {
		return piecestore.PieceInfoUndefined, 0, errors.Join(append(errs, fmt.Errorf("payload CID %s: %w", payload, rm.ErrNotFound))...)
	}
	best := found[0]
	for _, p := range found {
		if s.atHand(ctx, p) {
			best = p
			break
		}
	}
	return best, uint64(best.Deals[0].Length.Unpadded()), nil
}

func (s *Source) atHand(ctx context.Context, p piecestore.PieceInfo) bool {
	ctx, cancel := context.WithTimeout(ctx, accessLimit)
	defer cancel()
	return AtHand(ctx, s.node, p)
}

// AtHand tells whether a node has an unsealed copy of a piece. One that is no SectorAccessor has none.
func AtHand(ctx context.Context, node any, p piecestore.PieceInfo) bool {
	a, ok := node.(SectorAccessor)
	if !ok {
		return false
	}
	for _, d := range p.Deals {
		if yes, err := a.IsUnsealed(ctx, d.SectorID, d.Offset.Unpadded(), d.Length.Unpadded()); err == nil && yes {
			return true
		}
	}
	return false
}

// piece is a piece in use: its store is read by everybody who acquired it.
type piece struct {
	cid    cid.Cid
	users  int // guarded by the source's lock
	id     multistore.StoreID
	store  *multistore.Store
	err    error
	ready  chan struct{} // closed when store or err is there
	cancel context.CancelFunc
}

// Handle is the right to read a piece until it is closed, and the pieces that have what it lacks.
type Handle struct {
	source *Source
	piece  *piece
	once   sync.Once
	err    error

	mu     sync.Mutex
	closed bool
	others []*Handle
}

// Get reads a block, checked against its CID when it was unsealed.
func (h *Handle) Get(c cid.Cid) ([]byte, error) {
	ctx, cancel := shared.Lifetime()
	defer cancel()
	b, err := h.piece.store.Bstore.Get(ctx, c)
	if err == nil {
		return b.RawData(), nil
	}
	err = fmt.Errorf("block %s of piece %s: %w", c, h.piece.cid, err)
	if !ipldformat.IsNotFound(err) {
		return nil, err
	}
	return h.elsewhere(ctx, c, err)
}

// maxTogether is how many pieces one handle unseals beside its own.
const maxTogether = 8

// elsewhere reads a block that the piece lacks out of another one that has it. absent is the error if there is none.
func (h *Handle) elsewhere(ctx context.Context, c cid.Cid, absent error) ([]byte, error) {
	info, err := h.source.pieces.GetCIDInfo(c)
	if err != nil {
		return nil, absent
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, at := range info.PieceBlockLocations {
		if at.PieceCID.Equals(h.piece.cid) || h.closed {
			continue
		}
		o := h.other(ctx, at.PieceCID)
		if o == nil {
			continue
		}
		if b, err := o.piece.store.Bstore.Get(ctx, c); err == nil {
			return b.RawData(), nil
		}
	}
	return nil, absent
}

// other is the handle of another piece, which is unsealed if it has to be; mu is held.
func (h *Handle) other(ctx context.Context, piece cid.Cid) *Handle {
	for _, o := range h.others {
		if o.piece.cid.Equals(piece) {
			return o
		}
	}
	if len(h.others) == maxTogether {
		return nil
	}
	o, err := h.source.Acquire(ctx, piece)
	if err != nil {
		return nil
	}
	h.others = append(h.others, o)
	return o
}

// Close gives the piece back.
func (h *Handle) Close() error {
	h.once.Do(func() {
		h.err = h.source.leave(h.piece)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.closed = true
		for _, o := range h.others {
			h.err = errors.Join(h.err, o.Close())
		}
	})
	return h.err
}

// Acquire unseals a piece, or joins those who use it or wait for it already. A failure is told to all who waited; the next
// Acquire tries again.
func (s *Source) Acquire(ctx context.Context, c cid.Cid) (*Handle, error) {
	p, err := s.enter(c)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ready:
		err = p.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, s.leave(p))
	}
	return &Handle{source: s, piece: p}, nil
}

func (s *Source) enter(c cid.Cid) (*piece, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.open[c]; p != nil {
		p.users++
		return p, nil
	}
	info, err := s.pieces.GetPieceInfo(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := shared.Lifetime()
	p := &piece{cid: c, users: 1, id: s.stores.Next(), ready: make(chan struct{}), cancel: cancel}
	s.open[c] = p
	if !s.group.Go(func() { s.fill(ctx, p, info) }) {
		cancel()
		delete(s.open, c)
		return nil, errors.New("the source of pieces is closed")
	}
	return p, nil
}

// leave ends one use of a piece; after the last one its store is dropped, and a piece that nobody waits for any more is not
// unsealed further.
func (s *Source) leave(p *piece) error {
	s.mu.Lock()
	p.users--
	last := p.users == 0
	if last && s.open[p.cid] == p {
		delete(s.open, p.cid)
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	p.cancel()
	<-p.ready // soon, its work was cancelled
	ctx, cancel := shared.Lifetime()
	defer cancel()
	return s.drop(ctx, p.id)
}

// fill unseals a piece out of the first sector that works.
func (s *Source) fill(ctx context.Context, p *piece, info piecestore.PieceInfo) {
	defer close(p.ready)
	var errs []error
	for _, d := range info.Deals {
		err := s.unseal(ctx, p, d)
		if err == nil {
			return
		}
		errs = append(errs, fmt.Errorf("sector %d: %w", d.SectorID, err))
		if ctx.Err() != nil {
			break
		}
	}
	p.err = fmt.Errorf("unseal piece %s: %w", p.cid, errors.Join(errs...))
	s.mu.Lock()
	if s.open[p.cid] == p {
		delete(s.open, p.cid) // who comes now tries again
	}
	s.mu.Unlock()
}

// batch is how many bytes of blocks are written at once.
const batch = 4 << 20

func (s *Source) unseal(ctx context.Context, p *piece, d piecestore.DealInfo) (err error) {
	if err := s.ds.Put(ctx, storeKey(p.id), nil); err != nil {
		return err
	}
	if err := s.ds.Sync(ctx, storeKey(p.id)); err != nil {
		return err
	}
	st, err := s.stores.Get(p.id)
	if err != nil {
		return err
	}
	r, err := s.node.UnsealSector(ctx, d.SectorID, d.Offset.Unpadded(), d.Length.Unpadded())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.Close() }) // a read that hangs ends with its last waiter
	defer func() {
		if stop() {
			err = errors.Join(err, r.Close())
		}
	}()
	car, err := carv2.NewBlockReader(io.LimitReader(r, int64(d.Length.Unpadded())), carv2.ZeroLengthSectionAsEOF(true), carv2.MaxAllowedSectionSize(carstore.MaxBlock+maxCid))
	if err != nil {
		return err
	}
	if err := copyBlocks(ctx, st, car); err != nil {
		return err
	}
	p.store = st
	return nil
}

// maxCid bounds the CID before a block.
const maxCid = 256

func copyBlocks(ctx context.Context, st *multistore.Store, car *carv2.BlockReader) error {
	var some []blocks.Block
	size := 0
	for {
		b, err := car.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err == nil && len(b.RawData()) > carstore.MaxBlock {
			return carstore.TooLarge(b.Cid(), uint64(len(b.RawData())))
		}
		if err == nil {
			some = append(some, b)
			size += len(b.RawData())
		}
		if len(some) > 0 && (err != nil || size >= batch) {
			if err := st.Bstore.PutMany(ctx, some); err != nil {
				return err
			}
			some, size = nil, 0
		}
		if err != nil {
			return ctx.Err()
		}
	}
}

// Close waits for what is being unsealed; whoever waits is told. Handles may be closed after it.
func (s *Source) Close(ctx context.Context) error {
	s.mu.Lock()
	for _, p := range s.open {
		p.cancel()
	}
	s.mu.Unlock()
	return s.group.Close(ctx)
}
