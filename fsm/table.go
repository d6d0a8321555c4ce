package fsm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// ErrNoTransition is wrapped by Apply when the table has no row for the event in the present state.
var ErrNoTransition = errors.New("no transition")

// Deadline bounds the time a machine may stay in a state without any applied event.
type Deadline struct {
	// After is how long; zero means Never, and Reason must then say why.
	After time.Duration
	// Event fires when the time is over; Args go with it.
	Event  EventName
	Args   []any
	Reason string
}

// Never is a deadline that does not exist, with the reason.
func Never(reason string) Deadline { return Deadline{Reason: reason} }

// Spec describes a machine over the record S.
type Spec[S any] struct {
	Name      string
	State     func(*S) StateKey
	SetState  func(*S, StateKey)
	Events    Events
	Entry     StateEntryFuncs
	Final     []StateKey
	Deadlines map[StateKey]Deadline
	// Interrupts are the events that end a running entry function at once and are applied next.
	Interrupts []EventName
	// Names prints states and events in logs and diagrams.
	StateName func(StateKey) string
	EventName func(EventName) string
}

type action[S any] func(*S, []any) error

type entry[S any] func(Context, any, S) error

type row[S any] struct {
	from map[StateKey]transition
	any  *transition
	act  action[S]
}

// Table is a compiled Spec. It is immutable and safe for concurrent use.
type Table[S any] struct {
	spec      Spec[S]
	rows      map[EventName]row[S]
	entries   map[StateKey]entry[S]
	final     map[StateKey]bool
	interrupt map[EventName]bool
}

// Compile checks every signature of the spec and returns the table.
func Compile[S any](spec Spec[S]) (*Table[S], error) {
	t := &Table[S]{
		spec: spec, rows: map[EventName]row[S]{}, entries: map[StateKey]entry[S]{},
		final: map[StateKey]bool{}, interrupt: map[EventName]bool{},
	}
	for _, s := range spec.Final {
		t.final[s] = true
	}
	for _, e := range spec.Interrupts {
		t.interrupt[e] = true
	}
	for _, b := range spec.Events {
		d := b.decl()
		if _, dup := t.rows[d.name]; dup {
			return nil, fmt.Errorf("fsm %s: event %s is declared twice", spec.Name, t.eventName(d.name))
		}
		act, err := compileAction[S](d.action)
		if err != nil {
			return nil, fmt.Errorf("fsm %s: action of %s: %w", spec.Name, t.eventName(d.name), err)
		}
		t.rows[d.name] = row[S]{d.from, d.any, act}
	}
	for s, f := range spec.Entry {
		e, err := compileEntry[S](f)
		if err != nil {
			return nil, fmt.Errorf("fsm %s: entry function of %s: %w", spec.Name, t.stateName(s), err)
		}
		t.entries[s] = e
	}
	return t, nil
}

// MustCompile is Compile for tables that are constants of a package.
func MustCompile[S any](spec Spec[S]) *Table[S] {
	t, err := Compile(spec)
	if err != nil {
		panic(err)
	}
	return t
}

// Final reports whether s is a final state: nothing applies in it.
func (t *Table[S]) Final(s StateKey) bool { return t.final[s] }

// Lookup returns how event would apply in state s.
func (t *Table[S]) Lookup(s StateKey, event EventName) (Kind, StateKey, bool) {
	if t.final[s] {
		return 0, nil, false
	}
	r, ok := t.rows[event]
	if !ok {
		return 0, nil, false
	}
	tr, ok := r.from[s]
	if !ok {
		if r.any == nil {
			return 0, nil, false
		}
		tr = *r.any
	}
	if tr.kind != Enter {
		return tr.kind, s, true
	}
	return tr.kind, tr.to, true
}

// Apply runs the action of event on rec and sets the new state. rec is unchanged when an error is returned.
func (t *Table[S]) Apply(rec *S, event EventName, args ...any) (Kind, error) {
	from := t.spec.State(rec)
	kind, to, ok := t.Lookup(from, event)
	if !ok {
		return 0, fmt.Errorf("fsm %s: event %s in state %s: %w", t.spec.Name, t.eventName(event), t.stateName(from), ErrNoTransition)
	}
	if act := t.rows[event].act; act != nil {
		work := *rec
		if err := act(&work, args); err != nil {
			return 0, fmt.Errorf("fsm %s: event %s in state %s: %w", t.spec.Name, t.eventName(event), t.stateName(from), err)
		}
		*rec = work
	}
	if kind == Enter {
		t.spec.SetState(rec, to)
	}
	return kind, nil
}

