package stream

import (
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
)

// usual returns the codec and the digest of a CID as nearly all are, of version 1 with a codec of one byte and a SHA2-256. It makes
// nothing: small blocks are many.
func usual(c cid.Cid) (codec byte, digest string, ok bool) {
	key := c.KeyString()
	if len(key) != 4+sha256.Size || key[0] != 1 || key[1] >= 0x80 || key[2] != mh.SHA2_256 || key[3] != sha256.Size {
		return 0, "", false
	}
	return key[1], key[4:], true
}

// verify tells whether bytes are what a CID says.
func verify(c cid.Cid, data []byte) error {
	_, digest, ok := usual(c)
	if !ok {
		return carstore.Verify(c, data)
	}
	if sum := sha256.Sum256(data); string(sum[:]) != digest {
		return fmt.Errorf("%w: %s", carstore.ErrBadHash, c)
	}
	return nil
}

// leaf tells whether a block has no links whatever is in it.
func leaf(c cid.Cid) bool {
	if codec, _, ok := usual(c); ok {
		return codec == cid.Raw
	}
	return c.Prefix().Codec == cid.Raw
}

// inlined returns the bytes of a block that is its own CID.
func inlined(c cid.Cid) ([]byte, bool) {
	if _, _, ok := usual(c); ok {
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
