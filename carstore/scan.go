package carstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/multicodec"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mc "github.com/multiformats/go-multicodec"
	cbg "github.com/whyrusleeping/cbor-gen"
	"google.golang.org/protobuf/encoding/protowire"
)

// LinksOf lists the links of a block in the order of a traversal that explores everything. Nodes are built for unusual codecs only.
func LinksOf(c cid.Cid, data []byte) ([]cid.Cid, error) {
	switch mc.Code(c.Prefix().Codec) {
	case mc.Raw:
		return nil, nil
	case mc.DagPb:
		return linksOfPB(data)
	case mc.DagCbor:
		return linksOfCBOR(data)
	}
	return linksOfAny(c, data)
}

// linksOfPB scans a dag-pb node: its links are field 2, and the hash of a link is field 1 of that.
func linksOfPB(data []byte) (out []cid.Cid, err error) {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 || typ != protowire.BytesType || num != 1 && num != 2 {
			return nil, fmt.Errorf("dag-pb field %d of wire type %d", num, typ)
		}
		body, m := protowire.ConsumeBytes(data[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		data = data[n+m:]
		if num != 2 {
			continue
		}
		l, err := hashOfLink(body)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

func hashOfLink(data []byte) (cid.Cid, error) {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return cid.Undef, protowire.ParseError(n)
		}
		if num == 1 && typ == protowire.BytesType {
			body, m := protowire.ConsumeBytes(data[n:])
			if m < 0 {
				return cid.Undef, protowire.ParseError(m)
			}
			return cid.Cast(body) // a copy
		}
		m := protowire.ConsumeFieldValue(num, typ, data[n:])
		if m < 0 {
			return cid.Undef, protowire.ParseError(m)
		}
		data = data[n+m:]
	}
	return cid.Undef, fmt.Errorf("a dag-pb link has no hash")
}

// linksOfCBOR scans a dag-cbor item: a link is tag 42 over the bytes of a CID behind a zero. Nothing is kept but the links, so that
// no depth and no count can cost more than the bytes that are there.
func linksOfCBOR(data []byte) (out []cid.Cid, err error) {
	at := 0
	for open := uint64(1); open > 0; open-- {
		major, n, size, err := readCborHead(data[at:])
		if err != nil {
			return nil, err
		}
		at += size
		left := uint64(len(data) - at)
		switch major {
		case cbg.MajByteString, cbg.MajTextString:
			if n > left {
				return nil, fmt.Errorf("dag-cbor: a string of %d bytes is announced and %d follow", n, left)
			}
			at += int(n)
		case cbg.MajArray, cbg.MajMap:
			if n > left {
				return nil, fmt.Errorf("dag-cbor: %d items are announced and %d bytes follow", n, left)
			}
			if out == nil && n > 1 {
				out = make([]cid.Cid, 0, min(n, left/usualLink))
			}
			open += n * uint64(major-cbg.MajArray+1)
		case cbg.MajTag:
			l, size, err := readCborLink(data[at:])
			if n != 42 || err != nil {
				return nil, fmt.Errorf("dag-cbor: tag %d: %w", n, errors.Join(errNoLink, err))
			}
			out = append(out, l)
			at += size
		}
	}
	return out, nil
}

// usualLink is how many bytes a link takes: two of the tag, two of the string, a zero and a CID.
const usualLink = 41

var errNoLink = errors.New("not a link")

// readCborHead reads the head of an item: its major type, its argument, and how many bytes that took.
func readCborHead(data []byte) (major byte, n uint64, size int, err error) {
	if len(data) == 0 {
		return 0, 0, 0, io.ErrUnexpectedEOF
	}
	major, low := data[0]>>5, data[0]&0x1f
	if low < 24 {
		return major, uint64(low), 1, nil
	}
	if low > 27 {
		return 0, 0, 0, fmt.Errorf("dag-cbor: head %#x", data[0])
	}
	size = 1 + 1<<(low-24)
	if len(data) < size {
		return 0, 0, 0, io.ErrUnexpectedEOF
	}
	for _, b := range data[1:size] {
		n = n<<8 | uint64(b)
	}
	return major, n, size, nil
}

func readCborLink(data []byte) (cid.Cid, int, error) {
	major, n, size, err := readCborHead(data)
	if err != nil || major != cbg.MajByteString || n < 2 || n > maxCid+1 || n > uint64(len(data)-size) || data[size] != 0 {
		return cid.Undef, 0, errors.Join(errNoLink, err)
	}
	end := size + int(n)
	c, err := cid.Cast(data[size+1 : end]) // a copy
	return c, end, err
}

// linksOfAny decodes a block of any codec that is known.
func linksOfAny(c cid.Cid, data []byte) ([]cid.Cid, error) {
	decode, err := multicodec.LookupDecoder(c.Prefix().Codec)
	if err != nil {
		return nil, err
	}
	b := basicnode.Prototype.Any.NewBuilder()
	if err := decode(b, bytes.NewReader(data)); err != nil {
		return nil, err
	}
	var out []cid.Cid
	return out, collectLinks(b.Build(), &out)
}

func collectLinks(n ipld.Node, out *[]cid.Cid) error {
	switch n.Kind() {
	case datamodel.Kind_Link:
		l, err := n.AsLink()
		if cl, ok := l.(cidlink.Link); ok && err == nil {
			*out = append(*out, cl.Cid)
		}
		return err
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := collectLinks(v, out); err != nil {
				return err
			}
		}
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := collectLinks(v, out); err != nil {
				return err
			}
		}
	}
	return nil
}
