package download

import (
	"slices"
	"time"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Clock of an order.
const (
	// Lease is how long a command's order runs after its holder was last heard of.
	Lease = 15 * time.Second
	// firstWait and lastWait bound the pause before an order that waits tries again; it doubles.
	firstWait = 5 * time.Second
	lastWait  = 10 * time.Minute
)

// event names what happens to an order.
type event string

const (
	evRenew     event = "renew"     // its holder is there
	evBind      event = "bind"      // it has another deal
	evTick      event = "tick"      // time has passed
	evPark      event = "park"      // it is to stop running, or waiting
	evCancel    event = "cancel"    // it is not wanted any more
	evResume    event = "resume"    // somebody asks for it again
	evParked    event = "parked"    // it has stopped
	evWaits     event = "waits"     // it cannot go on now
	evDone      event = "done"      // everything is here
	evFailed    event = "failed"    // it cannot go on at all
	evCancelled event = "cancelled" // it has stopped for good
)

// change is what evResume brings.
type change struct {
	request *Order // nil: as it was
}

// leave notes why a running order is to stop; that it is not wanted any more counts most.
func leave(o *Order, why reason.Reason) error {
	if o.leaving == reason.None || why == reason.Cancelled {
		o.leaving = why
	}
	return nil
}

func end(o *Order, why reason.Reason) error {
	o.Reason, o.leaving = why, reason.None
	return nil
}

func resume(o *Order, c change) error {
	o.Reason, o.leaving = reason.None, reason.None
	if r := c.request; r != nil {
		o.tries = 0
		o.Want, o.Providers, o.Transport, o.MaxExposure, o.Output, o.Owner = r.Want, r.Providers, r.Transport, r.MaxExposure, r.Output, r.Owner
		if r.Budget != nil {
			o.Budget = r.Budget
		}
	}
	return nil
}

// wait sets when an order tries again; one that got something meanwhile begins anew with its pauses.
func wait(o *Order, why reason.Reason, moved bool) error {
	if moved {
		o.tries = 0
	}
	pause := lastWait
	if o.tries < 7 {
		pause = min(lastWait, firstWait<<o.tries)
	}
	o.tries++
	o.next = time.Now().Add(pause)
	return end(o, why)
}

// events is the table. What a running order does is done by its runner, which ends it with one of the last five; a park or a cancel only
// tells the runner, so that what is due is paid while the order still may.
var events = fsm.Events{
	fsm.Event(evRenew).From(Running).ToJustRecord(),
	fsm.Event(evBind).From(Running).ToJustRecord().Action(func(o *Order, d uint64) error {
		if !slices.Contains(o.Deals, Deal(d)) {
			o.Deals = append(slices.Clone(o.Deals), Deal(d))
		}
		return nil
	}),
	fsm.Event(evTick).FromMany(Running, Waiting).ToNoChange().Action(func(o *Order) error {
		if o.State == Running && o.Owner == Command {
			return leave(o, reason.ParkedLease)
		}
		return nil
	}),
	fsm.Event(evPark).From(Running).ToNoChange().From(Waiting).To(Parked).Action(func(o *Order, why reason.Reason) error {
		if o.State == Running {
			return leave(o, why)
		}
		return end(o, why)
	}),
	fsm.Event(evCancel).From(Running).ToNoChange().FromMany(Waiting, Parked).To(Cancelled).Action(func(o *Order) error {
		if o.State == Running {
			return leave(o, reason.Cancelled)
		}
		return end(o, reason.Cancelled)
	}),
	fsm.Event(evResume).FromMany(Waiting, Parked).To(Running).From(Running).ToJustRecord().Action(resume),
	fsm.Event(evParked).From(Running).To(Parked).Action(end),
	fsm.Event(evWaits).From(Running).To(Waiting).Action(wait),
	fsm.Event(evDone).From(Running).To(Done).Action(func(o *Order) error { return end(o, reason.None) }),
	fsm.Event(evFailed).From(Running).To(Failed).Action(end),
	fsm.Event(evCancelled).From(Running).To(Cancelled).Action(func(o *Order) error { return end(o, reason.Cancelled) }),
}

// Spec is the machine of an order; lease and wait are the deadlines of one that runs and one that waits.
func Spec(lease, wait time.Duration) fsm.Spec[Order] {
	return fsm.Spec[Order]{
		Name: "order", Events: events, Final: []fsm.StateKey{Done, Failed, Cancelled},
		Entry: fsm.StateEntryFuncs{Running: enterRunning, Waiting: enterWaiting},
		Deadlines: map[fsm.StateKey]fsm.Deadline{
			Running: {After: lease, Event: evTick}, Waiting: {After: wait, Event: evTick}, Parked: fsm.Never("waits for a person"),
		},
		State: func(o *Order) fsm.StateKey { return o.State }, SetState: func(o *Order, s fsm.StateKey) { o.State = s.(State) },
		StateName: func(s fsm.StateKey) string { return s.(State).String() }, EventName: func(e fsm.EventName) string { return string(e.(event)) },
	}
}

// enterRunning starts the work on an order, or ends it.
func enterRunning(_ fsm.Context, c *owner, o Order) error {
	if o.leaving != reason.None {
		c.stopRunner(o.leaving)
		return nil
	}
	c.startRunner(o)
	return nil
}

// enterWaiting tries again when it is time.
func enterWaiting(ctx fsm.Context, _ *owner, o Order) error {
	if time.Now().Before(o.next) {
		return nil
	}
	return ctx.Trigger(evResume, change{})
}
