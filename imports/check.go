package imports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
)

// condition is whether an import can be served.
type condition struct {
	err     error
	message string // as nodes have logged it
	stale   bool   // its source is not what it was
	size    int64  // of its CAR
}

const (
	lacksCAR  = "import lacks carv2 path; import will not work; please reimport"
	brokenCAR = "import has missing/broken carv2; please reimport"
	staleData = "import source changed or missing; data will not be served until reimported or repointed"
)

// conditionOf looks at the files of an import, without reading them.
func (m *Manager) conditionOf(i Import) condition {
	name := i.Labels[LabelCARPath]
	if name == "" {
		return condition{err: errors.New(lacksCAR), message: lacksCAR}
	}
	ours := i.Labels[LabelCAROwner] == OwnerManager
	size := int64(0)
	if st, err := os.Stat(name); err == nil {
		size = st.Size()
	} else if ours {
		return condition{err: fmt.Errorf("%s: %w", brokenCAR, err), message: brokenCAR}
	}
	data, err := os.ReadFile(m.pathOf(i.ID, ".refs"))
	if err != nil {
		return condition{err: fmt.Errorf("%s: %w", brokenCAR, err), message: brokenCAR}
	}
	r, err := decodeRefs(data)
	if err != nil {
		return condition{err: fmt.Errorf("%s: %w", brokenCAR, err), message: brokenCAR}
	}
	for _, f := range r.sources {
		if err := f.checkSource(); err != nil {
			if !ours {
				return condition{err: fmt.Errorf("%s: %w", brokenCAR, err), message: brokenCAR}
			}
			return condition{err: fmt.Errorf("%s: %w", staleData, err), message: staleData, stale: true}
		}
	}
	return condition{size: size}
}

// checkSource compares a source with what it was.
func (f source) checkSource() error {
	st, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", SourceMissing, err)
	case err != nil:
		return fmt.Errorf("%s: %w", SourceUnreadable, err)
	case st.Size() != f.size:
		return fmt.Errorf("%s: %s has %d bytes, it had %d", SourceChanged, f.path, st.Size(), f.size)
	case st.ModTime().UnixNano() != f.mtime:
		return fmt.Errorf("%s: %s was written to since it was imported", SourceChanged, f.path)
	}
	return nil
}

// Health is what a check of all imports found.
type Health struct{ Total, Broken, Stale int }

// Check looks at all imports and logs what is wrong with them, in the words that operators know (R-I4).
func (m *Manager) Check(ctx context.Context, log *slog.Logger) (Health, error) {
	log.Info("sanity checking imports")
	list, err := m.allRecords(ctx)
	var h Health
	for _, i := range list {
		h.Total++
		fields := []any{"id", i.ID, "source", i.Labels[LabelSource], "root", i.Labels[LabelRoot], "original", i.Labels[LabelFilename]}
		if i.Err != nil {
			log.Warn("failed to query metadata for import; skipping", append(fields, "error", i.Err)...)
			continue
		}
		switch c := m.conditionOf(i); {
		case c.err == nil:
			log.Debug("import ok", append(fields, "size", c.size)...)
			continue
		case c.stale:
			h.Stale++
			log.Warn(c.message, append(fields, "error", c.err)...)
		default:
			h.Broken++
			log.Warn(c.message, append(fields, "error", c.err)...)
		}
	}
	log.Info("sanity check completed", "broken", h.Broken, "stale", h.Stale, "total", h.Total)
	return h, err
}

// ErrNotSame means that a file is not what was imported.
var ErrNotSame error = reason.FileChanged.Errorf("it is not what was imported")

// Repoint says where the file or folder of an import is now. Everything in it is read and compared first (R-I5).
func (m *Manager) Repoint(ctx context.Context, id uint64, path string) (Import, error) {
	i, err := m.getImport(ctx, id)
	if err != nil {
		return i, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return i, err
	}
	old := i.Labels[LabelFilename]
	data, err := os.ReadFile(m.pathOf(id, ".refs"))
	if err != nil {
		return i, err
	}
	r, err := decodeRefs(data)
	if err != nil {
		return i, err
	}
	for n, f := range r.sources {
		rest, ok := strings.CutPrefix(f.path, old)
		if !ok { // one that was interrupted between the table and the record
			rest, ok = strings.CutPrefix(f.path, path)
		}
		if old == "" || !ok {
			return i, fmt.Errorf("import %d was made of %s, not of a file", id, f.path)
		}
		if r.sources[n], err = newSource(path+rest, f.size); err != nil {
			return i, err
		}
	}
	if err := m.compareRefs(ctx, r); err != nil {
		return i, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[id] != nil {
		return i, fmt.Errorf("import %d is being read: try again later", id)
	}
	if _, err := m.getImport(ctx, id); err != nil { // dropped meanwhile
		return i, err
	}
	if err := blob.WriteFile(m.fs, m.pathOf(id, ".refs"), r.encodeRefs(), 0o600); err != nil {
		return i, err
	}
	if i.Labels[LabelCARPath] == old {
		i.Labels[LabelCARPath] = path
	}
	i.Labels[LabelFilename] = path
	return i, m.putImport(ctx, i)
}

func newSource(path string, size int64) (source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return source{}, err
	}
	if st.Size() != size {
		return source{}, fmt.Errorf("%w: %s has %d bytes, it had %d", ErrNotSame, path, st.Size(), size)
	}
	return source{path, st.Size(), st.ModTime().UnixNano()}, nil
}

// compareRefs reads every row of a table and checks it.
func (m *Manager) compareRefs(ctx context.Context, r *refs) error {
	o := &opened{fs: m.fs, refs: r, files: map[int]blob.File{}}
	for _, x := range r.rows {
		err := ctx.Err()
		if err == nil {
			_, err = o.readBlock(cid.NewCidV1(cid.Raw, x.hash), x)
		}
		if err != nil {
			var bad *SourceError
			if errors.As(err, &bad) && bad.Kind == SourceChanged {
				err = fmt.Errorf("%w: %s differs at offset %d", ErrNotSame, bad.Path, bad.Offset)
			}
			return errors.Join(err, o.closeFiles())
		}
	}
	return o.closeFiles()
}
