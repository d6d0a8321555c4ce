package batch_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkChallenge (G-45): a 402 over a real socket, without a read of a block.
func BenchmarkChallenge(b *testing.B) {
	s := newShop(b, false)
	b.ReportAllocs()
	for b.Loop() {
		a, err := s.ask(0, window, "")
		require.NoError(b, err)
		require.Equal(b, 402, a.StatusCode)
	}
	require.Zero(b, s.block.reads.Load())
}

// BenchmarkWindow: a paid window of 4 KiB over a real socket, with the signature of the payer and the commit of the seller.
func BenchmarkWindow(b *testing.B) {
	s := newShop(b, false)
	s.buy(0, window, s.deposits(900_000))
	o := s.offer(0, window)
	b.ReportAllocs()
	for b.Loop() {
		a, err := s.ask(0, window, s.voucher(o))
		require.NoError(b, err)
		require.Equal(b, 206, a.StatusCode, "%s", a.body)
		s.charged += a.charged(b)
		if s.charged%2000 == 0 {
			b.StopTimer()
			require.NoError(b, s.desk.Redeem(b.Context()))
			b.StartTimer()
		}
	}
}
