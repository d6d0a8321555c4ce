package wire_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
)

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// TestCheckClaims: a length is believed only as far as bytes follow.
func TestCheckClaims(t *testing.T) {
	for name, tc := range map[string]struct {
		hex  string
		says string
	}{
		"number":             {"1a00100000", ""},
		"string":             {"6161", ""},
		"long string":        {"5a00200000aa", "2097152 bytes"},
		"huge string":        {"5bffffffffffffffff", "bytes is announced"},
		"list":               {"8201f6", ""},
		"long list":          {"99200001", "8192 items"},
		"short list":         {"8201", "2 items"},
		"huge list":          {"9bffffffffffffffff01", "items is announced"},
		"map":                {"a1616101", ""},
		"long map":           {"a5616101", "5 keys"},
		"nested":             {"818181818181f6", ""},
		"tag":                {"d82a4100", ""},
		"nothing":            {"", "EOF"},
		"string in a list":   {"8143aabb", "3 bytes"},
		"behind it":          {"0102", ""},
		"lists of long ones": {"829a0001ffff9a0001ffff", "131071 items"},
	} {
		t.Run(name, func(t *testing.T) {
			err := wire.CheckClaims(unhex(t, tc.hex))
			if tc.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.says)
			}
		})
	}
}

// TestAmountIsCanonical: one number has one form.
func TestAmountIsCanonical(t *testing.T) {
	read := func(s string) (abi.TokenAmount, error) {
		var a abi.TokenAmount
		return a, wire.Amount("a", &a).Read(cbg.NewCborReader(bytes.NewReader(unhex(t, s))))
	}
	for s, want := range map[string]int64{"40": 0, "420002": 2, "44009aa9c0": 10136000} {
		_, err := read(s)
		require.NoError(t, err, s)
		_ = want
	}
	for _, s := range []string{"4500009aa9c0", "4100", "420000", "4101", "420102", "420202", "589d00", "01"} {
		_, err := read(s)
		require.Error(t, err, s)
	}
}

func FuzzReadRaw(f *testing.F) {
	for _, s := range []string{"8201f6", "a1616101", "d82a4100", "5a00200000aa"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		claims := wire.CheckClaims(data)
		out, err := wire.ReadRaw(bytes.NewReader(data), wire.MaxItem, wire.MaxDepth)
		if err == nil && len(out) <= len(data) {
			require.NoError(t, claims, "what can be read keeps its claims")
		}
	})
}
