package dagstore_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/faults"
)

func header(t testing.TB, roots ...cid.Cid) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cbg.NewCborWriter(&b)
	b.Write([]byte{0xa2, 0x65, 'r', 'o', 'o', 't', 's'})
	require.NoError(t, w.WriteMajorTypeHeader(cbg.MajArray, uint64(len(roots))))
	for _, r := range roots {
		require.NoError(t, cbg.WriteCid(&b, r))
	}
	b.Write([]byte{0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x01})
	return append(varint.ToUvarint(uint64(b.Len())), b.Bytes()...)
}

func section(c cid.Cid, data []byte) []byte {
	return append(append(varint.ToUvarint(uint64(c.ByteLen()+len(data))), c.Bytes()...), data...)
}

func sum(t testing.TB, code uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: code}.Sum(data)
	require.NoError(t, err)
	return c
}

// lying are archives that lie, with what has to be said of them; nothing is said of those that are right in spite of it.
func lying(t testing.TB) map[string]struct {
	data []byte
	says string
} {
	t.Helper()
	a, b := []byte("first"), []byte("second")
	ca, cb := sum(t, mh.SHA2_256, a), sum(t, mh.SHA2_256, b)
	inline := sum(t, mh.IDENTITY, []byte("inline"))
	raw, err := hex.DecodeString("0155" + "a0e402" + "05" + "0102030405") // a hash function that nobody knows
	require.NoError(t, err)
	strange, err := cid.Cast(raw)
	require.NoError(t, err)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	return map[string]struct {
		data []byte
		says string
	}{
		"no roots":                   {join(header(t), section(ca, a)), "the CAR names no root"},
		"two roots":                  {join(header(t, ca, cb), section(ca, a), section(cb, b)), ""},
		"one root twice":             {join(header(t, ca, ca), section(ca, a)), ""},
		"unknown hash":               {join(header(t, ca), section(ca, a), section(strange, b)), "section at offset"},
		"root of an unknown hash":    {join(header(t, strange), section(strange, a)), "section at offset"},
		"empty":                      {nil, "not a CAR"},
		"only a header":              {header(t, ca), "does not hold its root"},
		"length beyond the end":      {join(header(t, ca), section(ca, a), varint.ToUvarint(5000), cb.Bytes()), "does not fit"},
		"bytes of another block":     {join(header(t, ca), section(ca, a), section(cb, a)), "does not match"},
		"zero padding":               {join(header(t, ca), section(ca, a), make([]byte, 5000)), ""},
		"blocks behind zeros":        {join(header(t, ca), section(ca, a), make([]byte, 10), section(cb, a)), ""},
		"a block twice":              {join(header(t, ca), section(ca, a), section(ca, a)), ""},
		"identity blocks":            {join(header(t, ca), section(ca, a), section(inline, []byte("inline"))), ""},
		"identity with other bytes":  {join(header(t, ca), section(ca, a), section(inline, []byte("other"))), "section at offset"},
		"identity root without data": {header(t, inline), ""},
	}
}

// TestLies: archives that lie are refused with what is wrong and leave nothing; those that are right in spite of odd looks are taken.
func TestLies(t *testing.T) {
	for name, tc := range lying(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			car := filepath.Join(w.dir, "a.car")
			require.NoError(t, os.WriteFile(car, tc.data, 0o600))
			sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
			if tc.says == "" {
				require.NoError(t, err)
				w.readable(sh.Piece, sh.Root)
				return
			}
			require.ErrorContains(t, err, tc.says)
			list, err := w.List()
			require.NoError(t, err)
			require.Empty(t, list)
			files, err := os.ReadDir(filepath.Join(w.cfg.Dir, "order"))
			require.NoError(t, err)
			require.Empty(t, files)
		})
	}
}

func FuzzRegister(f *testing.F) {
	for _, tc := range lying(f) {
		f.Add(tc.data)
	}
	dir := f.TempDir()
	s, err := dagstore.Open(f.Context(), blob.OS{}, filepath.Join(dir, "store"))
	require.NoError(f, err)
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		car := filepath.Join(t.TempDir(), "a.car")
		require.NoError(t, os.WriteFile(car, data, 0o600))
		sh, err := s.Register(t.Context(), dagstore.Source{Path: car})
		if err != nil {
			return
		}
		a, err := s.Acquire(t.Context(), sh.Piece)
		require.NoError(t, err)
		_, err = a.Get(sh.Root)
		require.NoError(t, err, "a piece that was taken can be read")
		require.NoError(t, a.Close())
		require.NoError(t, s.Destroy(t.Context(), sh.Piece))
	})
}

// TestCrash: a store that dies at any write to a file, while it registers, copies, collects or destroys, repairs itself at the next
// start, and nothing is left over.
func TestCrash(t *testing.T) {
	for at := 1; ; at++ {
		sw := &faults.Switch{At: at}
		w := newWorld(t, func(c *dagstore.Config) { c.TransientQuota = 9000 })
		w.cfg.FS, w.cfg.BeforeWrite = faults.FS{FS: blob.OS{}, Switch: sw}, sw.Step
		_, streamed, cidsS := w.origin("s", 1, true)
		_, second, _ := w.origin("x", 3, true)
		car := filepath.Join(w.dir, "plain.car")
		cids, _ := writeCAR(t, car, 2, 10)
		require.NoError(t, w.Close())
		s, err := dagstore.OpenConfig(t.Context(), w.cfg)
		if err == nil {
			w.Store = s
			err = errors.Join(work(t, w, car, streamed, second), w.Close())
		}
		crashed := sw.Crashed()
		if crashed {
			require.Error(t, err)
		} else {
			require.NoError(t, err)
		}
		w.cfg.FS, w.cfg.BeforeWrite = blob.OS{}, nil
		w.start()
		sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
		require.NoError(t, err)
		w.readable(sh.Piece, cids[3])
		w.lazy("s", streamed)
		if w.state(streamed) == dagstore.StateErrored {
			require.NoError(t, w.Recover(t.Context(), streamed))
		}
		w.readable(streamed, cidsS[4])
		for _, piece := range []cid.Cid{sh.Piece, streamed, second} {
			if err := w.Destroy(t.Context(), piece); !errors.Is(err, dagstore.ErrShardUnknown) {
				require.NoError(t, err)
			}
		}
		w.restart()
		for _, dir := range []string{"order", "transients"} {
			require.Eventually(t, func() bool { // what is left is cleared away in the background
				files, err := os.ReadDir(filepath.Join(w.cfg.Dir, dir))
				return err == nil && len(files) == 0
			}, 5*time.Second, time.Millisecond, "write %d: %s", at, dir)
		}
		require.FileExists(t, car)
		if !crashed {
			require.Greater(t, at, 20)
			return
		}
	}
}

// work is what a store does to its files.
func work(t *testing.T, w *world, car string, streamed, second cid.Cid) error {
	sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
	if err != nil {
		return err
	}
	for name, piece := range map[string]cid.Cid{"s": streamed, "x": second} {
		if _, err := w.RegisterLazy(t.Context(), dagstore.Source{Mount: "test://" + name, Piece: piece}); err != nil {
			return err
		}
		a, err := w.Acquire(t.Context(), piece)
		if err != nil {
			return err
		}
		if err := a.Close(); err != nil {
			return err
		}
	}
	list, err := w.Collect(t.Context())
	for _, c := range list {
		err = errors.Join(err, c.Error)
	}
	return errors.Join(err, w.Destroy(t.Context(), sh.Piece))
}
