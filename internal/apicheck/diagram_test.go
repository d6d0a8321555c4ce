package apicheck

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/node/download"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// table is what the tests of a machine need of it.
type table interface {
	Diagram(states []fsm.StateKey) string
	Events() []fsm.EventName
	Lookup(s fsm.StateKey, event fsm.EventName) (fsm.Kind, fsm.StateKey, bool)
	Deadline(s fsm.StateKey) (fsm.Deadline, bool)
	Final(s fsm.StateKey) bool
	StateName(s fsm.StateKey) string
}

func tables(t *testing.T) map[string]table {
	t.Helper()
	ch, err := channels.NewTable()
	require.NoError(t, err)
	second := time.Second
	client, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(second, second, second, second)))
	require.NoError(t, err)
	provider, err := fsm.Compile(providerstates.Spec(providerstates.Deadlines(second, second, second, second)))
	require.NoError(t, err)
	order, err := fsm.Compile(download.Spec(second, second))
	require.NoError(t, err)
	return map[string]table{"channel": ch, "client-deal": client, "provider-deal": provider, "order": order}
}

// reached lists the states that a machine enters from the start, in order of their number.
func reached(name string, tab table) []fsm.StateKey {
	var all []fsm.StateKey
	var start fsm.StateKey
	switch name {
	case "channel":
		start = dt.Requested
		for s := range dt.Statuses {
			all = append(all, s)
		}
	case "order":
		start = download.Running
		for s := download.Running; s <= download.Cancelled; s++ {
			all = append(all, s)
		}
	default:
		start = rm.DealStatusNew
		for s := range rm.DealStatuses {
			all = append(all, s)
		}
	}
	seen := map[fsm.StateKey]bool{start: true}
	for work := []fsm.StateKey{start}; len(work) > 0; work = work[1:] {
		for _, e := range tab.Events() {
			kind, to, ok := tab.Lookup(work[0], e)
			if ok && kind == fsm.Enter && !seen[to] {
				seen[to] = true
				work = append(work, to)
			}
		}
	}
	var out []fsm.StateKey
	for _, s := range sorted(all) {
		if seen[s] {
			out = append(out, s)
		}
	}
	return out
}

func sorted(list []fsm.StateKey) []fsm.StateKey {
	number := func(s fsm.StateKey) uint64 {
		switch s := s.(type) {
		case dt.Status:
			return uint64(s)
		case download.State:
			return uint64(s)
		}
		return uint64(s.(rm.DealStatus))
	}
	for i := range list {
		for j := i; j > 0 && number(list[j]) < number(list[j-1]); j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list
}

// TestDiagrams keeps the pictures in the documents equal to the tables. UPDATE_DOCS=1 writes them.
func TestDiagrams(t *testing.T) {
	for name, tab := range tables(t) {
		t.Run(name, func(t *testing.T) {
			text := "# States of a " + strings.ReplaceAll(name, "-", " ") + "\n\nGenerated from the transition table.\n\n```mermaid\n" +
				tab.Diagram(reached(name, tab)) + "```\n"
			path := "../../docs/states/" + name + ".md"
			if os.Getenv("UPDATE_DOCS") != "" {
				require.NoError(t, os.MkdirAll("../../docs/states", 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}
			have, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(have), text, "run UPDATE_DOCS=1 go test ./internal/apicheck")
		})
	}
}

// TestEveryStateEnds: from every state of a deal that can be entered, some path leads to a final state, and every state that
// is not final has a deadline or says why it needs none.
func TestEveryStateEnds(t *testing.T) {
	for name, tab := range tables(t) {
		t.Run(name, func(t *testing.T) {
			states := reached(name, tab)
			require.NotEmpty(t, states)
			ends := map[fsm.StateKey]bool{}
			for changed := true; changed; {
				changed = false
				for _, s := range states {
					if ends[s] {
						continue
					}
					if tab.Final(s) || leads(tab, s, ends) {
						ends[s], changed = true, true
					}
				}
			}
			for _, s := range states {
				require.True(t, ends[s], "%s leads nowhere", tab.StateName(s))
				if name == "channel" || tab.Final(s) {
					continue // the monitor bounds a channel, by bytes and by time
				}
				_, ok := tab.Deadline(s)
				require.True(t, ok, "%s has neither a deadline nor a reason", tab.StateName(s))
			}
		})
	}
}

func leads(tab table, s fsm.StateKey, ends map[fsm.StateKey]bool) bool {
	for _, e := range tab.Events() {
		kind, to, ok := tab.Lookup(s, e)
		if ok && kind == fsm.Enter && ends[to] {
			return true
		}
	}
	return false
}
