package dagstore

import (
	"context"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/reason"
)

// setRoots makes roots those of a shard, each once.
func (s *Shard) setRoots(roots []cid.Cid) {
	s.Root, s.Others = cid.Undef, nil
	for _, r := range roots {
		switch {
		case !s.Root.Defined():
			s.Root = r
		case !slices.Contains(s.Roots(), r):
			s.Others = append(s.Others, r)
		}
	}
}

// checkComplete refuses a shard that lacks what its source has to have.
func (s *Store) checkComplete(ctx context.Context, sh *Shard, src *Source) error {
	if sh.Missing == 0 {
		return nil
	}
	for _, root := range sh.Roots() {
		if !src.Partial && slices.Contains(sh.Lacks, root) {
			return reason.ArchiveRoot.Errorf("the CAR does not hold its root %s", root).
				WithHint("Name a root that it holds with --root CID, or sell it as it is with --partial.")
		}
	}
	if !src.Whole {
		return nil
	}
	var nowhere []string
	for _, c := range sh.Lacks {
		rows, err := s.Find(ctx, c.Hash())
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			nowhere = append(nowhere, c.String())
		}
	}
	if len(nowhere) == 0 && sh.Missing == uint64(len(sh.Lacks)) {
		return nil // together the pieces have it all
	}
	if sh.Missing > uint64(len(nowhere)) {
		nowhere = append(nowhere, "...")
	}
	return reason.ArchiveIncomplete.Errorf("the CAR lacks %d blocks below its root, so that nobody could buy all of it: %s",
		sh.Missing, strings.Join(nowhere, ", ")).WithHint("Complete the archive, or sell what there is with --partial.")
}
