package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// TestKillRounds kills the client, the provider or the ledger at random moments of a paid retrieval, each a process of its own, and starts it
// again: the retrieval ends, the file is equal, both sides agree to the attoFIL, and what was vouchered is redeemed. CARTAGE_KILL_ROUNDS says
// how many rounds, CARTAGE_KILL_SEED the seed of the first.
func TestKillRounds(t *testing.T) {
	rounds, seed := numberFrom("CARTAGE_KILL_ROUNDS", 2), numberFrom("CARTAGE_KILL_SEED", 1)
	var sum killSum
	for i := range rounds {
		t.Run(fmt.Sprintf("seed %d", seed+i), func(t *testing.T) {
			k := newKillRound(t, uint64(seed+i))
			k.run()
			t.Logf("%s", k)
			sum.add(k)
		})
	}
	t.Log(sum.String())
}

func numberFrom(env string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return otherwise
}

// killSum is what all rounds together were.
type killSum struct {
	rounds, again, struck int
	kills                 map[string]int
	deals                 map[int]int
	inAdvance             int
	longest               time.Duration
}

func (s *killSum) add(k *killRound) {
	if s.kills == nil {
		s.kills, s.deals = map[string]int{}, map[int]int{}
	}
	s.rounds++
	s.again += k.again
	for _, v := range k.victims {
		s.kills[v]++
	}
	if len(k.victims) > 0 {
		s.struck++
	}
	s.deals[k.deals]++
	if k.excess.Sign() > 0 {
		s.inAdvance++
	}
	s.longest = max(s.longest, k.took)
}

func (s *killSum) String() string {
	return fmt.Sprintf("%d rounds ended well; %d were struck while they ran: %v; commands run again %d; deals a round %v; rounds with an excess paid in advance %d; longest %s",
		s.rounds, s.struck, s.kills, s.again, s.deals, s.inAdvance, s.longest.Round(time.Millisecond))
}

const (
	killPrice = 2
	killBytes = 48 << 20
)

// killRound is one paid retrieval with its processes.
type killRound struct {
	t     *testing.T
	ctx   context.Context
	seed  uint64
	rnd   *rand.Rand
	dir   string
	procs map[string]*exec.Cmd
	ready map[string]map[string]any
	root  string
	bytes uint64

	victims []string
	moments []string
	again   int // how often the command had to be run again
	deals   int
	excess  big.Int
	took    time.Duration
}

