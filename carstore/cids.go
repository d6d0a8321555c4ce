package carstore

import (
	"context"
	"crypto/sha256"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipldformat "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// Usual returns the codec and the digest of a CID as nearly all are, of version 1 with a codec of one byte and a SHA2-256. It allocates
// nothing: small blocks are many.
func Usual(c cid.Cid) (codec byte, digest string, ok bool) {
	key := c.KeyString()
	if len(key) != 4+sha256.Size || key[0] != 1 || key[1] >= 0x80 || key[2] != mh.SHA2_256 || key[3] != sha256.Size {
		return 0, "", false
	}
	return key[1], key[4:], true
}

// hashString is the multihash of a CID, of which usual ones need no copy.
func hashString(c cid.Cid) string {
	if _, _, ok := Usual(c); ok {
		return c.KeyString()[2:]
	}
	return string(c.Hash())
}

// Inlined returns the bytes of a block that is its own CID (an identity CID): no store has to hold it.
func Inlined(c cid.Cid) (data []byte, ok bool) {
	if _, _, ok := Usual(c); ok {
		return nil, false
	}
	hash := c.Hash()
	if len(hash) == 0 || hash[0] != mh.IDENTITY {
		return nil, false
	}
	d, err := mh.Decode(hash)
	if err != nil {
		return nil, false
	}
	return d.Digest, true
}

// blockReader is the part of a blockstore that InBlockstore needs.
type blockReader interface {
	Get(ctx context.Context, c cid.Cid) (blocks.Block, error)
}

// InBlockstore reads blocks out of a blockstore, checked: one that it does not hold is an ErrNotFound, one with other bytes an ErrBadHash.
func InBlockstore(ctx context.Context, bs blockReader) Getter {
	return func(c cid.Cid) ([]byte, error) {
		if data, ok := Inlined(c); ok {
			return data, nil
		}
		b, err := bs.Get(ctx, c)
		if ipldformat.IsNotFound(err) {
			return nil, fmt.Errorf("block %s: %w", c, ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		if err := Verify(c, b.RawData()); err != nil {
			return nil, err
		}
		return b.RawData(), nil
	}
}
