package shared_test

import (
	"testing"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestM42SameNode: the order of keys does not make two selectors different; anything else does.
func TestM42SameNode(t *testing.T) {
	node := func(s string) ipld.Node {
		n, err := ipld.DecodeUsingPrototype([]byte(s), dagcbor.Decode, basicnode.Prototype.Any)
		require.NoError(t, err)
		return n
	}
	ab, ba := node("\xa2\x61a\x01\x61b\x02"), node("\xa2\x61b\x02\x61a\x01")
	require.True(t, shared.SameNode(ab, ba))
	require.False(t, shared.SameNode(ab, node("\xa2\x61a\x01\x61b\x03")))
	require.False(t, shared.SameNode(ab, node("\xa1\x61a\x01")))
	require.False(t, shared.SameNode(node("\x82\x01\x02"), node("\x82\x02\x01")))
	require.False(t, shared.SameNode(ab, nil))
	require.True(t, shared.SameNode(nil, nil))
	require.True(t, shared.SameNode(shared.AllSelector(), shared.AllSelector()))
}
