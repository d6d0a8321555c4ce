package paychannel_test

import (
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
)

// BenchmarkChallenge (G-45): a 402 over a real socket, without a read of a block.
func BenchmarkChallenge(b *testing.B) {
	s := newShop(b)
	b.ReportAllocs()
	for b.Loop() {
		a, err := s.ask(0, 4096, "")
		require.NoError(b, err)
		require.Equal(b, 402, a.StatusCode)
	}
	require.Zero(b, s.block.reads.Load())
}

// BenchmarkWindow: a paid window of 4 KiB over a real socket, with the signature of the buyer and the commits of both sides.
func BenchmarkWindow(b *testing.B) {
	s := newShop(b)
	o := s.offer(0, 4096)
	amount := big.NewFromGo(o.Amount.Int())
	b.ReportAllocs()
	for b.Loop() {
		s.paid = big.Add(s.paid, amount)
		a, err := s.ask(0, 4096, s.payment(o, s.voucher(s.paid)))
		require.NoError(b, err)
		require.Equal(b, 206, a.StatusCode)
	}
}
