package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

const (
	simPackage = "./internal/sim"
	replays    = 10
	// replayed is how many of them have to fail again.
	replayed = 9
	// soundRuns is how often a seed that fails with a fault has to pass without it.
	soundRuns = 3
)

// simulator runs seeds, of a program with a fault and of the one without.
type simulator struct {
	in    string
	seeds int
	sound string // the tests without a fault
	skip  []string
	known bool // skip has the seeds that fail without a fault
}

var (
	firstSeed    = regexp.MustCompile(`first failing seed: (\d+)`)
	failingSeeds = regexp.MustCompile(`failing seeds: ([\d ]+)`)
)

// run runs n seeds, with every kind of finding, and returns what was printed and whether one failed.
func (s *simulator) run(ctx context.Context, bin, n, from string, more ...string) (string, bool) {
	args := append([]string{"-test.run", "^TestSeeds$", "-test.timeout", "30m", "-sim.strict", "-sim.stuck", "60s", "-sim.seeds", n, "-sim.from", from,
		"-sim.skip", strings.Join(s.skip, ",")}, more...)
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env = s.in, os.Environ()
	if n == "1" {
		cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	}
	out, err := cmd.CombinedOutput()
	return string(out), err != nil
}

// learn finds the seeds that fail without any fault: they would tell nothing.
func (s *simulator) learn(ctx context.Context) {
	if s.known {
		return
	}
	s.known = true
	out, _ := s.run(ctx, s.sound, fmt.Sprint(s.seeds), "1")
	if m := failingSeeds.FindStringSubmatch(out); m != nil {
		s.skip = strings.Fields(m[1])
	}
}

// notices tells which seed fails because of a fault; nothing if none does.
func (s *simulator) notices(ctx context.Context, bin string) (string, error) {
	s.learn(ctx)
	for from := 1; from <= s.seeds; from++ {
		out, failed := s.run(ctx, bin, fmt.Sprint(s.seeds-from+1), fmt.Sprint(from), "-sim.first")
		if !failed {
			return "", ctx.Err()
		}
		m := firstSeed.FindStringSubmatch(out)
		if m == nil { // it panicked, or stood still
			return "the simulator, which does not get to an end", ctx.Err()
		}
		if n := s.fails(ctx, bin, m[1], replays); n >= replayed && s.fails(ctx, s.sound, m[1], soundRuns) == 0 {
			return fmt.Sprintf("seed %s, %d of %d replays", m[1], n, replays), ctx.Err()
		}
		if _, err := fmt.Sscan(m[1], &from); err != nil { // that seed depends on the order of goroutines: a later one may not
			return "", err
		}
	}
	return "", ctx.Err()
}

// fails counts how often a seed fails.
func (s *simulator) fails(ctx context.Context, bin, seed string, times int) (n int) {
	for range times {
		if _, failed := s.run(ctx, bin, "1", seed); failed {
			n++
		}
	}
	return n
}
