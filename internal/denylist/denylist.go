// Package denylist reads lists of what must not be served, in the compact format: files *.deny of a folder, a rule a line.
//
//	/ipfs/CID             the block, by its multihash: whatever its version and codec
//	/ipfs/CID/path        what lies at a path below it
//	/ipfs/CID/path*       every path that begins so; /ipfs/CID/* is the block and everything below it
//	//MULTIHASH           the same, hidden: the base58 multihash of "BASE58-MULTIHASH[/path]"
//	//HEX                 the older form: the SHA-256 in hex of "CIDv1-IN-BASE32/[path]"
//	!RULE                 an exception
//
// A rule may be followed by hints; status=451 says that the reason is a legal one. The last rule that fits decides, files in the order of
// their names. A line that is none of these is logged and left out.
package denylist

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
)

// maxLine bounds a line.
const maxLine = 2 << 20

// Verdict is the rule that denies something.
type Verdict struct {
	List  string // name of the file without its ending
	Line  int
	Legal bool
}

// Set is the lists of a folder. It is safe for concurrent use.
type Set struct {
	dir string
	log *slog.Logger

	refresh sync.Mutex // held while files are read
	mu      sync.RWMutex
	rules   *rules
	files   map[string]*file
	changes uint64
}

// file is how far a list was read.
type file struct {
	read  int64 // bytes, up to the end of the last whole line
	lines int
	body  bool // the header is over
	// torn is a last line without a line break. It counts, and is read again when the file grows: it may have been half of one.
	torn string
}

// Open reads the lists of a folder to their end; there may be no such folder.
func Open(dir string, log *slog.Logger) (*Set, error) {
	s := &Set{dir: dir, log: log, rules: newRules(), files: map[string]*file{}}
	return s, s.Refresh()
}

// Generation changes when rules were read.
func (s *Set) Generation() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changes
}

// Len is the number of rules.
func (s *Set) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rules.count
}

// Denied looks up a CID, or a path below one.
func (s *Set) Denied(c cid.Cid, path string) (Verdict, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.rules.last(c, path)
	if !ok || r.allow {
		return Verdict{}, false
	}
	return Verdict{List: s.rules.lists[r.list], Line: int(r.line), Legal: r.legal}, true
}

// Refresh reads what was appended since the last time. When a file has shrunk, or is gone, or a new one comes before another, all are read anew.
func (s *Set) Refresh() error {
	s.refresh.Lock()
	defer s.refresh.Unlock()
	names, err := filepath.Glob(filepath.Join(s.dir, "*.deny"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	if s.mustBeginAnew(names) {
		s.mu.Lock()
		s.files, s.changes = map[string]*file{}, s.changes+1
		s.mu.Unlock()
		return s.readAll(names, newRules())
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, s.append(name))
	}
	return errors.Join(errs...)
}

// mustBeginAnew reports whether rules that were read no longer stand in the files.
func (s *Set) mustBeginAnew(names []string) bool {
	if len(names) != len(s.files) {
		return true
	}
	for _, name := range names {
		f := s.files[name]
		st, err := os.Stat(name)
		if f == nil || err == nil && st.Size() < f.read {
			return true
		}
	}
	return false
}

// readAll replaces the rules.
func (s *Set) readAll(names []string, r *rules) error {
	files := map[string]*file{}
	for _, name := range names {
		f := &file{}
		if _, err := s.read(name, f, r); err != nil {
			return err
		}
		files[name] = f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules, s.files, s.changes = r, files, s.changes+1
	return nil
}

// append reads what was appended to a file.
func (s *Set) append(name string) error {
	f := s.files[name]
	st, err := os.Stat(name)
	if err != nil || st.Size() == f.read {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.read(name, f, s.rules)
	if n > 0 {
		s.changes++
	}
	return err
}

// read reads the lines of a file that were not read yet, and returns how many.
func (s *Set) read(name string, f *file, into *rules) (n int, err error) {
	in, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("denylist: %w", err)
	}
	defer func() { _ = in.Close() }()
	if _, err := in.Seek(f.read, io.SeekStart); err != nil {
		return 0, fmt.Errorf("denylist %s: %w", name, err)
	}
	list := into.list(strings.TrimSuffix(filepath.Base(name), ".deny"))
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if len(line) > maxLine {
			return n, fmt.Errorf("denylist %s: line %d has more than %d bytes", name, f.lines+1, maxLine)
		}
		switch {
		case err == nil:
			n++
			f.read += int64(len(line))
			s.take(line, f, list, into, name)
			f.lines++
			continue
		case !errors.Is(err, io.EOF):
			return n, fmt.Errorf("denylist %s: %w", name, err)
		case line != f.torn && line != "":
			n++
			s.take(line, f, list, into, name)
		}
		f.torn = line
		return n, nil
	}
}

// take adds the rule of a line.
func (s *Set) take(line string, f *file, list uint16, into *rules, name string) {
	line = strings.TrimSpace(line)
	switch {
	case line == "", strings.HasPrefix(line, "#"):
	case line == "---":
		f.body = true
	case !f.body && !isRule(line) && strings.Contains(line, ":"): // the header is YAML
	default:
		f.body = true
		if err := into.add(line, list, uint32(f.lines)+1); err != nil {
			s.log.Warn("a line of a denylist was left out", "list", name, "line", f.lines+1, "error", err)
		}
	}
}

func isRule(line string) bool {
	return strings.HasPrefix(line, "/") || strings.HasPrefix(line, "!/")
}

// keyOf is what rules are kept by: a hash cut to 16 bytes, as a list may have a million of them.
func keyOf(kind byte, parts ...string) (k [16]byte) {
	h := sha256.New()
	h.Write([]byte{kind})
	for _, p := range parts {
		_, _ = io.WriteString(h, p)
		h.Write([]byte{0})
	}
	copy(k[:], h.Sum(nil))
	return k
}
