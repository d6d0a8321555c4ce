// Command storage measures the storage side against other people's software and against ceilings, in one run, and prints a table:
//
//	go run -C bench ./storage [-mib 1024] [-records 8000000] > docs/benchmarks/storage.md
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// row is a line of the table.
type row struct {
	what, ours, other, ratio, bar string
	ok                            bool
}

// spent is what some work cost.
type spent struct {
	cpu, wall time.Duration
	peak      uint64 // bytes of heap above what there was before
}

// measure runs f and tells what it cost.
func measure(f func() error) (spent, error) {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base := m.HeapInuse
	var peak atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				if m.HeapInuse > base {
					peak.Store(max(peak.Load(), m.HeapInuse-base))
				}
			}
		}
	}()
	c, w := cpu(), time.Now()
	err := f()
	s := spent{cpu: cpu() - c, wall: time.Since(w)}
	close(stop)
	<-done
	s.peak = peak.Load()
	return s, err
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func sec(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mib(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

// against is a row that compares two costs.
func against(what string, ours, other time.Duration, bar float64, least bool) row {
	r := float64(ours) / float64(other)
	ok, sign := r <= bar, "at most"
	if least {
		r, sign = 1/r, "at least"
		ok = r >= bar
	}
	return row{what, sec(ours), sec(other), fmt.Sprintf("%.2f", r), fmt.Sprintf("%s %.2f", sign, bar), ok}
}

func main() {
	size := flag.Int64("mib", 1024, "size of files, MiB")
	records := flag.Int("records", 8_000_000, "records of the larger index; the smaller has a quarter")
	flag.Parse()
	dir, err := os.MkdirTemp("", "cartage-bench-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	var rows []row
	for _, f := range []func(context.Context, string, int64, int) ([]row, error){importing, indexing, shards, reading, commitments, idle} {
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			log.Fatal(err)
		}
		out, err := f(ctx, sub, *size<<20, *records)
		if err != nil {
			log.Fatal(err)
		}
		if err := os.RemoveAll(sub); err != nil {
			log.Fatal(err)
		}
		rows = append(rows, out...)
	}
	fmt.Printf("# Storage\n\nOne run of `go run -C bench ./storage -mib %d -records %d` on %d cores; ratios are within the run.\n\n", *size, *records, runtime.NumCPU())
	fmt.Println("| what | ours | other | ratio | bar | |\n|---|---|---|---|---|---|")
	for _, r := range rows {
		verdict := "met"
		if !r.ok {
			verdict = "**missed**"
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", r.what, r.ours, r.other, r.ratio, r.bar, verdict)
	}
}
