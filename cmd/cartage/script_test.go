package main

import (
	"bufio"
	"bytes"
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
	"syscall"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/ipfsstore/ipfstest"
	"github.com/cartage-dev/cartage/paych/paychtest"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"cartage": main})
}

// leakChecked fails a run that leaves goroutines behind.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestScripts runs the shell sessions of testdata/script with the real binary over real sockets.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start": start, "end": end, "kill9": kill9, "freeze": freeze, "fails": fails, "random": random, "web": web, "await-status": awaitStatus, "await-bytes": awaitBytes, "flip": flipBit, "tmpfs": tmpfs, "field": field, "retry": retry, "await": await,
			"ipfs-node": func(ts *testscript.TestScript, neg bool, args []string) { ipfsNode(t, ts, args) }, "ipfs-blocks": ipfsBlocks,
			"evm-chain": func(ts *testscript.TestScript, neg bool, args []string) { evmChain(t, ts, args) }, "evm-buy": evmBuy, "evm-balance": evmBalance,
			"lotus-node": func(ts *testscript.TestScript, neg bool, args []string) { lotusNode(t, ts, args) },
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			e.Values[procsKey{}] = map[string]*exec.Cmd{}
			e.Values[evmKey{}] = &evmWorld{}
			e.Values[ipfsKey{}] = map[string]*ipfstest.SimulatedNode{}
			e.Defer(func() {
				for _, p := range e.Values[procsKey{}].(map[string]*exec.Cmd) {
					_ = p.Process.Kill()
					_ = p.Wait()
				}
			})
			return nil
		},
	})
}

// patience is how long a session waits for what has to come: longer than a busy machine needs under the race detector.
const patience = 4 * time.Minute

type procsKey struct{}

// lotus-node NAME HOME...: a simulated Lotus node that holds the keys of the homes, and money for them; sets NAME_URL and writes its token
// to NAME.token.
func lotusNode(t *testing.T, ts *testscript.TestScript, args []string) {
	n := paychtest.NewSimulatedLotus()
	n.Advance(10)
	stop := n.Mine(20 * time.Millisecond)
	t.Cleanup(func() {
		stop()
		n.Close()
	})
	for _, home := range args[1:] {
		var b struct {
			Address string `json:"address"`
		}
		out, err := command(ts, "--json", "--home", home, "wallet", "list").Output()
		ts.Check(err)
		ts.Check(json.Unmarshal(out, &b))
		a, err := address.NewFromString(b.Address)
		ts.Check(err)
		n.Fund(a, big.NewInt(1_000_000_000), true)
	}
	ts.Setenv(args[0]+"_URL", n.URL)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".token"), []byte(paychtest.TokenSign+"\n"), 0o600))
}

type ipfsKey struct{}

func ipfsNodes(ts *testscript.TestScript) map[string]*ipfstest.SimulatedNode {
	return ts.Value(ipfsKey{}).(map[string]*ipfstest.SimulatedNode)
}

// ipfs-node NAME: a simulated IPFS node; sets NAME_URL.
func ipfsNode(t *testing.T, ts *testscript.TestScript, args []string) {
	n, url := ipfstest.Start(t)
	ipfsNodes(ts)[args[0]] = n
	ts.Setenv(args[0]+"_URL", url)
}

// ipfs-blocks NAME N: the node has so many blocks.
func ipfsBlocks(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(ipfsNodes(ts)[args[0]].Len()); got != args[1] {
		ts.Fatalf("%s has %s blocks, want %s", args[0], got, args[1])
	}
}

func procs(ts *testscript.TestScript) map[string]*exec.Cmd {
	return ts.Value(procsKey{}).(map[string]*exec.Cmd)
}

func command(ts *testscript.TestScript, args ...string) *exec.Cmd {
	c := exec.Command("cartage", args...)
	if p, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "cartage")); err == nil {
		c = exec.Command(p, args...)
	}
	c.Dir = ts.MkAbs(".")
	c.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("WORK"), "CARTAGE_HOME=" + ts.Getenv("CARTAGE_HOME"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	return c
}

