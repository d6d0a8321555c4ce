package node_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// kindOf groups the files of a home: by folder, and in a store by what they are for.
func kindOf(name string) string {
	dir, base := filepath.Split(name)
	for _, kind := range []string{"MANIFEST", "OPTIONS", "marker", "LOCK", "acknowledged"} {
		if strings.HasPrefix(base, kind) {
			return dir + kind
		}
	}
	if ext := filepath.Ext(base); dir != "" && ext != "" {
		return dir + "*" + ext
	}
	if dir != "" {
		return dir + "*"
	}
	return base
}

// flipped are the closed homes of a provider and a client that traded, with what they tell.
type flipped struct {
	dir   string // with both homes
	names []string
	want  map[string]string
}

// flipLedger runs a development ledger until the test ends.
func flipLedger(t *testing.T) (url, tokenFile string) {
	dir := t.TempDir()
	require.NoError(t, ledger.Init(dir, ledger.Options{Dev: true, Epoch: 50 * time.Millisecond, SettleDelay: 400}))
	l, err := ledger.Open(t.Context(), dir)
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(ctx, ln, "token") }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, errors.Join(<-ended, l.Close()))
	})
	tokenFile = filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(tokenFile, []byte("token\n"), 0o600))
	return "http://" + ln.Addr().String(), tokenFile
}

