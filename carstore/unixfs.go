package carstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	"github.com/ipfs/go-unixfsnode/file"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multicodec"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Kind is what a node is to a person.
type Kind string

// The kinds. A folder may be spread over several blocks, its shards.
const (
	KindFile     Kind = "file"
	KindFolder   Kind = "folder"
	KindShards   Kind = "sharded folder"
	KindSymlink  Kind = "symbolic link"
	KindMetadata Kind = "UnixFS metadata"
	KindUnknown  Kind = "node of an unknown UnixFS type"
	KindNode     Kind = "dag-pb node without UnixFS"
)

// IsFolder reports whether a node has entries with names.
func (k Kind) IsFolder() bool { return k == KindFolder || k == KindShards }

// unixfsNode is a node with what UnixFS says of it.
type unixfsNode struct {
	cid  cid.Cid
	kind Kind
	node datamodel.Node
	raw  []byte          // of a raw leaf, which is a file
	meta data.UnixFSData // nil unless it has one
}

// loadUnixFS reads a node and what it is.
func loadUnixFS(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid) (unixfsNode, error) {
	n := unixfsNode{cid: c}
	link, lctx := cidlink.Link{Cid: c}, ipld.LinkContext{Ctx: ctx}
	switch codec := c.Prefix().Codec; codec {
	case cid.Raw:
		raw, err := ls.LoadRaw(lctx, link)
		n.kind, n.raw, n.node = KindFile, raw, basicnode.NewBytes(raw)
		return n, err
	case cid.DagProtobuf:
	default:
		n.kind = Kind(multicodec.Code(codec).String() + " node")
		return n, nil
	}
	node, err := ls.Load(lctx, link, dagpb.Type.PBNode)
	if err != nil {
		return n, err
	}
	n.node, n.kind = node, KindNode
	pb, ok := node.(dagpb.PBNode)
	if !ok {
		return n, nil
	}
	if n.meta, err = unixfsData(pb); err == nil {
		n.kind = kindOf(n.meta)
	}
	return n, nil
}

func kindOf(d data.UnixFSData) Kind {
	switch d.DataType.Int() {
	case data.Data_File, data.Data_Raw:
		return KindFile
	case data.Data_Directory:
		return KindFolder
	case data.Data_HAMTShard:
		return KindShards
	case data.Data_Symlink:
		return KindSymlink
	case data.Data_Metadata:
		return KindMetadata
	}
	return KindUnknown
}

func unixfsData(pb dagpb.PBNode) (data.UnixFSData, error) {
	if !pb.FieldData().Exists() {
		return nil, errors.New("it has no data")
	}
	return data.DecodeUnixFSData(pb.FieldData().Must().Bytes())
}

// size is how many bytes a file has; of anything else nothing.
func (n unixfsNode) size() uint64 {
	switch {
	case n.kind != KindFile:
		return 0
	case n.meta == nil:
		return uint64(len(n.raw))
	case n.meta.FieldFileSize().Exists():
		return uint64(max(0, n.meta.FieldFileSize().Must().Int()))
	case n.meta.FieldData().Exists():
		return uint64(len(n.meta.FieldData().Must().Bytes()))
	}
	return 0
}

// linkTarget is where a symbolic link points to.
func (n unixfsNode) linkTarget() string {
	if n.meta == nil || !n.meta.FieldData().Exists() {
		return ""
	}
	return string(n.meta.FieldData().Must().Bytes())
}

// maxMtime bounds the times that are restored, in seconds around 1970: what is beyond is no time that a file system knows.
const maxMtime = 1 << 40

// modifiedAt is the time that was kept with the node, if there is one.
func (n unixfsNode) modifiedAt() (time.Time, bool) {
	if n.meta == nil || !n.meta.FieldMtime().Exists() {
		return time.Time{}, false
	}
	t := n.meta.FieldMtime().Must()
	sec, nsec := t.FieldSeconds().Int(), int64(0)
	if t.FieldFractionalNanoseconds().Exists() {
		nsec = t.FieldFractionalNanoseconds().Must().Int()
	}
	if sec < -maxMtime || sec > maxMtime || nsec < 0 || nsec >= int64(time.Second) {
		return time.Time{}, false
	}
	return time.Unix(sec, nsec), true
}

// Stat is what a node is, and of a file how many bytes it has. It reads one block.
func Stat(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid) (Kind, uint64, error) {
	n, err := loadUnixFS(ctx, ls, c)
	return n.kind, n.size(), err
}

// notFileError is the refusal of what is no file where one is needed.
func (n unixfsNode) notFileError() error {
	e := reason.NotAFile.Errorf("%s is not a file, it is a %s", n.cid, n.kind)
	if n.kind.IsFolder() {
		return e.WithHint("Write it to a folder with retrieve -o, list it with ls, or name a file in it: CID/PATH.")
	}
	return e.WithHint("Take its blocks as an archive with retrieve --car -o.")
}

// WriteFileTo writes the UnixFS file below root to w.
func (s *Store) WriteFileTo(ctx context.Context, w io.Writer) error {
	ls := s.LinkSystem()
	return WriteFileFrom(ctx, &ls, s.root, w)
}

// WriteFileFrom is WriteFileTo out of any link system.
func WriteFileFrom(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, w io.Writer) error {
	r, err := OpenFileFrom(ctx, ls, root)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(shared.Writer(ctx, w), r, make([]byte, 1<<20))
	return err
}

// OpenFileFrom opens the UnixFS file below root; it reads what it is asked for, and no more than that of the DAG. What is no file is
// refused with reason.NotAFile.
func OpenFileFrom(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) (io.ReadSeeker, error) {
	n, err := loadUnixFS(ctx, ls, root)
	if err != nil {
		return nil, err
	}
	if n.kind != KindFile {
		return nil, n.notFileError()
	}
	return n.openFile(ctx, ls)
}

// FileSize is how many bytes the UnixFS file below root says that it has. It reads one block; what is no file is refused with reason.NotAFile.
func FileSize(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) (uint64, error) {
	n, err := loadUnixFS(ctx, ls, root)
	if err == nil && n.kind != KindFile {
		err = n.notFileError()
	}
	return n.size(), err
}

// openFile opens a file.
func (n unixfsNode) openFile(ctx context.Context, ls *ipld.LinkSystem) (io.ReadSeeker, error) {
	f, err := file.NewUnixFSFile(ctx, n.node, ls)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.cid, err)
	}
	return f.AsLargeBytes()
}
