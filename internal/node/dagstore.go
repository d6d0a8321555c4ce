package node

import (
	"context"
	"errors"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
)

// shardKey reads the key of a shard.
func shardKey(key string) (cid.Cid, error) {
	c, err := cid.Decode(key)
	if err == nil {
		c, err = commp.V1(c)
	}
	if err != nil {
		return cid.Undef, api.Errorf(api.CodeUsage, "Keys are listed by cartage dagstore list-shards.", "%q is not a piece CID: %w", key, err)
	}
	return c, nil
}

func shardInfo(sh dagstore.Shard) api.DagstoreShardInfo {
	return api.DagstoreShardInfo{Key: sh.Piece.String(), State: sh.State.String(), Error: sh.Error}
}

// shardInfos tells of shards in the order of their keys.
func shardInfos(list []dagstore.Shard) []api.DagstoreShardInfo {
	out := make([]api.DagstoreShardInfo, 0, len(list))
	for _, sh := range list {
		out = append(out, shardInfo(sh))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// DagstoreListShards answers Cartage.DagstoreListShards.
func (s Service) DagstoreListShards(context.Context) ([]api.DagstoreShardInfo, error) {
	list, err := s.n.Pieces.List()
	return shardInfos(list), coded(err)
}

// DagstoreShards answers Cartage.DagstoreShards: a page of all that is known, in the order of registration.
func (s Service) DagstoreShards(_ context.Context, p api.DagstoreListParams) ([]api.DagstoreShard, error) {
	if p.Offset < 0 || p.Limit < 0 {
		return nil, api.Errorf(api.CodeUsage, "", "offset %d, limit %d: neither can be negative", p.Offset, p.Limit)
	}
	if p.Limit == 0 {
		p.Limit = 1000
	}
	list, err := s.n.Pieces.List()
	if err != nil {
		return nil, coded(err)
	}
	out := []api.DagstoreShard{}
	for _, sh := range list {
		if p.State != "" && p.State != sh.State.String() {
			continue
		}
		if p.Offset > 0 {
			p.Offset--
			continue
		}
		if len(out) == p.Limit {
			break
		}
		v := api.DagstoreShard{DagstoreShardInfo: shardInfo(sh), Where: sh.Where(), Blocks: sh.Blocks, CarSize: sh.CarSize, Padded: sh.Padded,
			Refs: s.n.Pieces.Readers(sh.Number), Created: stamp(sh.Created), IndexedAt: stamp(sh.IndexedAt)}
		if sh.Root.Defined() {
			v.Root = sh.Root.String()
		}
		out = append(out, v)
	}
	return out, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// DagstoreRegisterShard answers Cartage.DagstoreRegisterShard. A key that is known is success.
func (s Service) DagstoreRegisterShard(_ context.Context, key string) error {
	c, err := shardKey(key)
	if err != nil {
		return err
	}
	_, err = s.n.Pieces.Info(c)
	if errors.Is(err, dagstore.ErrShardUnknown) {
		return api.Errorf(api.CodeNotFound, "Say where it is: cartage dagstore register-shard KEY FILE-OR-URL.", "no copy of piece %s is known", c)
	}
	return coded(err)
}

// DagstoreRegister answers Cartage.DagstoreRegister: a piece that is in a file or behind a URL, read now or when it is first wanted.
func (s Service) DagstoreRegister(ctx context.Context, key, where string, url, lazy bool) (*api.Piece, error) {
	c, err := shardKey(key)
	if err != nil {
		return nil, err
	}
	src := dagstore.Source{Path: where, Piece: c}
	if url {
		src.Path, src.Mount = "", where
	}
	register := s.n.Pieces.Register
	if lazy {
		register = s.n.Pieces.RegisterLazy
	}
	sh, err := register(ctx, src)
	if err != nil {
		return nil, coded(err)
	}
	p := s.n.piece(sh)
	return &p, nil
}

// DagstoreInitializeShard answers Cartage.DagstoreInitializeShard.
func (s Service) DagstoreInitializeShard(ctx context.Context, key string) error {
	return s.onShard(ctx, key, s.n.Pieces.Initialize)
}

// DagstoreRecoverShard answers Cartage.DagstoreRecoverShard.
func (s Service) DagstoreRecoverShard(ctx context.Context, key string) error {
	return s.onShard(ctx, key, s.n.Pieces.Recover)
}

// DagstoreDestroyShard answers Cartage.DagstoreDestroyShard.
func (s Service) DagstoreDestroyShard(ctx context.Context, key string) error {
	return s.onShard(ctx, key, s.n.Pieces.Destroy)
}

func (s Service) onShard(ctx context.Context, key string, f func(context.Context, cid.Cid) error) error {
	c, err := shardKey(key)
	if err != nil {
		return err
	}
	return coded(f(ctx, c))
}

// DagstoreGC answers Cartage.DagstoreGC.
func (s Service) DagstoreGC(ctx context.Context) ([]api.DagstoreShardResult, error) {
	list, err := s.n.Pieces.Collect(ctx)
	out := make([]api.DagstoreShardResult, 0, len(list))
	for _, r := range list {
		v := api.DagstoreShardResult{Key: r.Piece.String(), Success: r.Error == nil}
		if r.Error != nil {
			v.Error = r.Error.Error()
		}
		out = append(out, v)
	}
	return out, coded(err)
}

// DagstoreLookupPieces answers Cartage.DagstoreLookupPieces: the pieces that hold a block.
func (s Service) DagstoreLookupPieces(_ context.Context, c string) ([]api.DagstoreShardInfo, error) {
	block, err := ParseCID(c)
	if err != nil {
		return nil, err
	}
	list, err := s.n.Pieces.Lookup(block)
	return shardInfos(list), coded(err)
}

// DagstoreDoctor answers Cartage.DagstoreDoctor.
func (s Service) DagstoreDoctor(ctx context.Context) ([]api.DagstoreFinding, error) {
	out := []api.DagstoreFinding{}
	for f, err := range s.n.Pieces.Doctor(ctx) {
		if err != nil {
			return out, coded(err)
		}
		v := api.DagstoreFinding{Number: f.Number, Reason: f.Reason, Detail: f.Detail, Repair: f.Repair}
		if f.Piece.Defined() {
			v.Key = f.Piece.String()
		}
		out = append(out, v)
	}
	return out, nil
}

// knownPieces are those of the storage deals of this node.
func (n *Node) knownPieces(ctx context.Context) (out []dagstore.KnownPiece, err error) {
	if n.storage == nil {
		return nil, nil
	}
	deals, err := n.storage.Deals(ctx)
	for _, d := range deals {
		out = append(out, dagstore.KnownPiece{Piece: d.Proposal.Proposal.PieceCID, Padded: uint64(d.Proposal.Proposal.PieceSize)})
	}
	return out, err
}

// DagstoreRebuild answers Cartage.DagstoreRebuild: what of the index is lost or damaged is made anew out of the pieces.
func (s Service) DagstoreRebuild(ctx context.Context) ([]api.DagstoreShardResult, error) {
	out := []api.DagstoreShardResult{}
	known, err := s.n.knownPieces(ctx)
	if err != nil {
		return nil, coded(err)
	}
	for r, err := range s.n.Pieces.Rebuild(ctx, known) {
		if err != nil {
			return out, coded(err)
		}
		v := api.DagstoreShardResult{Key: r.File, Success: r.Error == nil}
		if r.Piece.Defined() {
			v.Key = r.Piece.String()
		}
		if r.Error != nil {
			v.Error = r.Error.Error()
		}
		out = append(out, v)
	}
	return out, nil
}

// DagstoreInitializeAll answers Cartage.DagstoreInitializeAll, over WebSocket: all shards that were registered only. The stream ends
// with them or with ctx; a shard that was begun goes on then.
func (s Service) DagstoreInitializeAll(ctx context.Context, p api.DagstoreInitializeAllParams) (<-chan api.DagstoreInitializeAllEvent, error) {
	list, err := s.n.Pieces.List()
	if err != nil {
		return nil, coded(err)
	}
	var keys []cid.Cid
	for _, sh := range list {
		if sh.State == dagstore.StateNew && (p.IncludeSealed || !strings.HasPrefix(sh.Mount, dagstore.SectorScheme+"://")) {
			keys = append(keys, sh.Piece)
		}
	}
	jobs := p.MaxConcurrency
	if jobs <= 0 {
		jobs = len(keys)
	}
	out := make(chan api.DagstoreInitializeAllEvent)
	// It ends with the caller or with the node; what was begun goes on until the node ends.
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.n.ctx, cancel)
	send := func(e api.DagstoreInitializeAllEvent) {
		select {
		case out <- e:
		case <-ctx.Done():
		}
	}
	s.n.wg.Go(func() {
		defer cancel()
		defer stop()
		defer close(out)
		var wg sync.WaitGroup
		defer wg.Wait()
		slots := make(chan struct{}, max(jobs, 1))
		for i, k := range keys {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			e := api.DagstoreInitializeAllEvent{Key: k.String(), Event: "start", Total: len(keys), Current: i + 1}
			wg.Go(func() {
				defer func() { <-slots }()
				send(e)
				e.Event = "end"
				if err := s.n.Pieces.InitializeAnyway(ctx, k); err != nil {
					e.Error = err.Error()
				}
				e.Success = e.Error == ""
				send(e)
			})
		}
	})
	return out, nil
}
