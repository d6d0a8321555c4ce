// Package fsm holds transition tables and the small interpreter that runs them.
//
// A table is data: events with the states they apply in, the state they lead to, and an action that changes
// the fields of the record. The vocabulary (Event, From, FromMany, To, ToNoChange, ToJustRecord, Action) is the
// published one of the deal machines, so that exported tables such as clientstates.ClientEvents keep their type.
//
// Action signatures are checked once, when a table is compiled; a wrong one is an error of Compile, never of an
// event. A Machine has no goroutine while it is idle.
package fsm

import "context"

// EventName names an event; it must be comparable.
type EventName any

// StateKey is a value of the status field; it must be comparable.
type StateKey any

// ActionFunc is func(*S, args...) error for a machine over S: it changes fields when the event is applied.
type ActionFunc any

// StateEntryFunc is func(Context, Env, S) error: it runs after a state was entered and its record was stored.
type StateEntryFunc any

// StateEntryFuncs maps a state to its entry function.
type StateEntryFuncs map[StateKey]StateEntryFunc

// Context is what an entry function gets to steer its own machine.
type Context interface {
	// Context ends when the machine stops, or when an interrupting event (a cancel) arrives.
	Context() context.Context
	// Trigger queues an event that follows from the record that the entry function was given: it is applied before what others send, so
	// that nothing changes under the decision. Two things go first: an interrupt, and before an event that ends the machine all that waits.
	Trigger(event EventName, args ...any) error
}

// Events is a transition table.
type Events []EventBuilder

// EventBuilder declares where one event applies.
type EventBuilder interface {
	// From starts a transition that applies in one state.
	From(StateKey) TransitionBuilder
	// FromMany starts a transition that applies in several states.
	FromMany(...StateKey) TransitionBuilder
	// FromAny starts a transition for every non-final state that has none of its own.
	FromAny() TransitionBuilder
	// Action sets what happens to the fields.
	Action(ActionFunc) EventBuilder

	decl() *eventDecl
}

// TransitionBuilder says where a transition leads.
type TransitionBuilder interface {
	// To enters a state and runs its entry function, also when it is the present one.
	To(StateKey) EventBuilder
	// ToNoChange keeps the state and runs its entry function again.
	ToNoChange() EventBuilder
	// ToJustRecord keeps the state and runs nothing but the action.
	ToJustRecord() EventBuilder
}

// Kind tells the three ways in which an event can apply.
type Kind uint8

const (
	// Enter sets the state and runs the entry function of the new one.
	Enter Kind = iota
	// Again keeps the state and runs the entry function of the present one.
	Again
	// Record keeps the state and runs no entry function.
	Record
)

type transition struct {
	kind Kind
	to   StateKey
}

type eventDecl struct {
	name   EventName
	from   map[StateKey]transition
	any    *transition
	action ActionFunc
	order  []StateKey
}

type eventBuilder struct{ d *eventDecl }

// Event starts the declaration of an event.
func Event(name EventName) EventBuilder {
	return eventBuilder{&eventDecl{name: name, from: map[StateKey]transition{}}}
}

func (b eventBuilder) decl() *eventDecl { return b.d }

func (b eventBuilder) From(s StateKey) TransitionBuilder {
	return transitionBuilder{b.d, []StateKey{s}}
}

func (b eventBuilder) FromMany(s ...StateKey) TransitionBuilder { return transitionBuilder{b.d, s} }

func (b eventBuilder) FromAny() TransitionBuilder { return transitionBuilder{b.d, nil} }

func (b eventBuilder) Action(a ActionFunc) EventBuilder {
	b.d.action = a
	return b
}

type transitionBuilder struct {
	d    *eventDecl
	from []StateKey
}

func (t transitionBuilder) To(s StateKey) EventBuilder { return t.set(transition{Enter, s}) }
func (t transitionBuilder) ToNoChange() EventBuilder   { return t.set(transition{Again, nil}) }
func (t transitionBuilder) ToJustRecord() EventBuilder { return t.set(transition{Record, nil}) }
func (t transitionBuilder) set(tr transition) EventBuilder {
	if t.from == nil {
		t.d.any = &tr
		return eventBuilder{t.d}
	}
	for _, s := range t.from {
		if _, dup := t.d.from[s]; !dup {
			t.d.order = append(t.d.order, s)
		}
		t.d.from[s] = tr
	}
	return eventBuilder{t.d}
}
