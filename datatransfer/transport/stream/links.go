package stream

import (
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
)

// verify tells whether bytes are what a CID says.
func verify(c cid.Cid, data []byte) error {
	_, digest, ok := carstore.Usual(c)
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
	if codec, _, ok := carstore.Usual(c); ok {
		return codec == cid.Raw
	}
	return c.Prefix().Codec == cid.Raw
}
