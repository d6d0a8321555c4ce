package money

import (
	"math/big"
	"strings"
	"testing"

	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
)

var usdc = Asset{Name: "usdc@base", Symbol: "USDC", Decimals: 6}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "1000": "1000", "1000attoFIL": "1000", "20nanoFIL": "20000000000", "0.5FIL": "500000000000000000", " 0.5 fil ": "500000000000000000", "1.FIL": "1000000000000000000",
		".5nanoFIL": "500000000", "1.000": "1", "0.000000000000000001FIL": "1", "007FIL": "7000000000000000000",
	} {
		a, err := Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, a.Units.String(), text)
		require.Equal(t, FIL, a.Asset, text)
	}
	for text, want := range map[string]string{"0.04USDC": "40000", "0.04 usdc@base": "40000", "7USDC": "7000000"} {
		a, err := Parse(text, usdc)
		require.NoError(t, err, text)
		require.Equal(t, want, a.Units.String(), text)
		require.Equal(t, usdc, a.Asset, text)
	}
	for _, text := range []string{"", "FIL", ".", "-1", "+1", "1e3", "1/2", "0x10", "1.5", "0.5attoFIL", "0.0000000001nanoFIL", "0.0000000000000000001FIL", "1.2.3FIL", "1,5FIL", "5USDC", "1 000", strings.Repeat("9", 79)} {
		_, err := Parse(text)
		var bad *AmountError
		require.ErrorAs(t, err, &bad, "%q", text)
		require.Equal(t, text, bad.Text)
	}
	_, err := Parse("0.0000001USDC", usdc)
	require.ErrorContains(t, err, "at most 6")
}

func TestTable(t *testing.T) {
	for units, want := range map[string][2]string{
		"0":                        {"0 FIL", "0 FIL"},
		"99999":                    {"99999 attoFIL", "99999 attoFIL"},
		"100000":                   {"0.0001 nanoFIL", "0.0001 nanoFIL (100000 attoFIL)"},
		"123456":                   {"0.0001234 nanoFIL", "0.0001234 nanoFIL (123456 attoFIL)"},
		"99999999999999":           {"99999 nanoFIL", "99999 nanoFIL (99999999999999 attoFIL)"},
		"41203330009871234":        {"0.0412 FIL", "0.0412 FIL (41203330009871234 attoFIL)"},
		"19999999999999999999":     {"19.99 FIL", "19.99 FIL (19999999999999999999 attoFIL)"},
		"123456789000000000000000": {"123456 FIL", "123456 FIL (123456789000000000000000 attoFIL)"},
		"-5":                       {"-5 attoFIL", "-5 attoFIL"},
	} {
		n, err := fbig.FromString(units)
		require.NoError(t, err)
		require.Equal(t, want[0], AttoFIL(n).Table())
		require.Equal(t, want[1], AttoFIL(n).Exact())
	}
	require.Equal(t, "0.04123 USDC", Amount{fbig.NewInt(41239), usdc}.Table())
	require.Equal(t, "0.041239 USDC", Amount{fbig.NewInt(41239), usdc}.Exact())
	require.Equal(t, "0 FIL", Amount{Asset: FIL}.String())
}

func TestAddMixesNoAssets(t *testing.T) {
	sum, err := MustParse("1").Add(MustParse("2"))
	require.NoError(t, err)
	require.Equal(t, "3", sum.Units.String())
	_, err = MustParse("1").Add(MustParse("1USDC", usdc))
	require.ErrorContains(t, err, "FIL and usdc@base")
}

func TestPrice(t *testing.T) {
	p := MustParsePrice("0.01FIL/GiB")
	require.Equal(t, "0.01 FIL/GiB", p.String())
	require.Equal(t, "0.01 FIL", p.For(1<<30).Table())
	require.Equal(t, "0", p.For(0).Units.String())
	require.Equal(t, "9313226", p.For(1).Units.String(), "a part of a unit is due")
	units, exact := p.PerByte()
	require.Equal(t, "9313225", units.Units.String())
	require.False(t, exact)
	units, exact = MustParsePrice("2/B").PerByte()
	require.Equal(t, "2", units.Units.String())
	require.True(t, exact)
	require.Equal(t, "2 attoFIL/B", MustParsePrice("2").String())
	require.Equal(t, "7 USDC/TiB", MustParsePrice("7USDC/TiB", usdc).String())
	for _, text := range []string{"1/", "1/s", "/GiB", "1FIL/GB", "1/B/B"} {
		_, err := ParsePrice(text)
		var bad *AmountError
		require.ErrorAs(t, err, &bad, "%q", text)
	}
	require.Panics(t, func() { MustParse("x") })
	require.Panics(t, func() { MustParsePrice("1/x") })
}

// FuzzParse: what is read and written is read as the same again, and a table never shows more than there is.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"1000", "20nanoFIL", "0.5FIL", "0.04USDC", "1.000000000000000001 FIL", "99999", "100000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s, usdc)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, a.Units.Sign(), 0)
		again, err := Parse(a.Decimal()+a.Asset.Name, usdc)
		require.NoError(t, err)
		require.Equal(t, a.Units.String(), again.Units.String())
		shown, err := Parse(a.Table(), usdc)
		require.NoError(t, err)
		require.LessOrEqual(t, shown.Units.Cmp(a.Units.Int), 0, "%s shown as %s", a.Units, a.Table())
		lost := new(big.Int).Sub(a.Units.Int, shown.Units.Int)
		require.LessOrEqual(t, new(big.Int).Mul(lost, big.NewInt(1000)).Cmp(a.Units.Int), 0, "a thousandth at most is cut")
	})
}
