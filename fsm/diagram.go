package fsm

import (
	"fmt"
	"io"
	"sort"
	"strings"
)

// GenerateUML writes the Mermaid state diagram of a machine with the given states, in their order.
func GenerateUML[S any](w io.Writer, spec Spec[S], states []StateKey) error {
	t, err := Compile(spec)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, t.Diagram(states))
	return err
}

// Diagram draws the table as a Mermaid state diagram. The text is the same for the same table.
func (t *Table[S]) Diagram(states []StateKey) string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for i, s := range states {
		fmt.Fprintf(&b, "    state \"%s\" as s%d\n", t.stateName(s), i)
	}
	id := make(map[StateKey]int, len(states))
	for i, s := range states {
		id[s] = i
	}
	var lines, records []string
	for _, e := range t.spec.Events {
		d := e.decl()
		for i, s := range states {
			kind, to, ok := t.Lookup(s, d.name)
			switch {
			case !ok:
			case kind == Record:
				records = append(records, fmt.Sprintf("    note right of s%d: just records %s", i, t.eventName(d.name)))
			default:
				lines = append(lines, fmt.Sprintf("    s%d --> s%d: %s", i, id[to], t.eventName(d.name)))
			}
		}
	}
	sort.Strings(records)
	for _, l := range append(lines, records...) {
		b.WriteString(l + "\n")
	}
	for i, s := range states {
		if t.final[s] {
			fmt.Fprintf(&b, "    s%d --> [*]\n", i)
		}
	}
	return b.String()
}

// Events returns the names of the table's events in order of declaration.
func (t *Table[S]) Events() []EventName {
	out := make([]EventName, 0, len(t.spec.Events))
	for _, e := range t.spec.Events {
		out = append(out, e.decl().name)
	}
	return out
}

// Deadline returns the deadline of a state.
func (t *Table[S]) Deadline(s StateKey) (Deadline, bool) {
	d, ok := t.spec.Deadlines[s]
	return d, ok
}

// StateName prints a state.
func (t *Table[S]) StateName(s StateKey) string { return t.stateName(s) }

// EventName prints an event.
func (t *Table[S]) EventName(e EventName) string { return t.eventName(e) }