func newKillRound(t *testing.T, seed uint64) *killRound {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	k := &killRound{t: t, ctx: ctx, seed: seed, rnd: rand.New(rand.NewPCG(seed, 41)), dir: t.TempDir(), procs: map[string]*exec.Cmd{}, ready: map[string]map[string]any{}, excess: big.Zero()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("killed %s", strings.Join(k.moments, ", "))
			k.showLogs()
		}
		for _, p := range k.procs {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return k
}

func (k *killRound) String() string {
	return fmt.Sprintf("seed %d: killed %s; %d deals, run again %d times, %s in advance, %s", k.seed, strings.Join(k.moments, ", "), k.deals, k.again, k.excess, k.took.Round(time.Millisecond))
}

func (k *killRound) showLogs() {
	for _, name := range []string{"ledger", "provider", "client"} {
		text, _ := os.ReadFile(filepath.Join(k.dir, name+".log"))
		k.t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
	}
}

func (k *killRound) home(name string) config.Home {
	return config.Home{Dir: filepath.Join(k.dir, name)}
}

var killArgs = map[string][]string{"ledger": {"ledger", "serve"}, "provider": {"daemon", "--provide"}, "client": {"daemon"}}

// start runs a party and waits for its ready line.
func (k *killRound) start(name string) {
	log, err := os.OpenFile(filepath.Join(k.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(k.t, err)
	defer log.Close()
	p := exec.Command("cartage", append([]string{"--json", "--home", k.home(name).Dir}, killArgs[name]...)...)
	p.Stderr = log
	out, err := p.StdoutPipe()
	require.NoError(k.t, err)
	require.NoError(k.t, p.Start())
	k.procs[name] = p
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(k.t, err, "%s did not start", name)
	var ready map[string]any
	require.NoError(k.t, json.Unmarshal(line, &ready))
	k.ready[name] = ready
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

func (k *killRound) kill(name string) {
	require.NoError(k.t, k.procs[name].Process.Kill())
	_ = k.procs[name].Wait()
	delete(k.procs, name)
}

// ask talks to a daemon.
func (k *killRound) ask(name string, f func(ctx context.Context, n *api.Node) error) error {
	n, done, err := node.Dial(k.ctx, k.home(name))
	if err != nil {
		return err
	}
	if n == nil {
		return errors.New("no daemon answers")
	}
	defer done()
	return f(k.ctx, n)
}

// prepare makes a ledger with a settle delay of 2 s, a provider with a file for sale, and a client with money.
func (k *killRound) prepare() {
	t := k.t
	require.NoError(t, os.MkdirAll(k.home("ledger").Dir, 0o700))
	require.NoError(t, ledger.Init(k.home("ledger").Dir, ledger.Options{Dev: true, Epoch: 50 * time.Millisecond, SettleDelay: 40}))
	k.start("ledger")
	for _, name := range []string{"provider", "client"} {
		_, err := node.Init(k.home(name), node.InitOptions{LedgerURL: fmt.Sprint(k.ready["ledger"]["url"]), LedgerTokenFile: fmt.Sprint(k.ready["ledger"]["token_file"])})
		require.NoError(t, err)
		file := k.home(name).Path("config.toml")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		text = regexp.MustCompile(`min_settle_window = .*`).ReplaceAll(text, []byte(`min_settle_window = "1s"`))
		require.NoError(t, os.WriteFile(file, text, 0o600))
		k.start(name)
	}
	f, err := os.Create(filepath.Join(k.dir, "data.bin"))
	require.NoError(t, err)
	var seed [32]byte
	seed[0], seed[1] = byte(k.seed), byte(k.seed>>8)
	_, err = io.CopyN(f, rand.NewChaCha8(seed), killBytes)
	require.NoError(t, errors.Join(err, f.Close()))
	require.NoError(t, k.ask("client", func(ctx context.Context, n *api.Node) error {
		_, err := n.Faucet(ctx)
		return err
	}))
	require.NoError(t, k.ask("provider", func(ctx context.Context, n *api.Node) error {
		p, err := n.Provide(ctx, f.Name())
		if err != nil {
			return err
		}
		k.root, k.bytes = p.Root, p.Bytes
		_, err = n.SetAsk(ctx, api.Ask{PricePerByte: strconv.Itoa(killPrice), UnsealPrice: "0", PaymentInterval: 256 << 10})
		return err
	}))
}

// retrieve runs the command; its end is sent on the channel.
func (k *killRound) retrieve() (ended chan error, says *bytes.Buffer) {
	address := k.ready["provider"]["addresses"].([]any)[0]
	c := exec.CommandContext(k.ctx, "cartage", "--home", k.home("client").Dir, "retrieve", k.root, "--provider", fmt.Sprint(address), "-o", filepath.Join(k.dir, "out.bin"), "--budget", "1FIL", "--stall", "1m")
	says = &bytes.Buffer{}
	c.Stdout, c.Stderr = says, says
	ended = make(chan error, 1)
	require.NoError(k.t, c.Start())
	go func() { ended <- c.Wait() }()
	return ended, says
}

// run is the round.
func (k *killRound) run() {
	k.prepare()
	began := time.Now()
	ended, says := k.retrieve()
	var err error
	over := k.begun(ended, &err)
	for kills := 1 + k.rnd.IntN(3); kills > 0 && !over; kills-- {
		select {
		case err = <-ended:
			over = true
		case <-time.After(time.Duration(k.rnd.IntN(600)) * time.Millisecond):
			k.strike()
		}
	}
	if !over {
		err = <-ended
	}
	for ; err != nil && k.again < 3; k.again++ {
		k.t.Logf("seed %d: %v\n%s", k.seed, err, says)
		ended, says = k.retrieve()
		err = <-ended
	}
	require.NoError(k.t, err, "%s", says)
	k.took = time.Since(began)
	k.compare()
	k.settle()
}

// begun waits until the client has a deal; before that the command has nothing that could go on. It reports whether the command ended first.
func (k *killRound) begun(ended chan error, err *error) bool {
	for {
		select {
		case *err = <-ended:
			return true
		case <-time.After(5 * time.Millisecond):
		}
		if s, err := k.sideOf("client"); err == nil && len(s.deals) > 0 {
			return false
		}
	}
}

// strike kills a party, and starts it again a little later.
func (k *killRound) strike() {
	name := []string{"client", "provider", "ledger"}[k.rnd.IntN(3)]
	moved := uint64(0)
	_ = k.ask("provider", func(ctx context.Context, n *api.Node) error {
		list, err := n.Deals(ctx)
		for _, d := range list {
			moved += d.Bytes
		}
		return err
	})
	k.kill(name)
	k.victims, k.moments = append(k.victims, name), append(k.moments, fmt.Sprintf("%s at %.1f MiB", name, float64(moved)/(1<<20)))
	time.Sleep(time.Duration(k.rnd.IntN(300)) * time.Millisecond)
	k.start(name)
}
