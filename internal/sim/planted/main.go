// Command planted shows that the tests of money and transfers would notice if something were wrong: it plants one fault at a time into a copy
// of a file, and looks whether the simulator, or a named test, fails within its budget. A simulated seed that fails is run again ten times on one
// processor: the order of goroutines is not fixed by the seed, and has to matter little.
//
//	go run ./internal/sim/planted [-only NAME] [-seeds N]
//
// It ends with an error if a fault is not caught.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	replays = 10
	// replayed is how many of them have to fail again.
	replayed = 9
)

func main() {
	only := flag.String("only", "", "plant this fault only")
	seeds := flag.Int("seeds", 300, "how many seeds of the simulator may pass before a fault counts as not caught")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *seeds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, seeds int) error {
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	caught, all := 0, 0
	fmt.Printf("%-44s %-7s %s\n", "fault", "caught", "by")
	for _, f := range faults {
		if only != "" && f.name != only {
			continue
		}
		all++
		began := time.Now()
		by, err := f.caught(ctx, root, dir, seeds)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		word := "no"
		if by != "" {
			word = "yes"
			caught++
		}
		fmt.Printf("%-44s %-7s %s (%s)\n", f.name, word, by, time.Since(began).Round(time.Second))
	}
	fmt.Printf("%d of %d caught\n", caught, all)
	if caught < all || all == 0 {
		return fmt.Errorf("%d of %d planted faults are not caught", all-caught, all)
	}
	return nil
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
}

// fault is one wrong line, or a few.
type fault struct {
	name     string
	file     string
	old, new string // old is there exactly once
	test     string // a package and a test that notice it; empty: the simulator does
}

// apply returns the file with the fault in it.
func (f fault) apply(root string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(root, f.file))
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(data), f.old); n != 1 {
		return nil, fmt.Errorf("%s has the place of the fault %d times, not once: plant it anew", f.file, n)
	}
	return []byte(strings.Replace(string(data), f.old, f.new, 1)), nil
}

// overlay writes what the go command takes the file from instead.
func (f fault) overlay(root, dir string) (string, error) {
	data, err := f.apply(root)
	if err != nil {
		return "", err
	}
	changed, list := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, data, 0o600); err != nil {
		return "", err
	}
	raw, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, f.file): changed}})
	if err != nil {
		return "", err
	}
	return list, os.WriteFile(list, raw, 0o600)
}

// caught tells what noticed the fault; nothing if nobody did.
func (f fault) caught(ctx context.Context, root, dir string, seeds int) (string, error) {
	overlay, err := f.overlay(root, dir)
	if err != nil {
		return "", err
	}
	pkg, test := "./internal/sim", ""
	if f.test != "" {
		pkg, test, _ = strings.Cut(f.test, " ")
	}
	bin := filepath.Join(dir, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", overlay, "-o", bin, pkg)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the fault does not compile: %w\n%s", err, out)
	}
	if test != "" {
		return f.byTest(ctx, bin, filepath.Join(root, pkg), test)
	}
	return f.bySimulator(ctx, bin, filepath.Join(root, pkg), seeds)
}

func (f fault) byTest(ctx context.Context, bin, in, test string) (string, error) {
	cmd := exec.CommandContext(ctx, bin, "-test.run", "^"+test+"$", "-test.timeout", "5m", "-test.v")
	cmd.Dir = in
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && !strings.Contains(string(out), "--- PASS"):
		return "", fmt.Errorf("there is no test %s", test)
	case err == nil:
		return "", nil
	}
	return test, ctx.Err()
}

var firstSeed = regexp.MustCompile(`first failing seed: (\d+)`)

func (f fault) bySimulator(ctx context.Context, bin, in string, seeds int) (string, error) {
	simulate := func(procs, n, from string) (string, error) {
		cmd := exec.CommandContext(ctx, bin, "-test.run", "^TestSeeds$", "-test.timeout", "20m", "-sim.first", "-sim.stuck", "60s", "-sim.seeds", n, "-sim.from", from)
		cmd.Dir = in
		cmd.Env = append(os.Environ(), procs)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	from := 1
	for from <= seeds {
		out, err := simulate("CARTAGE=1", fmt.Sprint(seeds-from+1), fmt.Sprint(from))
		if err == nil {
			return "", nil
		}
		m := firstSeed.FindStringSubmatch(out)
		if m == nil {
			return "the simulator, which does not get to an end", ctx.Err()
		}
		again := 0
		for range replays {
			if _, err := simulate("GOMAXPROCS=1", "1", m[1]); err != nil {
				again++
			}
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if again >= replayed {
			return fmt.Sprintf("seed %s, %d of %d replays", m[1], again, replays), nil
		}
		if _, err := fmt.Sscan(m[1], &from); err != nil { // that seed depends on the order of goroutines: a later one may not
			return "", err
		}
		from++
	}
	return "", nil
}
