package testmarket_test

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/testutil"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// payAhead makes the deals of a client pay for verified bytes before they are asked for.
func payAhead(c *retrievalimpl.ClientConfig) { c.SupportsAhead = func(peer.ID) bool { return true } }

// TestAheadVouchers: a client that pays unasked signs one voucher for each interval, although the provider stops at its limit and asks
// while the voucher is on its way: what crossed is not answered with vouchers for single blocks.
func TestAheadVouchers(t *testing.T) {
	testutil.EachTransport(t, func(t *testing.T) {
		const interval, leaves, size = 16 << 10, 256, 2 << 10
		m := newPair(t, terms(2, 0, interval, 0), leaves, size, func(m *pair) { m.c.ClientConfig, m.c.Book, m.p.Book = payAhead, true, true })
		m.retrieve()
		m.completed(m.due())
		most := int(m.total/interval) + int(m.total/interval)/4 + 2
		n := strings.Count(m.tc.String(), "PaymentSent>")
		require.Positive(t, n)
		require.LessOrEqual(t, n, most, "vouchers for %d bytes: %s", m.total, m.tc)
	})
}
