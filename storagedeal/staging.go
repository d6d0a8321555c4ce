package storagedeal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
)

// staging keeps the data of online deals while it arrives: a CARv2 for each proposal, that grows in place and that a later transfer
// continues.
type staging struct {
	fs  blob.FS
	dir string

	mu   sync.Mutex
	open map[cid.Cid]*carstore.Store
}

const stagedExt = ".car"

func (s *staging) archivePath(proposal cid.Cid) string {
	return filepath.Join(s.dir, proposal.String()+stagedExt)
}

// openStore opens the file of a proposal, or returns the one that is open.
func (s *staging) openStore(proposal, root cid.Cid) (*carstore.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[proposal]; c != nil {
		return c, nil
	}
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	c, err := carstore.Open(s.fs, s.archivePath(proposal), root)
	if err != nil {
		return nil, err
	}
	s.open[proposal] = c
	return c, nil
}

// maxStagedBlocks bounds the blocks of one deal, each of which is known in memory while it arrives.
const maxStagedBlocks = 4 << 20

// linkSystem stores what arrives, as long as it can be of a piece of so many bytes. The first block that cannot is told; it and what follows are
// let go by, for the transfer to be ended.
func (s *staging) linkSystem(proposal, root cid.Cid, most uint64, tell func(reason string)) (ipld.LinkSystem, error) {
	c, err := s.openStore(proposal, root)
	if err != nil {
		return ipld.LinkSystem{}, err
	}
	var once sync.Once
	return carstore.Writing(c.LinkSystem(), func(block cid.Cid, data []byte) error {
		if _, again := c.Size(block); again {
			return nil
		}
		reason := ""
		switch {
		case uint64(c.DataSize())+uint64(len(data)) > most:
			reason = fmt.Sprintf("more data than its piece of %d bytes holds", most)
		case c.Len() >= maxStagedBlocks:
			reason = fmt.Sprintf("more than %d blocks", maxStagedBlocks)
		}
		if reason != "" {
			once.Do(func() { tell(reason) })
			return nil
		}
		return c.Put(block, data)
	}), nil
}

// closeStore closes the file of a proposal; it stays to be continued.
func (s *staging) closeStore(proposal cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.open[proposal]
	delete(s.open, proposal)
	if c == nil {
		return nil
	}
	return c.Close()
}

// removeArchive is shut, and the file goes.
func (s *staging) removeArchive(proposal cid.Cid) error {
	return errors.Join(s.closeStore(proposal), s.fs.RemoveAll(s.archivePath(proposal)))
}

// listArchives are the proposals that have a file.
func (s *staging) listArchives() (out []cid.Cid, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), stagedExt)
		if c, derr := cid.Decode(name); ok && derr == nil {
			out = append(out, c)
		}
	}
	return out, err
}

// archiveSize is how large the file of a proposal is.
func (s *staging) archiveSize(proposal cid.Cid) uint64 {
	st, err := os.Stat(s.archivePath(proposal))
	if err != nil {
		return 0
	}
	return uint64(st.Size())
}

// closeStores closes all files.
func (s *staging) closeStores() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for p, c := range s.open {
		errs = append(errs, c.Close())
		delete(s.open, p)
	}
	return errors.Join(errs...)
}
