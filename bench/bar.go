package main

import (
	"fmt"
	"strings"
)

// bar is what a row must reach against others of the same DAG in the same run.
type bar struct {
	of       []string // rows whose CPU is added up, or the row whose rate counts
	most     float64  // of their CPU
	most1KiB float64  // the same for blocks of 1 KiB, if it is another
	least    float64  // of the rate
	alloc    float64  // allocated bytes for each byte at most, for blocks of 256 KiB and more
}

// text says whether the median of a row reached its bar. A row of which a round did is a tie.
func (b *bar) text(s summary, d dag, of func(name string) summary) string {
	if b == nil {
		return ""
	}
	var cpu, rate float64
	for _, name := range b.of {
		o := of(name)
		if o.n == 0 {
			return "" // not measured in this run
		}
		cost := o.cpu
		if name == vouchersAlone && o.signed > 0 && s.signed > 0 { // for as many vouchers as were signed
			cost *= s.signed / o.signed
		}
		cpu, rate = cpu+cost, o.rate
	}
	if cpu == 0 || rate == 0 {
		return ""
	}
	what := "row: " + b.of[0]
	if len(b.of) > 1 {
		what = "sum, for as many vouchers, of: " + strings.Join(b.of, "; ")
	}
	if b.least > 0 {
		return fmt.Sprintf("%.2f of the rate, at least %.2f: %s (%s)", s.rate/rate, b.least, verdict(s.rate/rate >= b.least, s.rateHigh/rate >= b.least), what)
	}
	most := b.most
	if b.most1KiB > 0 && d.leaf == 1<<10 {
		most = b.most1KiB
	}
	text := fmt.Sprintf("%.2f of the CPU, at most %.2f: %s (%s)", s.cpu/cpu, most, verdict(s.cpu/cpu <= most, s.low/cpu <= most), what)
	if b.alloc > 0 && d.leaf >= 256<<10 {
		text += fmt.Sprintf("; %.2f allocated, at most %.2f: %s", s.alloc, b.alloc, verdict(s.alloc <= b.alloc, false))
	}
	return text
}

func verdict(met, maybe bool) string {
	switch {
	case met:
		return "met"
	case maybe:
		return "tie"
	}
	return "**missed**"
}
