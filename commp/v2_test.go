package commp_test

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/commp"
)

// TestV2 : vectors of FRC-0069, and back.
func TestV2(t *testing.T) {
	for name, tc := range map[string]struct {
		payload int
		fill    byte
		v2      string
	}{
		"127 zeros": {127, 0, "bafkzcibcaabdomn3tgwgrh3g532zopskstnbrd2n3sxfqbze7rxt7vqn7veigmy"},
		"128 zeros": {128, 0, "bafkzcibcpybwiktap34inmaex4wbs6cghlq5i2j2yd2bb2zndn5ep7ralzphkdy"},
	} {
		p, err := commp.Compute(bytes.NewReader(bytes.Repeat([]byte{tc.fill}, tc.payload)))
		require.NoError(t, err)
		v2, err := commp.V2(p)
		require.NoError(t, err, name)
		back, err := commp.FromV2(v2)
		require.NoError(t, err)
		require.Equal(t, p, back, name)
		v1, err := commp.V1(v2)
		require.NoError(t, err)
		require.Equal(t, p.CID, v1)
		same, err := commp.V1(p.CID)
		require.NoError(t, err)
		require.Equal(t, p.CID, same)
		require.Equal(t, tc.v2, v2.String(), name)
	}
	p, err := commp.Compute(bytes.NewReader(make([]byte, 1000)))
	require.NoError(t, err)
	up, err := commp.PadUp(p, 4096)
	require.NoError(t, err)
	v2, err := commp.V2(up)
	require.NoError(t, err)
	back, err := commp.FromV2(v2)
	require.NoError(t, err)
	require.Equal(t, up.CID, back.CID)
	require.Equal(t, up.Padded, back.Padded)
}

// TestV2Lies: what only looks like one is refused.
func TestV2Lies(t *testing.T) {
	p, err := commp.Compute(bytes.NewReader(make([]byte, 1000)))
	require.NoError(t, err)
	good, err := commp.V2(p)
	require.NoError(t, err)
	for i := range good.Bytes()[4:8] {
		b := bytes.Clone(good.Bytes())
		b[4+i] = 0xff
		c, err := cid.Cast(b)
		if err != nil || !commp.IsV2(c) {
			continue
		}
		back, err := commp.FromV2(c)
		if err == nil {
			require.LessOrEqual(t, back.Padded, commp.Padded(commp.MaxPadded))
		}
	}
	leaf, err := cid.Decode("bafkreibckgqjrr4xnsnek7uqmk6bxqkbafp4v7sdfgmgggwcb67diea6be")
	require.NoError(t, err)
	require.False(t, commp.IsV2(leaf))
	same, err := commp.V1(leaf)
	require.NoError(t, err)
	require.Equal(t, leaf, same)
}
