package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	pay "github.com/cartage-dev/cartage/paych"
)

const (
	killHome = "CARTAGE_TEST_LEDGER"
	killRuns = "CARTAGE_KILLS" // how often the writer is killed
)

func TestMain(m *testing.M) {
	if home := os.Getenv(killHome); home != "" {
		if err := writeForEver(home); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// A library of a library starts this one when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// writeForEver is the process that is killed: eight accounts of the wallet pay each other, and open, fund, settle
// and collect channels; each transaction that was answered is said on stdout.
func writeForEver(home string) error {
	ctx := context.Background()
	l, err := Open(ctx, home)
	if err != nil {
		return err
	}
	w, err := pay.OpenWallet(blob.OS{}, home+"/accounts")
	if err != nil {
		return err
	}
	accounts := w.List()
	errs := make(chan error)
	for i, a := range accounts {
		go func() {
			var last address.Address
			rng := rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
			for {
				if err := writeOne(ctx, l, w, a, accounts, rng, &last); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// killKinds are what a writer does, and which of them need a channel.
var killKinds = []struct {
	kind    Kind
	channel bool
}{{KindTransfer, false}, {KindTransfer, false}, {KindCreate, false}, {KindAddFunds, true}, {KindSettle, true}, {KindCollect, true}}

// writeOne sends one transaction of an account. One that cannot be applied, such as a collect before its time, has a receipt as well.
// last is the channel that the account opened last.
func writeOne(ctx context.Context, l *Ledger, w *pay.Wallet, from address.Address, accounts []address.Address, rng *rand.Rand, last *address.Address) error {
	s := service{l: l, paces: newPaces()}
	acc, err := s.Account(ctx, from)
	if err != nil {
		return err
	}
	h, err := s.Head(ctx)
	if err != nil {
		return err
	}
	id, what := uuid.New(), killKinds[rng.IntN(len(killKinds))]
	t := &Tx{Network: l.net.ID, From: from, Seq: acc.Seq, ValidUntil: h.Epoch + 100, Kind: what.kind,
		To: accounts[rng.IntN(len(accounts))], Value: big.NewInt(1 + rng.Int64N(5)), Intent: id[:]}
	if what.channel {
		if last.Empty() {
			return nil
		}
		t.To = *last
	}
	key, err := w.Key(from)
	if err != nil {
		return err
	}
	if err := t.Sign(key); err != nil {
		return err
	}
	data, err := t.Encode()
	if err != nil {
		return err
	}
	c, err := l.Submit(ctx, data)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(c.String() + "\n"); err != nil || what.kind != KindCreate {
		return err
	}
	r, err := s.Receipt(ctx, c)
	if err == nil && r != nil {
		*last = r.Channel
	}
	return err
}

// TestScenario48: a process that writes with eight accounts at once is killed again and again, in the middle of its batches. Each
// transaction that was answered is there, money is conserved, and log and state agree (I1 to I11). CARTAGE_KILLS=1000 is the long form.
func TestScenario48(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 4
	}
	if n, err := strconv.Atoi(os.Getenv(killRuns)); err == nil {
		kills = n
	}
	home := t.TempDir()
	require.NoError(t, Init(home, Options{Epoch: time.Second, SettleDelay: 10}))
	w, err := pay.OpenWallet(blob.OS{}, home+"/accounts")
	require.NoError(t, err)
	l, err := Open(t.Context(), home)
	require.NoError(t, err)
	for range 8 {
		a, err := w.New()
		require.NoError(t, err)
		_, err = l.Mint(t.Context(), a, big.NewInt(1_000_000_000))
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
	answered, last := 0, ""
	for i := range kills {
		n, c := killOnce(t, home, rand.N(40*time.Millisecond))
		if n > 0 {
			answered, last = answered+n, c
		}
		if i%50 == 49 || i == kills-1 {
			check(t, home, last)
		}
	}
	require.NotZero(t, answered)
	t.Logf("%d kills, %d transactions answered", kills, answered)
}

// killOnce runs the writer until it has answered, and then for so long; all that was answered is there.
func killOnce(t *testing.T, home string, wait time.Duration) (answered int, last string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killHome+"="+home)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	var all []string
	for lines.Scan() {
		if len(all) == 0 {
			time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
		}
		if _, err := cid.Decode(lines.Text()); err == nil { // the last one may be cut
			all = append(all, lines.Text())
		}
	}
	_ = cmd.Wait()
	if len(all) == 0 {
		return 0, ""
	}
	l, err := Open(t.Context(), home)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	for _, text := range all {
		c, err := cid.Decode(text)
		require.NoError(t, err)
		r, err := service{l: l}.Receipt(t.Context(), c)
		require.NoError(t, err)
		require.NotNil(t, r, "transaction %s was answered and is lost", c)
	}
	return len(all), all[len(all)-1]
}

func check(t *testing.T, home, last string) {
	t.Helper()
	l, err := Open(t.Context(), home)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.NoError(t, l.Verify())
	a, err := l.Audit()
	require.NoError(t, err)
	require.True(t, a.Conserved)
	require.NotEmpty(t, last)
}
