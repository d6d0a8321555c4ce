package accounting

import (
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// Link is what may have happened to messages between the two sides.
type Link uint8

// A link is fresh until a connection was lost or a side restarted: then messages of either side may be missing.
const (
	LinkFresh Link = iota
	LinkRestarted
)

// QuietAfter is how long a client waits for bytes that a provider asks money for before it pays what is due without them, or sends its
// last voucher again.
const QuietAfter = time.Second

// MaxRepeats bounds how often the same voucher is sent again, and how long a provider may deny to have it.
const MaxRepeats = 8

// BuyerFacts is what a client knows of a deal when it decides whether to pay.
type BuyerFacts struct {
	Verified  uint64          // bytes, each block once
	Whole     bool            // everything that was asked for is here
	Vouchered abi.TokenAmount // the highest total that was signed, in attoFIL
	// Requested is the total that the provider asks for, in attoFIL, and Demand what it says to wait for.
	Requested abi.TokenAmount
	Demand    DemandKind
	// Window is how many bytes may be paid for before they are verified, 0 for a provider that sends first. Size bounds that; where nobody told it, only
	// what is asked for is paid in advance.
	Window, Size uint64
	// Asked is how many bytes may be paid for before they are verified when the provider asks for them, if that is more than Window: for a block that is
	// larger than an interval.
	Asked uint64
	// Ahead says that the provider takes vouchers that it did not ask for, of Step bytes each.
	Ahead bool
	Step  uint64
	Link  Link
	// Quiet says that no byte came for QuietAfter, doubled with each repeat, although the provider is said to have sent some.
	Quiet   bool
	Repeats int             // of the last voucher since the last byte
	Budget  abi.TokenAmount // of the deal, in attoFIL
}

// ActionKind is what a client does about money.
type ActionKind uint8

// What a client may do. Each wait has somebody who ends it and an end of its own.
const (
	ActionWait     ActionKind = iota // for Action.For, at most Action.Until
	ActionPay                        // a voucher of Action.Amount in all
	ActionRepeat                     // the last voucher once more
	ActionRefuse                     // the provider asks for what was never agreed
	ActionTopUp                      // Action.Amount is missing in the budget
	ActionOverpaid                   // all is here and paid, and the provider asks for more: the deal is over, by its fault
)

// WaitFor is who ends a wait.
type WaitFor uint8

// A client waits for blocks that are on their way, for the provider's answer to a voucher, or for nothing: no payment is asked for.
const (
	WaitForNothing WaitFor = iota
	WaitForBlocks
	WaitForAnswer
)

// Action is a decision to pay or not to. It is a conclusion from facts and is stored nowhere.
type Action struct {
	Kind   ActionKind
	Amount abi.TokenAmount // attoFIL
	For    WaitFor
	Until  time.Duration
}

func waitFor(w WaitFor, repeats int) Action {
	if w == WaitForNothing {
		return Action{For: w}
	}
	return Action{For: w, Until: QuietAfter << min(repeats, MaxRepeats)}
}

// payable is the most that may be signed now: what is due for verified bytes, and a window beyond it.
func payable(t Terms, f BuyerFacts, window uint64) abi.TokenAmount {
	to := add(f.Verified, window)
	if f.Size > 0 {
		to = max(f.Verified, min(to, f.Size))
	}
	return t.Due(to)
}

// Decide is the client's only decision to pay. It never pays more than what is due for verified bytes and the agreed window, pays what is due
// and not what is asked for, and takes a request as a sign that the provider waits: requests and vouchers may cross, repeat or get lost.
func Decide(t Terms, f BuyerFacts) Action {
	due, most, have := t.Due(f.Verified), payable(t, f, max(f.Window, f.Asked)), orZero(f.Vouchered)
	asked := orZero(f.Requested)
	switch {
	case f.Demand == DemandNothing:
		return unasked(t, f)
	case f.Demand == DemandUnseal && f.Verified == 0 && asked.GreaterThan(most):
		return Action{Kind: ActionRefuse} // no byte can be on its way that would make it right
	case (runsLow(t, f) || f.Window > 0 && f.Quiet) && inAdvance(f, big.Min(most, big.Max(asked, due))).GreaterThan(have):
		return pay(f, inAdvance(f, big.Min(most, big.Max(asked, due))))
	case f.Window > 0 && f.Quiet && !f.Whole && big.Min(most, asked).GreaterThan(have) && have.GreaterThanEqual(orZero(f.Budget)):
		return pay(f, big.Min(most, asked)) // what is left of the budget does not pay for the block that waits
	case due.GreaterThan(have) && (asked.LessThanEqual(due) || f.Whole || f.Quiet):
		return pay(f, due)
	case due.GreaterThan(have): // the bytes that are asked for are on their way, or a voucher is
		return waitFor(WaitForBlocks, f.Repeats)
	case have.IsZero(): // nothing is due, and nothing was signed
		if asked.IsZero() || f.Whole {
			return waitFor(WaitForNothing, 0)
		}
		return waitFor(WaitForBlocks, f.Repeats)
	case f.Demand == DemandLast && f.Whole && f.Repeats == 0 && f.Link == LinkRestarted: // it may never have got it
		return Action{Kind: ActionRepeat}
	case !f.Quiet:
		return waitFor(WaitForAnswer, f.Repeats)
	case f.Repeats < MaxRepeats:
		return Action{Kind: ActionRepeat}
	case f.Whole:
		return Action{Kind: ActionOverpaid}
	}
	return Action{Kind: ActionRefuse} // it denies its voucher and sends nothing
}

// unasked is the decision while the provider waits for nothing.
func unasked(t Terms, f BuyerFacts) Action {
	due, have := t.Due(f.Verified), orZero(f.Vouchered)
	switch ahead := t.PaidBytes(have); {
	case orZero(t.Price).Sign() == 0:
	case f.Size > 0 && runsLow(t, f) && inAdvance(f, payable(t, f, f.Window)).GreaterThan(have):
		return pay(f, inAdvance(f, payable(t, f, f.Window)))
	case f.Ahead && due.GreaterThan(have) && (f.Whole || f.Verified-min(f.Verified, ahead) >= f.Step):
		return pay(f, due)
	}
	return waitFor(WaitForNothing, 0)
}

// runsLow reports whether half of what was paid in advance has come, and more will: a voucher for each half keeps the stream going.
func runsLow(t Terms, f BuyerFacts) bool {
	return f.Window > 0 && !f.Whole && t.PaidBytes(orZero(f.Vouchered)) <= add(f.Verified, f.Window/2)
}

// inAdvance is what of a total can be paid before it is due: the rest of the budget, or nothing while all is here.
func inAdvance(f BuyerFacts, total abi.TokenAmount) abi.TokenAmount {
	if f.Whole {
		return big.Zero()
	}
	return big.Min(total, orZero(f.Budget))
}

func pay(f BuyerFacts, total abi.TokenAmount) Action {
	if short := big.Sub(total, orZero(f.Budget)); short.Sign() > 0 {
		return Action{Kind: ActionTopUp, Amount: short}
	}
	return Action{Kind: ActionPay, Amount: total}
}

// NextPayment is the number of verified bytes from which on Decide may do something else than wait, while nothing but bytes comes.
func NextPayment(t Terms, f BuyerFacts) uint64 {
	paid := t.PaidBytes(orZero(f.Vouchered))
	switch {
	case f.Window > 0 && (f.Size > 0 || f.Demand != DemandNothing):
		return paid - min(paid, f.Window/2)
	case f.Demand != DemandNothing:
		return t.PaidBytes(orZero(f.Requested))
	}
	return add(paid, f.Step)
}
