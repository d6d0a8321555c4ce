package main

import (
	"context"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"
)

// settle closes every payment channel on the ledger.
func (d *demo) settle(ctx context.Context) error {
	d.result.Redeemed = "0"
	channels, err := d.provider.PayChannels(ctx)
	if err != nil {
		return err
	}
	d.result.PaymentChannels = len(channels)
	redeemed := new(big.Int)
	for _, ch := range channels {
		if err := d.provider.SettlePayCh(ctx, ch.Channel); err != nil {
			return err
		}
		after, err := d.provider.PayChannels(ctx)
		if err != nil {
			return err
		}
		for _, a := range after {
			if n, ok := new(big.Int).SetString(a.Redeemed, 10); ok && a.Channel == ch.Channel {
				redeemed.Add(redeemed, n)
			}
		}
		if err := d.collect(ctx, ch.Channel); err != nil {
			return err
		}
	}
	d.result.Redeemed = redeemed.String()
	return nil
}

// collect tries until the settle delay is over.
func (d *demo) collect(ctx context.Context, ch string) error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := d.provider.CollectPayCh(ctx, ch)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (d *demo) judge(ctx context.Context) {
	r := &d.result
	if a, err := d.ledger.API.Audit(ctx); err == nil {
		r.LedgerConserved = a.Conserved
	}
	for _, p := range d.procs {
		switch p.name {
		case "client":
			r.ClientRSS = peakRSS(p.cmd.Process.Pid)
		case "provider":
			r.ProviderRSS = peakRSS(p.cmd.Process.Pid)
		}
	}
	price, _ := new(big.Int).SetString(r.PricePerByte, 10)
	unseal, _ := new(big.Int).SetString(r.UnsealPrice, 10)
	due := price.Mul(price, new(big.Int).SetUint64(r.Bytes))
	due.Add(due, unseal)
	r.OK = r.ContentMatches && r.LedgerConserved && r.ClientStatus == "Completed" && r.ProviderStatus == "Completed" &&
		r.Owed == due.String() && r.Vouchered == r.Owed && r.Redeemed == r.Owed
	if d.f.free() {
		r.OK = r.OK && r.PaymentChannels == 0 && r.Vouchers == 0
	}
}

func (d *demo) print() error {
	r := d.result
	if d.c.json {
		return printJSON(os.Stdout, r)
	}
	yes := map[bool]string{true: "yes", false: "NO"}
	return d.c.show(r, [][2]string{
		{"root", r.Root}, {"piece CID", r.PieceCID},
		{"retrieved", fmt.Sprintf("%s in %d blocks over %s", size(r.Bytes), r.Blocks, r.Transport)},
		{"time", fmt.Sprintf("%.2f s (%.0f MiB/s)", r.Seconds, r.MiBPerSecond)},
		{"price", fmt.Sprintf("%s attoFIL a byte, %s before the first, paid every %s", r.PricePerByte, r.UnsealPrice, size(r.PaymentInterval))},
		{"owed", r.Owed + " attoFIL"}, {"vouchered", fmt.Sprintf("%s attoFIL in %d vouchers", r.Vouchered, r.Vouchers)}, {"redeemed", r.Redeemed + " attoFIL"},
		{"client's deal", r.ClientStatus}, {"provider's deal", r.ProviderStatus},
		{"file equals the source", yes[r.ContentMatches]}, {"no money made or lost", yes[r.LedgerConserved]},
		{"peak memory", fmt.Sprintf("client %s, provider %s", size(r.ClientRSS), size(r.ProviderRSS))},
		{"all as it should be", yes[r.OK]},
	})
}

// close stops the children and removes the homes.
func (d *demo) close() error {
	for _, f := range d.closers {
		f()
	}
	for i := len(d.procs) - 1; i >= 0; i-- {
		p := d.procs[i].cmd
		_ = p.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(5*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		timer.Stop()
	}
	if d.f.keep {
		note("homes kept in %v\n", d.dir)
		return nil
	}
	return os.RemoveAll(d.dir)
}

// peakRSS is VmHWM of a process, 0 where the system does not tell.
func peakRSS(pid int) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kb uint64
			_, _ = fmt.Sscan(rest, &kb)
			return kb << 10
		}
	}
	return 0
}
