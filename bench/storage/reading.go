package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	commphh "github.com/filecoin-project/go-fil-commp-hashhash"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
)

// reading: blocks of 1 MiB out of a shard, against hashing them.
func reading(ctx context.Context, dir string, size int64, _ int) ([]row, error) {
	car := filepath.Join(dir, "a.car")
	n := int(size >> 20)
	some, err := manyBlocks(car, n, 1<<20)
	if err != nil {
		return nil, err
	}
	s, err := dagstore.Open(ctx, blob.OS{}, filepath.Join(dir, "dagstore"))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	sh, err := s.Register(ctx, dagstore.Source{Path: car})
	if err != nil {
		return nil, err
	}
	a, err := s.Acquire(ctx, sh.Piece)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var ours, into, hash []spent
	buf := make([]byte, 1<<20+64)
	for range 5 { // interleaved, the median counts
		g, err := measure(func() error {
			for _, c := range some {
				if _, err := a.GetInto(buf, c); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		into = append(into, g)
		o, err := measure(func() error {
			for _, c := range some {
				if _, err := a.Get(c); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		h, err := measure(func() error {
			data := make([]byte, 1<<20)
			for range some {
				sha256.Sum256(data)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		ours, hash = append(ours, o), append(hash, h)
	}
	crowd, err := measure(func() error { return thousand(ctx, s, sh.Piece, some) })
	if err != nil {
		return nil, err
	}
	return []row{{"1 000 readers of one shard at once, 10 blocks of 1 MiB each: heap above the baseline", mib(crowd.peak), "", "", "at most 64 MiB", crowd.peak <= 64<<20},
		against("blocks of 1 MiB out of a shard into one buffer, CPU, against sha2-256 over the same bytes", median(into), median(hash), 1.3, false),
		against("the same, each into memory of its own", median(ours), median(hash), 1.3, false)}, nil
}

// thousand acquires a shard a thousand times and reads through all of them at once.
func thousand(ctx context.Context, s *dagstore.Store, piece cid.Cid, some []cid.Cid) error {
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for i := range 1000 {
		wg.Go(func() {
			a, err := s.Acquire(ctx, piece)
			if err == nil {
				for k := range 10 {
					if _, err = a.Get(some[(i+k)%len(some)]); err != nil {
						break
					}
				}
				err = errors.Join(err, a.Close())
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func median(list []spent) time.Duration {
	slices.SortFunc(list, func(a, b spent) int { return int(a.cpu - b.cpu) })
	return list[len(list)/2].cpu
}

// commitments: piece commitments against go-fil-commp-hashhash, and on two cores against one.
func commitments(_ context.Context, _ string, size int64, _ int) ([]row, error) {
	data := make([]byte, min(size, 1<<30)/128*127)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data)
	var want []byte
	other, err := measure(func() error {
		c := &commphh.Calc{}
		_, err := c.Write(data)
		if err != nil {
			return err
		}
		want, _, err = c.Digest()
		return err
	})
	if err != nil {
		return nil, err
	}
	run := func(workers int) (spent, error) {
		return measure(func() error {
			w := commp.NewWriter(workers)
			if _, err := w.Write(data); err != nil {
				return err
			}
			p, err := w.Sum()
			if err != nil {
				return err
			}
			got, err := commp.Commitment(p.CID)
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("the commitments differ")
			}
			return err
		})
	}
	one, err := run(1)
	if err != nil {
		return nil, err
	}
	two, err := run(2)
	if err != nil {
		return nil, err
	}
	return []row{against(fmt.Sprintf("commitment of %d MiB, CPU, against go-fil-commp-hashhash", len(data)>>20), two.cpu, other.cpu, 0.9, false),
		against(fmt.Sprintf("the same, speed of two cores against one (%.0f MB/s on one)", float64(len(data))/1e6/one.wall.Seconds()), two.wall, one.wall, 1.8, true)}, nil
}

// idle: ten thousand shards that nobody reads.
func idle(ctx context.Context, dir string, _ int64, _ int) ([]row, error) {
	const n = 10_000
	s, err := dagstore.Open(ctx, blob.OS{}, filepath.Join(dir, "dagstore"))
	if err != nil {
		return nil, err
	}
	for i := range n {
		data := make([]byte, 127)
		binary.BigEndian.PutUint64(data, uint64(i))
		w := commp.NewWriter(1)
		_, _ = w.Write(data)
		p, err := w.Sum()
		if err != nil {
			return nil, err
		}
		if _, err := s.RegisterLazy(ctx, dagstore.Source{Path: filepath.Join(dir, "none"), Piece: p.CID}); err != nil {
			return nil, err
		}
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	up, err := measure(func() error {
		s, err = dagstore.Open(ctx, blob.OS{}, filepath.Join(dir, "dagstore"))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	before, goroutines := sizes(dir), runtime.NumGoroutine()
	tick, err := measure(func() error {
		_, err := s.Collect(ctx)
		return err
	})
	wrote := max(sizes(dir)-before, 0) // the engine tidies up when it likes
	return []row{{fmt.Sprintf("start of a store of %d idle shards (%d goroutines)", n, goroutines), ms(up.wall), "", "", "at most 1 s", up.wall <= time.Second},
		{"a collection over them: bytes written (" + ms(tick.wall) + ")", fmt.Sprint(wrote), "", "", "0", wrote == 0}}, err
}

func sizes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil {
			if i, err := d.Info(); err == nil && !d.IsDir() {
				n += i.Size()
			}
		}
		return nil
	})
	return n
}
