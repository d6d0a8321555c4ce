package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
)

// The file that says that all deals of a node have their shards, as nodes have named it, and the version that is in it.
const (
	migrationMarker  = ".shard-registration-complete"
	migrationVersion = "1"
)

// ExistingDeal is a storage deal that a node had before it had a dagstore.
type ExistingDeal struct {
	Proposal cid.Cid // for people
	Piece    cid.Cid
	State    string // for people
	// Sealing tells whether its data was handed to the sealing side and has not left it: AwaitingPreCommit, Sealing, Finalizing, Active.
	Sealing bool
	// Path or Mount say where the data is; with neither it is asked for at lotus://PIECE.
	Path, Mount string
	Padded      uint64 // size of the piece; 0 if it is not known
}

// migration is one run of Migrate.
type migration struct {
	store *Store
}

// Migrate registers the shards of existing deals, to be read when they are first wanted, and notes when all are (node spec 1.7). It
// answers whether there was anything to do. A deal that cannot be registered is logged and left out, and the next start tries again; the same
// piece in several deals is one shard. An error of deals ends it; interrupted, it is done again from the start, which changes nothing that is there (R-W1).
func (s *Store) Migrate(ctx context.Context, deals iter.Seq2[ExistingDeal, error], log *slog.Logger) (bool, error) {
	m := &migration{store: s}
	done, err := m.isMigrated()
	if err != nil {
		return false, err
	}
	if done {
		log.Info("no shard migration necessary; already marked complete")
		return false, nil
	}
	log.Info("registering shards for all active deals in sealing subsystem")
	total, failed := 0, 0
	for d, err := range deals {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return false, fmt.Errorf("migrate deals to the dagstore: %w", err)
		}
		if !d.Sealing {
			log.Info("deal not ready; skipping", "proposal", d.Proposal, "piece", d.Piece, "state", d.State)
			continue
		}
		total++
		if !m.migrateDeal(ctx, d, log.With("proposal", d.Proposal, "piece", d.Piece, "state", d.State)) {
			failed++
		}
	}
	log.Info("finished registering all shards", "total", total)
	if failed > 0 {
		log.Warn("some deals have no shard: the next start tries again", "failed", failed)
		return true, nil
	}
	log.Info("confirmed registration of all shards")
	if err := blob.WriteFile(s.cfg.FS, m.markerPath(), []byte(migrationVersion+"\n"), 0o600); err != nil {
		log.Warn("failed to mark shards as migrated", "error", err) // the next start does it all again, which is harmless
	} else {
		log.Info("successfully marked migration as complete")
	}
	log.Info("dagstore migration complete")
	return true, nil
}

func (m *migration) migrateDeal(ctx context.Context, d ExistingDeal, log *slog.Logger) bool {
	log.Info("registering deal in dagstore with lazy init")
	src := Source{Piece: d.Piece, Path: d.Path, Mount: d.Mount, Padded: d.Padded}
	if src.Path == "" && src.Mount == "" {
		src.Mount = SectorScheme + "://" + d.Piece.String()
	}
	if _, err := m.store.RegisterLazy(ctx, src); err != nil {
		log.Warn("failed to register shard", "error", err)
		return false
	}
	return true
}

func (m *migration) markerPath() string { return filepath.Join(m.store.cfg.Dir, migrationMarker) }

// isMigrated reads the marker; an empty one is that of another implementation, whose shards are not here.
func (m *migration) isMigrated() (bool, error) {
	data, err := os.ReadFile(m.markerPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch v := strings.TrimSpace(string(data)); v {
	case "":
		return false, nil
	case migrationVersion:
		return true, nil
	default:
		return false, fmt.Errorf("%s says version %q, this program knows %s: it was written by a newer one", m.markerPath(), v, migrationVersion)
	}
}
