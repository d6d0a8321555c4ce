package ledger

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	pay "github.com/cartage-dev/cartage/paych"
)

// benchLedger is a ledger on the disk with so many channels, of 100 payers, each of which has an account.
type benchLedger struct {
	b        *testing.B
	l        *Ledger
	payers   []*pay.Key
	seqs     []uint64
	channels [][]address.Address
}

func newBenchLedger(b *testing.B, channels int) *benchLedger {
	home := b.TempDir()
	require.NoError(b, Init(home, Options{Epoch: time.Second, SettleDelay: 100}))
	l, err := Open(b.Context(), home)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	out := &benchLedger{b: b, l: l}
	for range min(100, channels) {
		k, err := pay.NewKey()
		require.NoError(b, err)
		_, err = l.Mint(b.Context(), k.Address, big.NewInt(1<<50))
		require.NoError(b, err)
		out.payers, out.seqs, out.channels = append(out.payers, k), append(out.seqs, 0), append(out.channels, nil)
	}
	var wg sync.WaitGroup
	for i := range out.payers {
		wg.Go(func() {
			for range channels / len(out.payers) {
				r := out.submit(i, out.signed(i, KindCreate, out.payers[(i+1)%len(out.payers)].Address))
				out.channels[i] = append(out.channels[i], r.Channel)
			}
		})
	}
	wg.Wait()
	return out
}

// signed is the next transaction of a payer.
func (l *benchLedger) signed(i int, kind Kind, to address.Address) []byte {
	id := uuid.New()
	t := &Tx{Network: l.l.net.ID, From: l.payers[i].Address, Seq: l.seqs[i], ValidUntil: 1000, Kind: kind, To: to, Value: big.NewInt(10), Intent: id[:]}
	l.seqs[i]++
	if err := t.Sign(l.payers[i]); err != nil {
		l.b.Error(err)
	}
	data, err := t.Encode()
	if err != nil {
		l.b.Error(err)
	}
	return data
}

func (l *benchLedger) submit(i int, data []byte) *ReceiptInfo {
	c, err := l.l.Submit(l.b.Context(), data)
	if err != nil {
		l.b.Error(err)
		return &ReceiptInfo{}
	}
	r, err := service{l: l.l}.Receipt(l.b.Context(), c)
	if err != nil || r.ExitCode != 0 {
		l.b.Errorf("payer %d: %+v %v", i, r, err)
	}
	return r
}

// run tops up channels: so many transactions, of all payers at once, ten of each in a row.
func (l *benchLedger) run(transactions int) time.Duration {
	work := make([][][]byte, len(l.payers))
	for n := range transactions {
		i := n % len(l.payers)
		work[i] = append(work[i], l.signed(i, KindAddFunds, l.channels[i][n/len(l.payers)%len(l.channels[i])]))
	}
	var wg sync.WaitGroup
	begun := time.Now()
	for i, txs := range work {
		wg.Go(func() {
			for _, data := range txs {
				l.submit(i, data)
			}
		})
	}
	wg.Wait()
	return time.Since(begun)
}

// BenchmarkChannels: 1,000 transactions that 10 payers have in flight, on a ledger of 10,000 channels against one of 10. Both have the same
// number of accounts at work, so that batches are alike.
func BenchmarkChannels(b *testing.B) {
	few, many := newBenchLedger(b, 10), newBenchLedger(b, 10_000)
	many.payers, many.seqs, many.channels = many.payers[:10], many.seqs[:10], many.channels[:10]
	var all []float64
	var rate []float64
	for range 9 {
		x, y := few.run(1000), many.run(1000)
		all, rate = append(all, float64(y)/float64(x)), append(rate, 1000/y.Seconds())
	}
	slices.Sort(all)
	slices.Sort(rate)
	b.ReportMetric(all[4], "ratio")
	b.ReportMetric(all[0], "least")
	b.ReportMetric(all[8], "greatest")
	b.ReportMetric(rate[4], "transactions/s")
	b.ReportMetric(0, "ns/op")
}
