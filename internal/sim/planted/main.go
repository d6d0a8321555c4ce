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
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "plant this fault only")
	seeds := flag.Int("seeds", 300, "how many seeds of the simulator may pass before a fault counts as not caught")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *only, *seeds)
	stop()
	if err != nil {
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
	sim := &simulator{in: filepath.Join(root, simPackage), seeds: seeds, sound: filepath.Join(dir, "sound")}
	if err := build(ctx, root, "", sim.sound, simPackage); err != nil {
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
		by, err := f.caught(ctx, root, dir, sim)
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

// build makes the tests of a package, with the fault that an overlay plants, if there is one.
func build(ctx context.Context, root, overlay, bin, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", overlay, "-o", bin, pkg)
	if overlay == "" {
		cmd = exec.CommandContext(ctx, "go", "test", "-c", "-o", bin, pkg)
	}
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// caught tells what noticed the fault; nothing if nobody did.
func (f fault) caught(ctx context.Context, root, dir string, sim *simulator) (string, error) {
	overlay, err := f.overlay(root, dir)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "test")
	if f.test == "" {
		if err := build(ctx, root, overlay, bin, simPackage); err != nil {
			return "", err
		}
		return sim.notices(ctx, bin)
	}
	pkg, test, _ := strings.Cut(f.test, " ")
	if err := build(ctx, root, overlay, bin, pkg); err != nil {
		return "", err
	}
	return byTest(ctx, bin, filepath.Join(root, pkg), test)
}

func byTest(ctx context.Context, bin, in, test string) (string, error) {
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
