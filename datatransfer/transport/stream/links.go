package stream

import (
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
)

// leaf tells whether a block has no links whatever is in it.
func leaf(c cid.Cid) bool {
	if codec, _, ok := carstore.Usual(c); ok {
		return codec == cid.Raw
	}
	return c.Prefix().Codec == cid.Raw
}
