package dagstore_test

import (
	"bytes"
	"errors"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/faults"
)

func each(deals []dagstore.ExistingDeal, err error) iter.Seq2[dagstore.ExistingDeal, error] {
	return func(yield func(dagstore.ExistingDeal, error) bool) {
		for _, d := range deals {
			if !yield(d, nil) {
				return
			}
		}
		if err != nil {
			yield(dagstore.ExistingDeal{}, err)
		}
	}
}

// fourDeals are those of T-W1, with a second deal of the first piece.
func fourDeals(t *testing.T, w *world) []dagstore.ExistingDeal {
	_, unsealed, _ := w.origin("unsealed", 1, true)
	_, sealed, _ := w.origin("sealed", 2, true)
	_, failed, _ := w.origin("failed", 3, true)
	_, early, _ := w.origin("early", 4, true)
	return []dagstore.ExistingDeal{
		{Piece: unsealed, State: "StorageDealSealing", Sealing: true, Mount: "test://unsealed"},
		{Piece: sealed, State: "StorageDealActive", Sealing: true, Mount: "test://sealed"},
		{Piece: unsealed, State: "StorageDealActive", Sealing: true, Mount: "test://unsealed"},
		{Piece: failed, State: "StorageDealError", Mount: "test://failed"},
		{Piece: early, State: "StorageDealFundsReserved", Mount: "test://early"},
	}
}

// TestT_W1: of four deals two have a shard, which is New; a second run registers nothing, also after a restart.
func TestT_W1(t *testing.T) {
	w := newWorld(t)
	deals := fourDeals(t, w)
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	did, err := w.Migrate(t.Context(), each(deals, nil), log)
	require.NoError(t, err)
	require.True(t, did)
	list, err := w.List()
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, sh := range list {
		require.Equal(t, dagstore.StateNew, sh.State)
	}
	for _, text := range []string{"registering shards for all active deals in sealing subsystem", "registering deal in dagstore with lazy init", "deal not ready; skipping",
		"finished registering all shards", "total=3", "confirmed registration of all shards", "successfully marked migration as complete", "dagstore migration complete"} {
		require.Contains(t, out.String(), text)
	}
	marker, err := os.ReadFile(filepath.Join(w.cfg.Dir, ".shard-registration-complete"))
	require.NoError(t, err)
	require.Equal(t, "1\n", string(marker))
	w.restart()
	out.Reset()
	did, err = w.Migrate(t.Context(), each(fourDeals(t, w), errors.New("not asked")), log)
	require.NoError(t, err)
	require.False(t, did)
	require.Contains(t, out.String(), "no shard migration necessary; already marked complete")
	list, err = w.List()
	require.NoError(t, err)
	require.Len(t, list, 2)
}

// TestR_W1 : a migration that was interrupted at any write, or by an error of who lists the deals, is done again to the same end.
func TestR_W1(t *testing.T) {
	for at := 1; ; at++ {
		sw := &faults.Switch{At: at}
		w := newWorld(t)
		deals := fourDeals(t, w)
		require.NoError(t, w.Close())
		w.cfg.FS, w.cfg.BeforeWrite = faults.FS{FS: blob.OS{}, Switch: sw}, sw.Step
		if s, err := dagstore.OpenConfig(t.Context(), w.cfg); err == nil {
			_, err = s.Migrate(t.Context(), each(deals, nil), slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			_ = s.Close()
		}
		crashed := sw.Crashed()
		w.cfg.FS, w.cfg.BeforeWrite = blob.OS{}, nil
		w.start()
		_, err := w.Migrate(t.Context(), each(deals, nil), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		list, err := w.List()
		require.NoError(t, err)
		require.Len(t, list, 2, "write %d", at)
		require.Equal(t, dagstore.StateNew, list[0].State)
		if !crashed {
			require.Greater(t, at, 4)
			break
		}
	}
	w := newWorld(t)
	deals := fourDeals(t, w)
	_, err := w.Migrate(t.Context(), each(deals[:1], errors.New("the list is away")), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "the list is away")
	did, err := w.Migrate(t.Context(), each(deals, nil), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.True(t, did)
	require.NoError(t, os.WriteFile(filepath.Join(w.cfg.Dir, ".shard-registration-complete"), []byte("9"), 0o600))
	_, err = w.Migrate(t.Context(), each(deals, nil), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, `version "9"`)
}

// TestR_W2 : a piece that is known is success, whoever registers it and however.
func TestR_W2(t *testing.T) {
	w := newWorld(t)
	_, piece, cids := w.origin("a", 1, true)
	first, err := w.RegisterLazy(t.Context(), dagstore.Source{Mount: "test://a", Piece: piece})
	require.NoError(t, err)
	again, err := w.RegisterLazy(t.Context(), dagstore.Source{Mount: "test://other", Piece: piece})
	require.NoError(t, err)
	require.Equal(t, first.Number, again.Number)
	w.readable(piece, cids[0])
}
