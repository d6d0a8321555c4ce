package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/boxo/blockservice"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	ihelper "github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	carbs "github.com/ipld/go-car/v2/blockstore"
	carindex "github.com/ipld/go-car/v2/index"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/store"
)

// seeded writes a file of seeded bytes.
func seeded(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	return errors.Join(err, f.Close())
}

// importing: a file by reference, against hashing its chunks, and against boxo's importer into a CARv2 blockstore.
func importing(ctx context.Context, dir string, size int64, _ int) ([]row, error) {
	name := filepath.Join(dir, "data")
	if err := seeded(name, size); err != nil {
		return nil, err
	}
	hash, err := measure(func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		for buf := make([]byte, 1<<20); ; {
			n, err := io.ReadFull(f, buf)
			sha256.Sum256(buf[:n])
			if err != nil {
				return nil
			}
		}
	})
	if err != nil {
		return nil, err
	}
	m, err := imports.Open(ctx, blob.OS{}, filepath.Join(dir, "imports"), dssync.MutexWrap(datastore.NewMapDatastore()))
	if err != nil {
		return nil, err
	}
	var root cid.Cid
	ours, err := measure(func() error {
		i, err := m.Add(ctx, name, imports.UnixFS2025(), nil)
		root = i.Root()
		return err
	})
	if err != nil {
		return nil, err
	}
	boxo, err := measure(func() error { return boxoImport(ctx, name, filepath.Join(dir, "boxo.car"), root) })
	if err != nil {
		return nil, err
	}
	return []row{against(fmt.Sprintf("import of %d MiB by reference, CPU, against hashing alone", size>>20), ours.cpu, hash.cpu, 1.5, false),
		against("the same, speed against boxo's importer into a CARv2 blockstore", ours.cpu, boxo.cpu, 2, true)}, nil
}

func boxoImport(ctx context.Context, name, car string, root cid.Cid) error {
	bs, err := carbs.OpenReadWrite(car, []cid.Cid{root})
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	prefix := cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256}
	params := ihelper.DagBuilderParams{Maxlinks: 1024, RawLeaves: true, CidBuilder: prefix, Dagserv: merkledag.NewDAGService(blockservice.New(bs, nil))}
	db, err := params.New(chunk.NewSizeSplitter(f, 1<<20))
	if err != nil {
		return err
	}
	n, err := balanced.Layout(db)
	if err != nil {
		return err
	}
	if !n.Cid().Equals(root) {
		return fmt.Errorf("boxo makes %s of the file, we %s", n.Cid(), root)
	}
	return bs.Finalize()
}

// record is the i-th of the seeded records.
func record(digest []byte, i uint64) index.Record {
	h, _ := mh.Encode(digest, mh.SHA2_256)
	return index.Record{Multihash: h, Offset: 59 + i*140, Size: 100, Overhead: 40}
}