func openFlipped(t *testing.T, h config.Home) (*node.Opened, error) {
	return node.Open(t.Context(), h, node.Options{Provide: filepath.Base(h.Dir) == "provider", Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
}

// homesToFlip are the homes of a provider and a client with a deal that is complete, one that is parked, and an import.
func homesToFlip(t *testing.T) *flipped {
	f := &flipped{dir: filepath.Join(t.TempDir(), "homes"), names: []string{"provider", "client"}, want: map[string]string{}}
	require.NoError(t, os.MkdirAll(f.dir, 0o700))
	url, token := flipLedger(t)
	nodes := map[string]*node.Opened{}
	for _, name := range f.names {
		h := config.Home{Dir: filepath.Join(f.dir, name)}
		_, err := node.Init(h, node.InitOptions{LedgerURL: url, LedgerTokenFile: token})
		require.NoError(t, err)
		nodes[name], err = openFlipped(t, h)
		require.NoError(t, err)
	}
	p, c := nodes["provider"], nodes["client"]
	_, err := p.API().SetAsk(t.Context(), api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 64 << 10})
	require.NoError(t, err)
	_, err = c.API().Faucet(t.Context())
	require.NoError(t, err)
	budgets := []string{"10000000", "700000"} // the second is used up, and the order stands
	for i, budget := range budgets {
		file := filepath.Join(t.TempDir(), "data.bin")
		data := make([]byte, 3_000_000)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		require.NoError(t, os.WriteFile(file, data, 0o600))
		piece, err := p.API().ProvideAs(t.Context(), api.ProvideRequest{Path: file})
		require.NoError(t, err)
		r, err := c.API().Retrieve(t.Context(), api.RetrieveRequest{CID: piece.Root, Provider: p.Addresses()[0], Budget: budget, Holder: "test"})
		for err == nil && !r.Done {
			r, err = c.API().OrderWatch(t.Context(), api.OrderWatch{Key: r.Key, Holder: "test", Seq: r.Seq})
		}
		require.NoError(t, err)
		require.Equal(t, i == 0, r.OK, "%s %s", r.Status, r.Message)
		if i == 0 {
			_, err = c.API().Import(t.Context(), api.ImportRequest{Path: file})
			require.NoError(t, err)
		}
	}
	for _, name := range f.names {
		require.NoError(t, nodes[name].Close(t.Context()))
		f.want[name], err = tellHome(t, config.Home{Dir: filepath.Join(f.dir, name)})
		require.NoError(t, err)
	}
	require.Contains(t, f.want["client"], "parked")
	require.Contains(t, f.want["client"], "lane")
	require.Contains(t, f.want["provider"], "lane")
	return f
}

// tellHome opens a home and says what it holds: identity, pieces with each of their blocks, deals, orders, vouchers, imports, and what was bought.
func tellHome(t *testing.T, h config.Home) (string, error) {
	o, err := openFlipped(t, h)
	if err != nil {
		return "", err
	}
	out, err := tellNode(t.Context(), o.API())
	return out, errors.Join(err, o.Close(t.Context()))
}

func tellNode(ctx context.Context, n *api.Node) (string, error) {
	info, err := n.Info(ctx)
	if err != nil {
		return "", err
	}
	ask, err := n.Ask(ctx)
	if err != nil {
		return "", err
	}
	out := fmt.Sprintln(info.PeerID, info.Wallet, ask.PricePerByte, ask.PaymentInterval)
	for _, tell := range []func(context.Context, *api.Node) (string, error){tellPieces, tellDeals, tellVouchers, tellBought} {
		part, err := tell(ctx, n)
		if err != nil {
			return "", err
		}
		out += part
	}
	return out, nil
}

func tellPieces(ctx context.Context, n *api.Node) (out string, err error) {
	pieces, err := n.Pieces(ctx)
	for _, p := range pieces {
		out += fmt.Sprintln(p.Root, p.PieceCID, p.Bytes, p.State)
		v, err := n.VerifyPiece(ctx, p.PieceCID)
		if err == nil && !v.OK {
			err = errors.New(v.Fault)
		}
		if err != nil {
			return "", err
		}
	}
	imports, ierr := n.Imports(ctx)
	for _, i := range imports {
		if i.Err != "" {
			return "", errors.New(i.Err)
		}
		out += fmt.Sprintln("import", i.Root, i.Bytes)
	}
	return out, errors.Join(err, ierr)
}

func tellDeals(ctx context.Context, n *api.Node) (out string, err error) {
	deals, err := n.Deals(ctx)
	for _, d := range deals {
		out += fmt.Sprintln(d.ID, d.Peer, d.Root, d.Status, d.Bytes, d.Owed, d.Vouchered)
	}
	orders, oerr := n.Orders(ctx)
	for _, o := range orders {
		out += fmt.Sprintln(o.ID, o.Root, o.State, o.Budget, o.Spent, o.Bytes)
	}
	return out, errors.Join(err, oerr)
}

func tellVouchers(ctx context.Context, n *api.Node) (out string, err error) {
	channels, err := n.PayChannels(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range channels {
		list, err := n.PayChVouchers(ctx, c.Channel)
		if err != nil {
			return "", err
		}
		for _, v := range list {
			out += fmt.Sprintln(c.Channel, c.Direction, "lane", v.Lane, v.Nonce, v.Amount, v.Deal, v.Text)
		}
	}
	return out, nil
}

// tellBought reads what was bought out of its file: each block is checked. One that is damaged is not here any more, which is told by an order
// that has to buy again.
func tellBought(ctx context.Context, n *api.Node) (out string, err error) {
	orders, err := n.Orders(ctx)
	for _, o := range orders {
		if o.State != "done" {
			continue
		}
		r, err := n.Retrieve(ctx, api.RetrieveRequest{CID: o.Root, Read: true})
		if err != nil {
			return "", err
		}
		s, err := carstore.OpenRead(r.CarPath)
		if err != nil {
			return "", err
		}
		sum := sha256.New()
		err = errors.Join(dataselector.Selection{}.WriteFile(ctx, ptr(s.LinkSystem()), s.Root(), sum), s.Close())
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf("bought %x\n", sum.Sum(nil))
	}
	return out, err
}

func ptr[T any](v T) *T { return &v }

// TestFlips changes one bit of a file of two homes that traded at a time, of each kind of file in turn, and opens the home: it tells the same as
// before, or says what is wrong. It prints how each kind did. CARTAGE_FLIPS is how many bits.
func TestFlips(t *testing.T) {
	trials := 100
	if n, err := strconv.Atoi(os.Getenv("CARTAGE_FLIPS")); err == nil {
		trials = n
	}
	f := homesToFlip(t)
	kinds := f.kinds(t)
	names := slices.Sorted(maps.Keys(kinds))
	table := map[string][3]int{} // the same, named, silent
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range trials {
		kind := names[i%len(names)]
		name := kinds[kind][rng.IntN(len(kinds[kind]))]
		how := f.try(t, name, rng)
		row := table[kind]
		row[how]++
		table[kind] = row
	}
	silent := 0
	for _, k := range names {
		r := table[k]
		silent += r[flipSilent]
		t.Logf("%-44s well or healed %3d  named %3d  silent %3d", k, r[flipWell], r[flipNamed], r[flipSilent])
	}
	require.Zero(t, silent)
}

// How a trial ends.
const (
	flipWell = iota
	flipNamed
	flipSilent
)

// kinds are the files of both homes that have something in them.
func (f *flipped) kinds(t *testing.T) map[string][]string {
	kinds := map[string][]string{}
	require.NoError(t, filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if st, err := e.Info(); err != nil || st.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(f.dir, path)
		kinds[kindOf(name)] = append(kinds[kindOf(name)], name)
		return err
	}))
	return kinds
}

// try changes one bit of a file in a copy of its home.
func (f *flipped) try(t *testing.T, name string, rng *rand.Rand) int {
	home, rest, _ := strings.Cut(name, string(filepath.Separator))
	dir := filepath.Join(t.TempDir(), home)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(f.dir, home))))
	restrict(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, rest))
	require.NoError(t, err)
	at, bit := rng.IntN(len(data)), rng.IntN(8)
	data[at] ^= 1 << bit
	require.NoError(t, os.WriteFile(filepath.Join(dir, rest), data, 0o600))
	got, err := tellHome(t, config.Home{Dir: dir})
	require.NoError(t, os.RemoveAll(dir))
	switch {
	case err != nil:
		require.NotContains(t, err.Error(), "goroutine ", name)
		require.NotEmpty(t, err.Error())
		return flipNamed
	case got == f.want[home]:
		return flipWell
	}
	t.Logf("%s: bit %d of byte %d changed in silence\n%s\nwas\n%s", name, bit, at, got, f.want[home])
	return flipSilent
}

// restrict gives a copied home the modes of a home.
func restrict(t *testing.T, dir string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
}
