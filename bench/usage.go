package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what a process has used.
type usage struct {
	CPU   float64 `json:"cpu_seconds"`
	Alloc uint64  `json:"allocated_bytes"`
	RSS   uint64  `json:"peak_rss_bytes"`
	Idle  uint64  `json:"idle_rss_bytes"` // before the transfer
	Wall  float64 `json:"wall_seconds"`
}

// now reads what this process has used, and begins a new peak of its memory.
func now() usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{CPU: seconds(r.Utime) + seconds(r.Stime), Alloc: m.TotalAlloc, RSS: peak(), Wall: float64(time.Now().UnixNano()) / 1e9}
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	u.Idle = peak()
	return u
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// peak is the largest resident size since it was reset.
func peak() uint64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

func (u usage) since(before usage) usage {
	return usage{CPU: u.CPU - before.CPU, Alloc: u.Alloc - before.Alloc, RSS: u.RSS, Idle: before.Idle, Wall: u.Wall - before.Wall}
}

// profile writes a CPU profile of this process until the function that it returns is called, and what was allocated until then.
func profile(folder, kind string) (end func()) {
	if folder == "" {
		return func() {}
	}
	f, err := os.CreateTemp(folder, kind+"-*.pprof")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return func() {}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
		if f, err = os.Create(f.Name() + ".allocs"); err == nil {
			err = errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
