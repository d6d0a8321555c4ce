package main

// faults are what is planted, one of each kind.
var faults = []fault{
	{
		name: "a voucher leaves before it is stored", file: "paych/lanes.go",
		old: "err = o.updateSynced(ctx, p, func() (*laneRecord, error) {\n\t\tl := p.lanes[lane]",
		new: "err = o.updateLazy(ctx, p, func() (*laneRecord, error) {\n\t\tl := p.lanes[lane]",
	},
	{
		name: "an accepted voucher is not synced", file: "paych/acceptance.go",
		old: "return grown, in.ds.Sync(ctx, datastore.NewKey(\"/\"))",
		new: "return grown, func(datastore.Key) error { return ctx.Err() }(datastore.NewKey(\"/\"))",
	},
	{
		name: "the funds of an ended deal stay reserved", file: "paych/lanes.go",
		old: "next.Closed, next.Reserved = true, l.Amount\n\t\tp.rec.Reserved = big.Add(big.Sub(p.rec.Reserved, l.Reserved), l.Amount)",
		new: "next.Closed = true",
	},
	{
		name: "a deposit is sent before its intent is stored", file: "paych/deposit.go",
		old: "err = d.out.updateSynced(ctx, p, func() (*laneRecord, error) {\n\t\tif p.rec.Settling && !p.rec.Address.Empty() {",
		new: "err = d.out.updateLazy(ctx, p, func() (*laneRecord, error) {\n\t\tif p.rec.Settling && !p.rec.Address.Empty() {",
	},
	{
		name: "a deposit counts twice", file: "paych/deposit_message.go",
		old: "rec.Amount, rec.Address = big.Add(rec.Amount, rec.Pending), r.Channel",
		new: "rec.Amount, rec.Address = big.Add(rec.Amount, big.Add(rec.Pending, rec.Pending)), r.Channel",
	},
	{
		name: "a lane pays for two deals", file: "paych/voucher_book.go",
		old:  "case l != nil && !l.chainOnly && best.Deal != deal:",
		new:  "case false:",
		test: "./paych TestScenarios",
	},
	{
		name: "a settling channel is not redeemed", file: "paych/maintenance.go",
		old:  "if r.wallet.Has(info.To) {\n\t\treturn r.Redeem(ctx, ch)\n\t}",
		new:  "",
		test: "./paych TestTend",
	},
	{
		name: "a position counts repeated blocks once", file: "carstore/locate.go",
		old:  "l.pos.Blocks += t.links",
		new:  "_ = t.links",
		test: "./carstore TestDiamond",
	},
	{
		name: "a torn block is taken for whole", file: "carstore/heal.go",
		old:  "p.MhLength >= minDigest) && Verify(s.cid, s.data) == nil",
		new:  "p.MhLength >= minDigest)",
		test: "./carstore TestBadTail",
	},
	{
		name: "a power loss of the first page is not mended", file: "carstore/heal.go",
		old: "case s.fs != nil && tornOff(head, want):",
		new: "case s.fs != nil && tornOff(nil, nil):",
	},
	{
		name: "two vouchers have one nonce", file: "paych/lanes.go",
		old: "Nonce: l.Nonce + 1, Amount",
		new: "Nonce: max(1, l.Nonce), Amount",
	},
	{
		name: "a voucher beyond the deposit is taken", file: "paych/voucher_book.go",
		old:  "if promised.GreaterThan(info.Balance) {",
		new:  "if false {",
		test: "./paych TestScenarios",
	},
	{
		name: "the signature of a voucher is not checked", file: "paych/acceptance.go",
		old:  "if err := VerifyVoucher(v, info.From); err != nil {",
		new:  "if err := ctx.Err(); err != nil {",
		test: "./paych TestScenarios",
	},
	{
		name: "bytes that are not verified are paid", file: "internal/accounting/buyer.go",
		old: "due, most, have := t.Due(f.Verified)",
		new: "due, most, have := t.Due(add(f.Verified, 1))",
	},
	{
		name: "two intervals are lent instead of one", file: "internal/accounting/seller.go",
		old: "min(f.Loan, t.CurrentInterval(covered))",
		new: "add(t.CurrentInterval(covered), t.CurrentInterval(covered))",
	},
	{
		name: "the last bytes are not asked for", file: "internal/accounting/seller.go",
		old: "v.Demand = DemandLast",
		new: "v.Total = paid",
	},
	{
		name: "the unseal price is not waited for", file: "internal/accounting/seller.go",
		old: "case paid.LessThan(orZero(t.Unseal)):",
		new: "case false:",
	},
	{
		name: "what strangers are lent is not taken from the allowance", file: "internal/accounting/payers.go",
		old:  "p.level.Level -= l.Strangers",
		new:  "_ = p.level",
		test: "./internal/accounting TestEverNewKeys",
	},
	{
		name: "credit is counted for each deal alone", file: "internal/accounting/payers.go",
		old:  "if l.Payer == payer {",
		new:  "if false {",
		test: "./internal/accounting TestManyDealsOfOnePayer",
	},
	{
		name: "the provider's fault is the client's debt", file: "retrievalmarket/impl/credit.go",
		old:  "blame := pd.blame",
		new:  "blame := reason.Theirs",
		test: "./retrievalmarket/impl TestProviderFaultIsNoDebt",
	},
	{
		name: "a transfer is stored as finished before its file is synced", file: "datatransfer/impl/completion.go",
		old:  "if m.keep != nil {",
		new:  "if false {",
		test: "./internal/sim TestPowerLossBehindLastBlock",
	},
	{
		name: "a client's start does not look into its book", file: "retrievalmarket/impl/client_restart.go",
		old: "if best != nil && best.Amount.GreaterThan(d.FundsSpent) {",
		new: "if false {",
	},
	{
		name: "a provider's start does not look into its book", file: "retrievalmarket/impl/provider.go",
		old:  "if best != nil {",
		new:  "if best != nil && false {",
		test: "./retrievalmarket/impl TestStartLooksIntoBook",
	},
	{
		name: "a voucher that comes after the end is dropped", file: "retrievalmarket/impl/provider_payments.go",
		old:  "return endedDeals{p}.bookLate(ctx, chid, pay)",
		new:  "return nil, errDealOver",
		test: "./retrievalmarket/impl TestM02UnknownChannel",
	},
}