// indexing: two sizes, against go-car's index with its sort.
func indexing(ctx context.Context, dir string, _ int64, records int) ([]row, error) {
	kv, err := store.OpenKV(filepath.Join(dir, "rows"))
	if err != nil {
		return nil, err
	}
	defer kv.Close()
	x, err := index.Open(blob.OS{}, filepath.Join(dir, "order"), kv)
	if err != nil {
		return nil, err
	}
	var out []row
	var first spent
	for n, count := range []int{records / 4, records} {
		ours, err := measure(func() error {
			r := rand.NewChaCha8([32]byte{byte(n)})
			digest := make([]byte, 32)
			_, err := x.Add(ctx, uint64(n+1), func(put func(index.Record) error) error {
				for i := range count {
					_, _ = r.Read(digest)
					if err := put(record(digest, uint64(i))); err != nil {
						return err
					}
				}
				return nil
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		other, err := measure(func() error { return goCarIndex(filepath.Join(dir, "other"), count, byte(n)) })
		if err != nil {
			return nil, err
		}
		r := against(fmt.Sprintf("index of %d records, time, against go-car's index with its sort", count), ours.wall, other.wall, 1, false)
		out = append(out, r, row{fmt.Sprintf("the same, heap above the baseline (go-car %s)", mib(other.peak)), mib(ours.peak), "", "", "at most 256 MiB", ours.peak <= 256<<20})
		if n == 0 {
			first = ours
			continue
		}
		r = against("time of a record, the larger index against the smaller", ours.wall/4, first.wall, 1.3, false)
		out = append(out, r)
	}
	lookups, err := lookupTimes(ctx, x, records)
	return append(out, lookups), err
}

func goCarIndex(name string, count int, seed byte) error {
	r := rand.NewChaCha8([32]byte{seed})
	list := make([]carindex.Record, count)
	for i := range list {
		digest := make([]byte, 32)
		_, _ = r.Read(digest)
		h, _ := mh.Encode(digest, mh.SHA2_256)
		list[i] = carindex.Record{Cid: cid.NewCidV1(cid.Raw, h), Offset: 59 + uint64(i)*140}
	}
	idx := carindex.NewMultihashSorted()
	if err := idx.Load(list); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = carindex.WriteTo(idx, f)
	return errors.Join(err, f.Sync(), f.Close())
}

// lookupTimes is the time of lookups of what is there, in any order, after a first round.
func lookupTimes(ctx context.Context, x *index.Embedded, records int) (row, error) {
	r := rand.NewChaCha8([32]byte{1})
	digest := make([]byte, 32)
	var some []mh.Multihash
	for i := range records {
		_, _ = r.Read(digest)
		if i%max(records/20_000, 1) == 0 {
			h, _ := mh.Encode(digest, mh.SHA2_256)
			some = append(some, h)
		}
	}
	var times []time.Duration
	for range 2 {
		times = times[:0]
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		for _, h := range some {
			t := time.Now()
			rows, err := x.Find(ctx, h)
			times = append(times, time.Since(t))
			if err != nil || len(rows) != 1 {
				return row{}, fmt.Errorf("lookup of %x: %d rows, %w", h, len(rows), err)
			}
		}
	}
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	return row{fmt.Sprintf("lookup of a multihash among %d rows, warm, p99 (median %s)", records+records/4, times[len(times)/2].Round(time.Microsecond)), ms(p99), "", "", "at most 1 ms", p99 <= time.Millisecond}, nil
}

// manyBlocks writes a CARv1 of so many blocks of a size.
func manyBlocks(name string, count, size int) ([]cid.Cid, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := &writer{f: f}
	var some []cid.Cid
	data := make([]byte, size)
	for i := range count {
		binary.BigEndian.PutUint64(data, uint64(i))
		sum := sha256.Sum256(data)
		h, _ := mh.Encode(sum[:], mh.SHA2_256)
		c := cid.NewCidV1(cid.Raw, h)
		if i == 0 {
			head, err := carstore.V1Header(c)
			if err != nil {
				return nil, err
			}
			w.write(head)
		}
		if i%max(count/10_000, 1) == 0 {
			some = append(some, c)
		}
		w.write(varint.ToUvarint(uint64(c.ByteLen() + size)))
		w.write(c.Bytes())
		w.write(data)
	}
	w.flush()
	return some, w.err
}

type writer struct {
	f   *os.File
	buf bytes.Buffer
	err error
}

func (w *writer) write(p []byte) {
	w.buf.Write(p)
	if w.buf.Len() > 1<<20 {
		w.flush()
	}
}

func (w *writer) flush() {
	if w.err == nil {
		_, w.err = w.f.Write(w.buf.Bytes())
	}
	w.buf.Reset()
}

// shards: a shard of many small blocks is opened for its first block.
func shards(ctx context.Context, dir string, _ int64, records int) ([]row, error) {
	car := filepath.Join(dir, "a.car")
	some, err := manyBlocks(car, records, 64)
	if err != nil {
		return nil, err
	}
	s, err := dagstore.Open(ctx, blob.OS{}, filepath.Join(dir, "dagstore"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var sh dagstore.Shard
	reg, err := measure(func() error {
		sh, err = s.Register(ctx, dagstore.Source{Path: car})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	if s, err = dagstore.Open(ctx, blob.OS{}, filepath.Join(dir, "dagstore")); err != nil {
		return nil, err
	}
	first, err := measure(func() error {
		a, err := s.Acquire(ctx, sh.Piece)
		if err != nil {
			return err
		}
		_, err = a.Get(some[len(some)/2])
		return errors.Join(err, a.Close())
	})
	if err != nil {
		return nil, err
	}
	return []row{
		{fmt.Sprintf("registering that shard: %d blocks checked, indexed and committed to", records), sec(reg.wall), "", "", "none", true},
		{fmt.Sprintf("opening a shard of %d records for its first block, after a start", records), ms(first.wall), "", "", "at most 20 ms", first.wall <= 20*time.Millisecond},
	}, nil
}
