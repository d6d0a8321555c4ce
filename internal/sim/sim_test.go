package sim_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/sim"
)

var (
	seeds  = flag.Uint64("sim.seeds", 50, "how many seeds are run")
	from   = flag.Uint64("sim.from", 1, "the first of them")
	traces = flag.String("sim.traces", "", "folder for the traces of seeds that fail")
	strict = flag.Bool("sim.strict", false, "let findings of kinds that are known to be open fail too")
	skip   = flag.String("sim.skip", "", "seeds that are left out, with commas")
	first  = flag.Bool("sim.first", false, "end after the first seed that fails")
	debug  = flag.Bool("sim.debug", false, "print what the parties log")
	stuck  = flag.Duration("sim.stuck", time.Minute, "real time after which a seed is taken to stand still")
)

// TestSeeds runs a plan for each seed. One that fails prints its plan, its findings and its trace; run it again with -sim.seeds=1 -sim.from=SEED.
func TestSeeds(t *testing.T) {
	if testing.Short() {
		*seeds = min(*seeds, 10)
	}
	if *debug {
		slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}
	began := cpu(t)
	all := tally{next: *from}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed, ok := all.take(); ok; seed, ok = all.take() {
				all.add(seed, run(t, seed))
			}
		})
	}
	workers.Wait()
	bad, known, deals, completed := all.bad, all.known, all.deals, all.completed
	if len(bad) > 0 {
		fmt.Printf("failing seeds: %s\n", strings.Trim(fmt.Sprint(bad), "[]"))
	}
	if *first && len(bad) > 0 {
		fmt.Printf("first failing seed: %d\n", slices.Min(bad))
	}
	slices.Sort(bad)
	slices.Sort(known)
	t.Logf("%d seeds from %d: %d deals, %d orders completed, %d seeds failed %v, %d with findings that are known to be open %v, %.1f ms of CPU a seed",
		*seeds, *from, deals, completed, len(bad), bad, len(known), known, 1000*(cpu(t)-began)/float64(*seeds))
	t.Logf("%d seeds with attacks, of the bytes that may be taken unpaid at most %.0f %% were", all.attacked, 100*all.taken)
	if *seeds >= 20 && !*first {
		require.Positive(t, completed)
	}
}

// tally hands out seeds and counts what came of them.
type tally struct {
	mu               sync.Mutex
	next             uint64
	bad, known       []uint64
	deals, completed int
	attacked         int
	taken            float64 // of what may be, at most
}

func (a *tally) take() (seed uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for slices.Contains(strings.Split(*skip, ","), fmt.Sprint(a.next)) {
		a.next++
	}
	if a.next >= *from+*seeds || *first && len(a.bad) > 0 {
		return 0, false
	}
	a.next++
	return a.next - 1, true
}

func (a *tally) add(seed uint64, r sim.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deals, a.completed = a.deals+r.Deals, a.completed+r.Completed
	if r.Bound > 0 {
		a.attacked, a.taken = a.attacked+1, max(a.taken, float64(r.Taken)/float64(r.Bound))
	}
	switch {
	case len(unknown(r.Findings)) > 0:
		a.bad = append(a.bad, seed)
	case len(r.Findings) > 0:
		a.known = append(a.known, seed)
	}
}

// run runs one seed and reports what it found.
func run(t *testing.T, seed uint64) (r sim.Result) {
	t.Helper()
	plan := sim.NewPlan(seed)
	defer watch(t, plan)()
	t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r = sim.Run(context.Background(), plan)
			report(t, plan, r)
		})
	})
	return r
}

// watch ends the test with all goroutines printed if a seed stands still in real time: somebody holds a lock while it waits.
func watch(t *testing.T, plan sim.Plan) (stop func() bool) {
	return time.AfterFunc(*stuck, func() {
		buf := make([]byte, 4<<20)
		fmt.Fprintf(os.Stderr, "seed %d stands still\n%s\n%s\n", plan.Seed, plan, buf[:runtime.Stack(buf, true)])
		os.Exit(2)
	}).Stop
}

const longTrace = 150

func report(t *testing.T, plan sim.Plan, r sim.Result) {
	if len(r.Findings) == 0 {
		return
	}
	bad := unknown(r.Findings)
	trace := r.Trace
	if *traces != "" {
		name := filepath.Join(*traces, fmt.Sprintf("seed-%d.txt", plan.Seed))
		text := plan.String() + strings.Join(r.Findings, "\n") + "\n" + strings.Join(trace, "\n") + "\n"
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	if len(bad) == 0 {
		return
	}
	if len(trace) > longTrace {
		trace = append(append([]string{}, trace[:longTrace/2]...), trace[len(trace)-longTrace/2:]...)
	}
	t.Errorf("%s\n%s\n%s", plan, strings.Join(r.Findings, "\n"), strings.Join(trace, "\n"))
}

func cpu(t *testing.T) float64 {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
