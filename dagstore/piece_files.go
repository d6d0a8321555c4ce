package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pieceFiles knows where the bytes of shards are.
type pieceFiles struct {
	cfg        Config
	transients *transients
}

// mountOf returns the mount of a shard.
func (pf *pieceFiles) mountOf(sh *Shard) (Mount, error) {
	if sh.Mount == "" {
		return fileMount{pf.cfg.FS, pf.filePath(sh)}, nil
	}
	u, err := url.Parse(sh.Mount)
	if err != nil {
		return nil, fmt.Errorf("mount %q: %w", sh.Mount, err)
	}
	f, ok := pf.cfg.Mounts[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("unrecognized mount scheme: %s of %q", u.Scheme, sh.Mount)
	}
	return f(u)
}

// filePath is the path of a shard that is a plain file: names without a folder are the store's own.
func (pf *pieceFiles) filePath(sh *Shard) string {
	if filepath.IsAbs(sh.Path) || sh.Path == "" {
		return sh.Path
	}
	return filepath.Join(pf.cfg.Pieces, sh.Path)
}

// File is the file that a shard is served from, or nothing for one that is no plain file.
func (pf *pieceFiles) File(sh Shard) string {
	if sh.Mount != "" {
		return ""
	}
	return pf.filePath(&sh)
}

// openMount opens the bytes of a shard: as they lie where they can be read at random, else as a copy.
func (pf *pieceFiles) openMount(ctx context.Context, sh *Shard) (Reader, error) {
	m, err := pf.mountOf(sh)
	if err != nil {
		return nil, err
	}
	if st, ok := m.(Streamer); ok {
		return pf.transients.open(ctx, sh.Number, st)
	}
	return m.Open(ctx)
}

// checkLength tells whether a file is as long as the shard needs it.
func checkLength(f Reader, sh *Shard) error {
	size, err := f.Size()
	if err == nil && uint64(size) < sh.Offset+sh.CarSize {
		err = fmt.Errorf("%w: it has %d bytes, it had at least %d when it was registered", io.ErrUnexpectedEOF, size, sh.Offset+sh.CarSize)
	}
	if err != nil {
		return fmt.Errorf("piece %s: %s: %w", sh.Piece, sh.Where(), err)
	}
	return nil
}

// ownPath is the file of a number that is the store's own.
func (pf *pieceFiles) ownPath(n uint64) string { return filepath.Join(pf.cfg.Pieces, ownName(n)) }

// ownName is how a record calls it: a home that is moved takes its pieces with it.
func ownName(n uint64) string { return strconv.FormatUint(n, 10) + ".car" }

func (pf *pieceFiles) sameFile(a, b *Shard) bool {
	x, err := os.Stat(pf.filePath(a))
	y, yerr := os.Stat(pf.filePath(b))
	return err == nil && yerr == nil && os.SameFile(x, y)
}

// ownFiles are the files in the folder of the store's own pieces, by their number.
func (pf *pieceFiles) ownFiles() (map[uint64]string, error) {
	entries, err := os.ReadDir(pf.cfg.Pieces)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := map[uint64]string{}
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".car")
		if n, perr := strconv.ParseUint(base, 10, 63); ok && perr == nil {
			out[n] = filepath.Join(pf.cfg.Pieces, e.Name())
		}
	}
	return out, err
}
