package imports

import (
	"fmt"
	"io/fs"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Symlinks is what an import does with a symbolic link below the path that it is given. The path itself may be a link: it is followed, unless
// links are refused.
type Symlinks string

// What can be done with links.
const (
	SymlinksStore  Symlinks = "store"  // as what it is, a node with its target
	SymlinksFollow Symlinks = "follow" // as what it points to
	SymlinksSkip   Symlinks = "skip"   // not at all
	SymlinksRefuse Symlinks = "refuse" // the import fails
)

// ParseSymlinks reads one of the four; nothing is SymlinksStore.
func ParseSymlinks(text string) (Symlinks, error) {
	switch s := Symlinks(text); s {
	case "":
		return SymlinksStore, nil
	case SymlinksStore, SymlinksFollow, SymlinksSkip, SymlinksRefuse:
		return s, nil
	}
	return "", reason.Usage.Errorf("%q is nothing that can be done with symbolic links", text).WithHint("Say store, follow, skip or refuse.")
}

// Options are how a file or folder is read. nil and the zero value are the usual ones.
type Options struct {
	Symlinks Symlinks // empty: SymlinksStore
	Preserve bool     // keep permissions and times of change; setuid, setgid and sticky bits are not kept
	// Progress is told of each part of a file that was read.
	Progress func(bytes int64)
	// LeftOut is told of each link that was skipped.
	LeftOut func(path string)
}

// keptAttributes is what is kept of a file beside its content, as fields of its UnixFS data.
func (o *Options) keptAttributes(st fs.FileInfo) (out []byte) {
	if o == nil || !o.Preserve {
		return nil
	}
	out = protowire.AppendVarint(protowire.AppendTag(out, 7, protowire.VarintType), uint64(st.Mode().Perm()))
	t := st.ModTime()
	at := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(t.Unix()))
	if ns := t.Nanosecond(); ns != 0 {
		at = protowire.AppendFixed32(protowire.AppendTag(at, 2, protowire.Fixed32Type), uint32(ns))
	}
	return protowire.AppendBytes(protowire.AppendTag(out, 8, protowire.BytesType), at)
}

// withAttributes adds fields to the UnixFS data of a dag-pb node, which is the last field of one.
func withAttributes(pb, kept []byte) ([]byte, error) {
	for rest := pb; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(num, typ, rest[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if num == 1 && len(rest) == n+size {
			data, _ := protowire.ConsumeBytes(rest[n:])
			head := pb[:len(pb)-len(rest)]
			out := protowire.AppendTag(append([]byte(nil), head...), 1, protowire.BytesType)
			return protowire.AppendBytes(out, append(append([]byte(nil), data...), kept...)), nil
		}
		rest = rest[n+size:]
	}
	return nil, fmt.Errorf("a node of %d bytes has no data at its end", len(pb))
}