// start NAME ARGS...: runs a server in the background and sets NAME_URL, NAME_TOKEN, NAME_ADDR, NAME_PEER, NAME_OPS and NAME_GATEWAY from its ready line.
func start(ts *testscript.TestScript, _ bool, args []string) {
	c := command(ts, append([]string{"--json"}, args[1:]...)...)
	log, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	c.Stderr = log
	out, err := c.StdoutPipe()
	ts.Check(err)
	ts.Check(c.Start())
	procs(ts)[args[0]] = c
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		ts.Fatalf("%s did not start: %v\n%s", args[0], err, text)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	var ready struct {
		URL       string   `json:"url"`
		TokenFile string   `json:"token_file"`
		Addresses []string `json:"addresses"`
		PeerID    string   `json:"peer_id"`
		Gateway   []string `json:"gateway"`
		Ops       string   `json:"ops"`
	}
	ts.Check(json.Unmarshal(line, &ready))
	ts.Setenv(args[0]+"_PEER", ready.PeerID)
	ts.Setenv(args[0]+"_URL", ready.URL)
	ts.Setenv(args[0]+"_OPS", ready.Ops)
	ts.Setenv(args[0]+"_TOKEN", ready.TokenFile)
	if len(ready.Gateway) > 0 {
		ts.Setenv(args[0]+"_GATEWAY", ready.Gateway[0])
	}
	if len(ready.Addresses) > 0 {
		ts.Setenv(args[0]+"_ADDR", ready.Addresses[0])
	}
}

// end NAME: SIGTERM; the process must end by itself within 5 seconds (O-50) with code 0. The race detector makes everything many times slower.
func end(ts *testscript.TestScript, _ bool, args []string) {
	c := procs(ts)[args[0]]
	delete(procs(ts), args[0])
	ts.Check(c.Process.Signal(syscall.SIGTERM))
	timer := time.AfterFunc(stopBound, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	if err := c.Wait(); err != nil {
		text, _ := os.ReadFile(ts.MkAbs(args[0] + ".log"))
		ts.Fatalf("%s ended with %v\n%s", args[0], err, text)
	}
}

// freeze NAME: SIGSTOP; the process does nothing until it is killed.
func freeze(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(procs(ts)[args[0]].Process.Signal(syscall.SIGSTOP))
}

// kill9 NAME: SIGKILL.
func kill9(ts *testscript.TestScript, _ bool, args []string) {
	c := procs(ts)[args[0]]
	delete(procs(ts), args[0])
	ts.Check(c.Process.Kill())
	_ = c.Wait()
}

// fails CODE REGEXP ARGS...: cartage ends with the code and says what matches.
func fails(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	c := command(ts, args[2:]...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err = c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		ts.Fatalf("ended with %v, want code %d\n%s%s", err, code, out.String(), errs.String())
	}
	if !regexp.MustCompile(args[1]).MatchString(errs.String()) {
		ts.Fatalf("stderr does not match %s:\n%s", args[1], errs.String())
	}
	if why := unfitForPeople(errs.String()); why != "" {
		ts.Fatalf("%s:\n%s", why, errs.String())
	}
}

// codeInText finds the code of a refusal: in parentheses at the end of its sentence, or as a field of an object.
var codeInText = regexp.MustCompile(`(?m)^cartage: .*\(([a-z-]+)\)$|"reason":"([a-z-]+)"`)

// unfitForPeople says what is wrong with how a refusal is told: it has no code of the list, or words of the program.
func unfitForPeople(text string) string {
	for _, word := range []string{"goroutine ", "context canceled", "context deadline exceeded", "exit code", "ShardState", "piece info for cid", "DealStatus", "<nil>"} {
		if strings.Contains(text, word) {
			return "a person reads " + strconv.Quote(word)
		}
	}
	m := codeInText.FindStringSubmatch(text)
	if m == nil {
		return "it has no code"
	}
	if _, known := reason.Parse(m[1] + m[2]); !known {
		return "its code is not in the list"
	}
	return ""
}

// random FILE BYTES: pseudo-random bytes.
func random(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{7}), n)
	ts.Check(errors.Join(err, f.Close()))
}

