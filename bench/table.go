package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// summary is the median of a row with its spread.
type summary struct {
	row, dag       string
	n              int
	cpu, low, high float64 // CPU seconds of both ends for each GiB
	rate, rateHigh float64 // MiB a second
	client, server uint64
	idle, rests    uint64  // of the client and the server, before
	most           [2]int  // goroutines of the client and the server
	alloc          float64 // bytes for each byte
	signed         float64 // vouchers for each GiB
	failed         string
}

func summarize(all []sample, row, dag string) (s summary, ok bool) {
	s.row, s.dag = row, dag
	var cpu, rate, alloc, signed []float64
	var client, server, idle, rests []uint64
	for _, x := range all {
		if x.Row != row || x.DAG != dag {
			continue
		}
		ok = true
		if x.Error != "" {
			s.failed = x.Error
			continue
		}
		gib := float64(x.Bytes) / (1 << 30)
		cpu, rate = append(cpu, x.CPU/gib), append(rate, gib*1024/x.Wall)
		alloc, signed = append(alloc, float64(x.Alloc)/float64(x.Bytes)), append(signed, float64(x.Signed)/gib)
		s.most = [2]int{max(s.most[0], x.Most[0]), max(s.most[1], x.Most[1])}
		client, server, idle, rests = append(client, x.Client), append(server, x.Server), append(idle, x.Idle), append(rests, x.Rests)
	}
	s.n = len(cpu)
	if s.n > 0 {
		s.cpu, s.low, s.high, s.rate, s.rateHigh, s.alloc = median(cpu), slices.Min(cpu), slices.Max(cpu), median(rate), slices.Max(rate), median(alloc)
		s.signed = median(signed)
		s.client, s.server, s.idle, s.rests = median(client), median(server), median(idle), median(rests)
	}
	return s, ok
}

