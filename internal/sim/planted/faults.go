package main

// faults are what is planted, one of each kind.
var faults = []fault{
	{
		name: "a voucher leaves before it is stored", file: "paych/lanes.go",
		old: "err = m.change(ctx, p, func() (*laneRecord, error) {\n\t\tl := p.lanes[lane]",
		new: "err = m.note(ctx, p, func() (*laneRecord, error) {\n\t\tl := p.lanes[lane]",
	},
	{
		name: "an accepted voucher is not synced", file: "paych/payee.go",
		old: "return grown, m.ds.Sync(ctx, datastore.NewKey(\"/\"))",
		new: "_ = datastore.NewKey\n\treturn grown, nil",
	},
	{
		name: "the funds of an ended deal stay reserved", file: "paych/lanes.go",
		old: "next.Closed, next.Reserved = true, l.Amount\n\t\tp.rec.Reserved = big.Add(big.Sub(p.rec.Reserved, l.Reserved), l.Amount)",
		new: "next.Closed = true",
	},
	{
		name: "a deposit is sent before its intent is stored", file: "paych/queue.go",
		old: "err = m.change(ctx, p, func() (*laneRecord, error) {\n\t\tif p.rec.Settling && !p.rec.Address.Empty() {",
		new: "err = m.note(ctx, p, func() (*laneRecord, error) {\n\t\tif p.rec.Settling && !p.rec.Address.Empty() {",
	},
	{
		name: "a deposit counts twice", file: "paych/flight.go",
		old: "rec.Amount, rec.Address = big.Add(rec.Amount, rec.Pending), r.Channel",
		new: "rec.Amount, rec.Address = big.Add(rec.Amount, big.Add(rec.Pending, rec.Pending)), r.Channel",
	},
	{
		name: "a lane pays for two deals", file: "paych/payee.go",
		old:  "case l != nil && !l.chainOnly && best.Deal != deal:",
		new:  "case false:",
		test: "./paych TestScenarios",
	},
	{
		name: "a settling channel is not redeemed", file: "paych/cash.go",
		old:  "if m.wallet.Has(info.To) {\n\t\treturn m.Redeem(ctx, ch)\n\t}",
		new:  "",
		test: "./paych TestTend",
	},
	{
		name: "a position counts repeated blocks once", file: "carstore/locate.go",
		old: "l.pos.Blocks += t.links",
		new: "_ = t.links",
	},
	{
		name: "a torn block is taken for whole", file: "carstore/carstore.go",
		old: "if err != nil || Verify(sec.cid, sec.data) != nil {",
		new: "if err != nil {",
	},
	{
		name: "a power loss of the first page is not mended", file: "carstore/carstore.go",
		old: "; tornOff(head, want) {",
		new: "; tornOff(nil, nil) {",
	},
}
