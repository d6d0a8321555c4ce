package dagstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore/index"
)

// Finding is what is wrong with a shard, by the names of the node spec 7.6, and what helps.
type Finding struct {
	Number uint64
	Piece  cid.Cid // undefined if its record cannot be read
	Reason string
	Detail string
	Repair string

	state State
}

// The reasons of findings.
const (
	NotIndexed     = "not indexed"
	CopyUnreadable = "copy unreadable"
	IndexMismatch  = "index mismatch"
	BadRecord      = "bad record"
)

// sampleEvery is one of how many rows of a piece is compared with its order file, and read.
const sampleEvery = 1000

// inspector looks whether the bytes of shards are what they were when they were registered.
type inspector struct {
	life    *lifetime
	cat     catalogue
	index   *index.Embedded
	files   *pieceFiles
	indexer *indexer

	damaged sync.Map // number of a shard -> CID of the last block that was read and was not what its CID says
	proved  sync.Map // number of a shard -> fileStamp of the file when some of its blocks were read
}

// Doctor looks at every shard, and tells what is wrong. It changes nothing.
func (in *inspector) Doctor(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		leave, err := in.life.enter()
		if err != nil {
			yield(Finding{}, err)
			return
		}
		defer leave()
		ctx, cancel := in.life.boundByStore(ctx)
		defer cancel()
		var list []Shard
		var bad []Finding
		err = in.cat.eachShard(func(sh Shard, _ bool) { list = append(list, sh) }, func(n uint64, raw []byte, err error) {
			bad = append(bad, Finding{Number: n, Reason: BadRecord, Detail: fmt.Sprintf("%v: %x", err, raw[:min(len(raw), 64)]), Repair: "register the piece again"})
		})
		if err != nil {
			yield(Finding{}, err)
			return
		}
		for _, f := range bad {
			if !yield(f, nil) {
				return
			}
		}
		for _, sh := range list {
			if err := ctx.Err(); err != nil {
				yield(Finding{}, err)
				return
			}
			if f, ok := in.examineShard(ctx, sh); !ok && !yield(f, nil) {
				return
			}
		}
	}
}

// examineShard looks at one shard.
func (in *inspector) examineShard(ctx context.Context, sh Shard) (Finding, bool) {
	f := Finding{Number: sh.Number, Piece: sh.Piece, state: sh.State}
	if sh.State != StateAvailable {
		f.Reason, f.Detail, f.Repair = NotIndexed, fmt.Sprint(sh.State, " ", sh.Error), "dagstore initialize-shard, or recover-shard if it has failed"
		return f, false
	}
	m, err := in.files.mountOf(&sh)
	var file Reader
	if _, streamed := m.(Streamer); err == nil && !streamed { // a stream would have to be copied
		if file, err = m.Open(ctx); err == nil {
			defer file.Close()
			err = checkLength(file, &sh)
		}
	}
	if err != nil {
		f.Reason, f.Detail, f.Repair = CopyUnreadable, fmt.Sprintf("%s: %v", sh.Where(), err), "put the file back, or register the piece from where it is now"
		return f, false
	}
	if err := in.recheckDamage(ctx, sh, file); err != nil {
		f.Reason, f.Detail, f.Repair = BlockDamaged, fmt.Sprintf("%s: %v", sh.Where(), err), "put a whole copy of the file in its place"
		return f, false
	}
	if err := in.sampleRows(ctx, sh, file); err != nil {
		f.Reason, f.Detail, f.Repair = IndexMismatch, err.Error(), "destroy the shard and register it again"
		return f, false
	}
	return f, true
}

// sampleRows compares the order file of a piece with its rows, and some of them with the bytes.
func (in *inspector) sampleRows(ctx context.Context, sh Shard, file Reader) error {
	if err := in.index.Check(sh.Number); err != nil {
		return err
	}
	i, buf := 0, []byte(nil)
	for r, err := range in.index.Iterate(ctx, sh.Number, nil) {
		if err != nil {
			return err
		}
		if i++; i%sampleEvery != 1 {
			continue
		}
		rows, err := in.index.Find(ctx, r.Multihash)
		if err != nil {
			return err
		}
		found := false
		for _, row := range rows {
			found = found || row.Piece == sh.Number && row.Offset == r.Offset
		}
		if !found {
			return fmt.Errorf("block %s is in the order file and has no row", r.Multihash.B58String())
		}
		if file == nil {
			continue
		}
		if need := int(r.Section()); cap(buf) < need {
			buf = make([]byte, need)
		}
		_, err = carstore.ReadSectionInto(buf, file, int64(sh.Offset+r.Offset), int64(r.Section()), cid.NewCidV1(cid.Raw, r.Multihash))
		if err != nil {
			return errors.Join(fmt.Errorf("block %s", r.Multihash.B58String()), err)
		}
	}
	return nil
}
