package registry_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/registry"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// typed is a type of voucher by a name of its own.
type typed struct {
	*testutil.FakeDTType
	name dt.TypeIdentifier
}

func (v *typed) Type() dt.TypeIdentifier { return v.name }

// TestRegistry: types are found by their identifier and told of in the order of registration, and one cannot be taken twice.
func TestRegistry(t *testing.T) {
	r := registry.NewRegistry()
	for _, name := range []dt.TypeIdentifier{"b", "a", "c"} {
		require.NoError(t, r.Register(&typed{testutil.NewFakeDTType(""), name}, string(name)))
	}
	require.ErrorContains(t, r.Register(&typed{testutil.NewFakeDTType(""), "a"}, "another"), "identifier already registered: a")
	p, ok := r.Processor("a")
	require.True(t, ok)
	require.Equal(t, "a", p)
	_, ok = r.Decoder("a")
	require.True(t, ok)
	_, ok = r.Processor("none")
	require.False(t, ok)
	_, ok = r.Decoder("none")
	require.False(t, ok)
	var told []dt.TypeIdentifier
	each := func(stop error) error {
		told = nil
		return r.Each(func(id dt.TypeIdentifier, _ encoding.Decoder, _ registry.Processor) error {
			told = append(told, id)
			_, known := r.Processor(id) // no lock is held
			require.True(t, known)
			return stop
		})
	}
	require.NoError(t, each(nil))
	require.Equal(t, []dt.TypeIdentifier{"b", "a", "c"}, told)
	enough := errors.New("enough")
	require.ErrorIs(t, each(enough), enough)
	require.Equal(t, []dt.TypeIdentifier{"b"}, told)
}