func (t *Table[S]) stateName(s StateKey) string {
	if t.spec.StateName != nil {
		return t.spec.StateName(s)
	}
	return fmt.Sprint(s)
}

func (t *Table[S]) eventName(e EventName) string {
	if t.spec.EventName != nil {
		return t.spec.EventName(e)
	}
	return fmt.Sprint(e)
}

var errorType = reflect.TypeFor[error]()

// compileAction turns an action into a closure; the usual signatures need no reflection when an event is applied.
func compileAction[S any](f ActionFunc) (action[S], error) {
	switch f := f.(type) {
	case nil:
		return nil, nil
	case func(*S) error:
		return func(s *S, args []any) error {
			if len(args) != 0 {
				return fmt.Errorf("wrong number of arguments: got %d, want 0", len(args))
			}
			return f(s)
		}, nil
	case func(*S, uint64) error:
		return oneArg(f), nil
	case func(*S, int64) error:
		return oneArg(f), nil
	case func(*S, string) error:
		return oneArg(f), nil
	}
	v := reflect.ValueOf(f)
	ft := v.Type()
	if ft.Kind() != reflect.Func || ft.NumIn() == 0 || ft.In(0) != reflect.TypeFor[*S]() || ft.NumOut() != 1 || ft.Out(0) != errorType || ft.IsVariadic() {
		return nil, fmt.Errorf("has type %T, want func(*%s, ...) error", f, reflect.TypeFor[S]())
	}
	return func(s *S, args []any) error {
		in, err := reflectArgs(ft, 1, args)
		if err != nil {
			return err
		}
		out := v.Call(append([]reflect.Value{reflect.ValueOf(s)}, in...))
		err, _ = out[0].Interface().(error)
		return err
	}, nil
}

func oneArg[S, A any](f func(*S, A) error) action[S] {
	return func(s *S, args []any) error {
		if len(args) != 1 {
			return fmt.Errorf("wrong number of arguments: got %d, want 1", len(args))
		}
		a, ok := args[0].(A)
		if !ok {
			return fmt.Errorf("argument has type %T, want %s", args[0], reflect.TypeFor[A]())
		}
		return f(s, a)
	}
}

func reflectArgs(ft reflect.Type, skip int, args []any) ([]reflect.Value, error) {
	if len(args) != ft.NumIn()-skip {
		return nil, fmt.Errorf("wrong number of arguments: got %d, want %d", len(args), ft.NumIn()-skip)
	}
	in := make([]reflect.Value, len(args))
	for i, a := range args {
		want := ft.In(i + skip)
		if a == nil {
			in[i] = reflect.Zero(want)
			continue
		}
		in[i] = reflect.ValueOf(a)
		if !in[i].Type().AssignableTo(want) {
			return nil, fmt.Errorf("argument %d has type %T, want %s", i, a, want)
		}
	}
	return in, nil
}

func compileEntry[S any](f StateEntryFunc) (entry[S], error) {
	v := reflect.ValueOf(f)
	if !v.IsValid() || v.Kind() != reflect.Func {
		return nil, fmt.Errorf("has type %T, want a function", f)
	}
	ft := v.Type()
	if ft.NumIn() != 3 || ft.NumOut() != 1 || ft.Out(0) != errorType ||
		ft.In(0) != reflect.TypeFor[Context]() || ft.In(2) != reflect.TypeFor[S]() {
		return nil, fmt.Errorf("has type %T, want func(fsm.Context, Environment, %s) error", f, reflect.TypeFor[S]())
	}
	return func(c Context, env any, s S) error {
		ev := reflect.ValueOf(env)
		if !ev.IsValid() {
			ev = reflect.Zero(ft.In(1))
		}
		out := v.Call([]reflect.Value{reflect.ValueOf(c), ev, reflect.ValueOf(s)})
		err, _ := out[0].Interface().(error)
		return err
	}, nil
}

// TestContext is a Context for tests of single entry functions: it notes what was triggered.
type TestContext struct {
	Ctx       context.Context
	Triggered []Triggered
}

// Triggered is one event that an entry function raised.
type Triggered struct {
	Event EventName
	Args  []any
}

// Context implements Context.
func (c *TestContext) Context() context.Context { return c.Ctx }

// Trigger implements Context.
func (c *TestContext) Trigger(event EventName, args ...any) error {
	c.Triggered = append(c.Triggered, Triggered{event, args})
	return nil
}

// Replay applies the triggered events to rec in order.
func Replay[S any](t *Table[S], c *TestContext, rec *S) error {
	for _, e := range c.Triggered {
		if _, err := t.Apply(rec, e.Event, e.Args...); err != nil {
			return err
		}
	}
	return nil
}