func median[T float64 | uint64](v []T) T {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// intro says what was measured and how.
func intro(o options) string {
	if o.set == "conditions" {
		return fmt.Sprintf(`# Moving blocks where something is slow

Written by `+"`go run -C bench . -set conditions -mib %d -rounds %d`"+`, as [README.md](README.md) is. A store of 30 MB/s throws its blocks away
no faster than that; a link is simulated by a proxy in the client's process with a rate, a delay of 25 ms each way and no loss. The
payment interval of a paid deal is 8 MiB, and its client pays ahead each MiB. The rounds are in [conditions.json](conditions.json).
`, o.size>>20, o.rounds)
	}
	if o.set == "crowd" {
		return fmt.Sprintf(`# A crowd at one piece

Written by `+"`go run -C bench . -set crowd -mib %d -rounds %d`"+`, as [README.md](README.md) is: the server is a node as it is run, with the DAG as a
piece on its disk; the clients have a connection each, made in the measured time, and throw away what they verified. The bound of a provider with
64 of them is 128 MiB over idle. Over graphsync it is missed: what is read for each response, its encodings and the queue of each peer stand in
memory beside each other, and the collector lets them double. The rounds are in [crowd.json](crowd.json).
`, o.size>>20, o.rounds)
	}
	if o.set == "file" {
		return fmt.Sprintf(`# Deals into CARv2 files

Written by `+"`go run -C bench . -set file -mib %d -rounds %d`"+`, as [README.md](README.md) is, but what arrives is kept in a CARv2 file, as
a retrieval of a user is. A voucher is signed for each MiB in either row of a deal; with an interval of 1 MiB the sender waits for it, with one of 8 MiB
it does not. The rounds are in [file.json](file.json).
`, o.size>>20, o.rounds)
	}
	if o.set == "many" {
		return fmt.Sprintf(`# A thousand deals at once

Written by `+"`go run -C bench . -set many -mib %d -rounds %d`"+`, as [README.md](README.md) is: a transfer for each MiB, all begun at once or
as many as a row says, to one server. A deal has signed vouchers and synced books; its payment channel is open. The rounds are in [many.json](many.json).

Why deals miss their bar: beside hashing, encrypting and copying, which the archives cost too, a deal has a query of terms, an acceptance, a signed
voucher, about twenty records and five flushes at both ends, 2.7 ms of CPU in all; no part of it is more than a tenth.
`, o.size>>20, o.rounds)
	}
	return fmt.Sprintf(`# Moving blocks between two processes

Written by `+"`go run -C bench . -mib %d -rounds %d`"+`: client and server are processes of their own on one machine of two cores, over
loopback TCP; the server has the DAG in memory, the client verifies and throws away. Each number is the median of interleaved rounds.
CPU is that of both ends, in seconds for each GiB, with the lowest and highest round; the ratio is to the first row of the same DAG.
The DAG of 1 KiB leaves has at most 100,000 of them.
What the rounds were is in [transports.json](transports.json). The other tables are [datatransfer.md](datatransfer.md), [market.md](market.md),
[file.md](file.md), [many.md](many.md), [conditions.md](conditions.md) and [crowd.md](crowd.md).

Why rows miss their bar. With an interval of 1 MiB the sender stops at each: what came has to be verified, a voucher signed, flushed, sent, checked
and flushed before it goes on. Beside the voucher the wakings, messages and records of that stop cost about 1.1 ms of CPU at both ends, for the
deal into a file as well; an interval of 8 MiB does not stop. A paid deal allocates about 130 KiB for each voucher (messages, records and
events in their encodings), of which the voucher alone is 15.

![CPU seconds for each GiB](transports.svg)
`, o.size>>20, o.rounds)
}

func table(all []sample, o options) string {
	var b strings.Builder
	b.WriteString(intro(o))
	for _, d := range o.dags {
		fmt.Fprintf(&b, "\n## %s\n\n| row | CPU-s/GiB | spread | ratio | MiB/s | client peak RSS, over idle | server peak RSS, over idle | allocated for each byte | vouchers for each GiB | most goroutines, client and server | bar |\n|---|---|---|---|---|---|---|---|---|---|---|\n", d.name)
		base := 0.0
		for _, r := range o.rows {
			s, ok := summarize(all, r.name, d.name)
			if !ok {
				continue
			}
			if s.n == 0 {
				fmt.Fprintf(&b, "| %s | failed: %s | | | | | | | | | |\n", s.row, s.failed)
				continue
			}
			if base == 0 {
				base = s.cpu
			}
			fmt.Fprintf(&b, "| %s | %.2f | %.2f to %.2f | %.2f | %.0f | %d MiB, %d | %d MiB, %d | %.2f | %.0f | %d, %d | %s |\n", s.row, s.cpu, s.low, s.high, s.cpu/base, s.rate, s.client>>20, (s.client-min(s.client, s.idle))>>20, s.server>>20, (s.server-min(s.server, s.rests))>>20, s.alloc, s.signed, s.most[0], s.most[1],
				r.bar.text(s, d, func(name string) summary { o, _ := summarize(all, name, d.name); return o }))
		}
	}
	return b.String()
}

// plot draws the CPU of each row as bars, one group for each DAG.
func plot(all []sample, o options) string {
	const wide, bar, gap, left = 900, 18, 30, 330
	var b strings.Builder
	y := gap
	body := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, d := range o.dags {
		body(`<text x="10" y="%d" font-weight="bold">%s: CPU seconds of both ends for each GiB</text>`, y, html.EscapeString(d.name))
		y += 10
		top := 0.0
		for _, r := range o.rows {
			s, _ := summarize(all, r.name, d.name)
			top = max(top, s.cpu)
		}
		for _, r := range o.rows {
			s, ok := summarize(all, r.name, d.name)
			if !ok || s.n == 0 {
				continue
			}
			fill := "#9aa7b5"
			if strings.HasPrefix(r.name, "Cartage") {
				fill = "#2f6fb3"
			}
			body(`<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+bar-5, html.EscapeString(r.name))
			body(`<rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/>`, left, y+2, s.cpu/top*(wide-left-80), bar-4, fill)
			body(`<text x="%.0f" y="%d">%.2f</text>`, left+s.cpu/top*(wide-left-80)+6, y+bar-5, s.cpu)
			y += bar
		}
		y += gap
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%s</svg>\n", wide, y, b.String())
}