type dealLine struct {
	Status    string `json:"status"`
	Bytes     uint64 `json:"bytes"`
	Owed      string `json:"owed"`
	Vouchered string `json:"vouchered"`
	Final     bool   `json:"final"`
}

func deals(ts *testscript.TestScript, home string) (out []dealLine) {
	data, err := command(ts, "--json", "--home", home, "deals").Output()
	ts.Check(err)
	for line := range bytes.Lines(data) {
		var d dealLine
		ts.Check(json.Unmarshal(line, &d))
		out = append(out, d)
	}
	return out
}

// await-bytes HOME BYTES: waits until a deal of the home has moved so much and is not final.
func awaitBytes(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, d := range deals(ts, args[0]) {
			if d.Bytes >= n {
				if d.Final {
					ts.Fatalf("the deal ended before it could be interrupted")
				}
				return
			}
		}
	}
	ts.Fatalf("no deal of %s has moved %d bytes", args[0], n)
}

// field FILE NAME VALUE: a JSON object in FILE has the value; a VALUE of sum:A,B,... sets up arithmetic a*b+c.
func field(ts *testscript.TestScript, _ bool, args []string) {
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	ts.Check(d.Decode(&v))
	if len(args) == 3 && strings.HasPrefix(args[2], "env:") {
		ts.Setenv(strings.TrimPrefix(args[2], "env:"), fmt.Sprint(v[args[1]]))
		return
	}
	if got := fmt.Sprint(v[args[1]]); got != args[2] {
		ts.Fatalf("%s is %s, want %s", args[1], got, args[2])
	}
}

// retry ARGS...: runs cartage until it succeeds.
func retry(ts *testscript.TestScript, _ bool, args []string) {
	var out []byte
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if out, err = command(ts, args...).CombinedOutput(); err == nil {
			return
		}
	}
	ts.Fatalf("%v: %v\n%s", args, err, out)
}

// await REGEXP ARGS...: runs cartage until what it prints matches; stdout is what it printed then.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	var out []byte
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, err = command(ts, args[1:]...).CombinedOutput(); err == nil && want.Match(out) {
			_, _ = ts.Stdout().Write(out)
			return
		}
	}
	ts.Fatalf("%v does not print %s: %v\n%s", args[1:], args[0], err, out)
}

// flip PATTERN PERCENT: changes one bit of the largest file that fits, at a place of its used part.
func flipBit(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	percent, err := strconv.Atoi(args[1])
	ts.Check(err)
	name, best := "", []byte(nil)
	for _, f := range files {
		data, err := os.ReadFile(f)
		ts.Check(err)
		if len(data) > len(best) {
			name, best = f, data
		}
	}
	used := len(bytes.TrimRight(best, "\x00"))
	if used == 0 {
		ts.Fatalf("no file of %s has anything", args[0])
	}
	best[min(used-1, used*percent/100)] ^= 1
	ts.Check(os.WriteFile(name, best, 0o600))
}

// tmpfs DIR SIZE: mounts a small disk of its own until the script ends.
func tmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(exec.Command("mount", "-t", "tmpfs", "-o", "mode=700,size="+args[1], "tmpfs", dir).Run())
	ts.Defer(func() { _ = exec.Command("umount", "-l", dir).Run() })
}

// TestScriptsRunToTheirEnd: stop is a verb of the library, which ends a script there and then as if all of it had passed.
func TestScriptsRunToTheirEnd(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if at := regexp.MustCompile(`(?m)^stop\b.*$`).FindString(string(data)); at != "" {
			t.Errorf("%s: %q: say end", f, at)
		}
	}
}
