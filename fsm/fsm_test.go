package fsm_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/fsm"
)

type lamp struct {
	State   string
	Turns   int
	Message string
}

func spec(entry fsm.StateEntryFuncs, deadlines map[fsm.StateKey]fsm.Deadline) fsm.Spec[lamp] {
	return fsm.Spec[lamp]{
		Name: "lamp", State: func(l *lamp) fsm.StateKey { return l.State }, SetState: func(l *lamp, s fsm.StateKey) { l.State = s.(string) },
		Events: fsm.Events{
			fsm.Event("turn").From("off").To("on").From("on").To("off").Action(func(l *lamp, n int) error {
				if n < 0 {
					return errors.New("turns must not be negative")
				}
				l.Turns += n
				return nil
			}),
			fsm.Event("note").FromAny().ToJustRecord().Action(func(l *lamp, m string) error { l.Message = m; return nil }),
			fsm.Event("again").From("on").ToNoChange(),
			fsm.Event("break").FromAny().To("broken"),
		},
		Entry: entry, Deadlines: deadlines, Final: []fsm.StateKey{"broken"}, Interrupts: []fsm.EventName{"break"},
	}
}

func compile(t *testing.T, s fsm.Spec[lamp]) *fsm.Table[lamp] {
	t.Helper()
	tab, err := fsm.Compile(s)
	require.NoError(t, err)
	return tab
}

func TestApply(t *testing.T) {
	tab := compile(t, spec(nil, nil))
	for name, tc := range map[string]struct {
		from  lamp
		event string
		args  []any
		want  lamp
		kind  fsm.Kind
		fails bool
	}{
		"enters":          {lamp{State: "off"}, "turn", []any{2}, lamp{State: "on", Turns: 2}, fsm.Enter, false},
		"just records":    {lamp{State: "on"}, "note", []any{"hot"}, lamp{State: "on", Message: "hot"}, fsm.Record, false},
		"no change":       {lamp{State: "on"}, "again", nil, lamp{State: "on"}, fsm.Again, false},
		"no row":          {lamp{State: "off"}, "again", nil, lamp{State: "off"}, 0, true},
		"final":           {lamp{State: "broken"}, "note", []any{"x"}, lamp{State: "broken"}, 0, true},
		"action fails":    {lamp{State: "off"}, "turn", []any{-1}, lamp{State: "off"}, 0, true},
		"too few":         {lamp{State: "off"}, "turn", nil, lamp{State: "off"}, 0, true},
		"wrong type":      {lamp{State: "off"}, "turn", []any{"x"}, lamp{State: "off"}, 0, true},
		"unknown event":   {lamp{State: "off"}, "sing", nil, lamp{State: "off"}, 0, true},
		"from any to end": {lamp{State: "on"}, "break", nil, lamp{State: "broken"}, fsm.Enter, false},
	} {
		t.Run(name, func(t *testing.T) {
			rec := tc.from
			kind, err := tab.Apply(&rec, tc.event, tc.args...)
			require.Equal(t, tc.fails, err != nil, "%v", err)
			require.Equal(t, tc.want, rec)
			if err == nil {
				require.Equal(t, tc.kind, kind)
			}
		})
	}
}

func TestCompileRefusesWrongSignatures(t *testing.T) {
	for name, act := range map[string]any{
		"no function": 7, "no record": func() error { return nil }, "no error": func(*lamp) {}, "other record": func(*int) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(nil, nil)
			s.Events = fsm.Events{fsm.Event("turn").FromAny().To("on").Action(act)}
			_, err := fsm.Compile(s)
			require.Error(t, err)
		})
	}
}

// TestMachineInterrupt: a cancelling event ends a running entry function at once and overtakes what waits.
func TestMachineInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		entry := fsm.StateEntryFuncs{"on": func(ctx fsm.Context, _ any, _ lamp) error {
			<-ctx.Context().Done()
			return nil
		}}
		m := fsm.NewMachine(t.Context(), compile(t, spec(entry, nil)), lamp{State: "off"}, nil, fsm.Hooks[lamp]{
			Persist: func(fsm.EventName, lamp) error { return nil },
			Notify:  func(e fsm.EventName, _ lamp) { order = append(order, e.(string)) },
		})
		require.NoError(t, m.Send("turn", 1))
		synctest.Wait()
		require.NoError(t, m.Send("note", "late"))
		require.NoError(t, m.Send("break"))
		require.NoError(t, m.Wait(t.Context()))
		rec, busy := m.State()
		require.False(t, busy)
		require.Equal(t, "broken", rec.State)
		require.Equal(t, []string{"turn", "break"}, order)
		require.ErrorIs(t, m.Send("turn", 1), fsm.ErrTerminated)
	})
}

// TestMachineTwoInterrupts: an interrupt that changes nothing any more does not keep the entry function of the state from its work.
func TestMachineTwoInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cleaned := 0
		s := fsm.Spec[lamp]{
			Name: "lamp", State: func(l *lamp) fsm.StateKey { return l.State }, SetState: func(l *lamp, s fsm.StateKey) { l.State = s.(string) },
			Events: fsm.Events{
				fsm.Event("turn").From("off").To("on"), fsm.Event("cancel").FromAny().To("ending"),
				fsm.Event("lost").From("ending").ToJustRecord().FromAny().To("ending"), fsm.Event("done").From("ending").To("dark"),
			},
			Entry: fsm.StateEntryFuncs{
				"on": func(ctx fsm.Context, _ any, _ lamp) error {
					<-ctx.Context().Done()
					return nil
				},
				"ending": func(ctx fsm.Context, _ any, _ lamp) error {
					cleaned++
					return ctx.Trigger("done")
				},
			},
			Final: []fsm.StateKey{"dark"}, Interrupts: []fsm.EventName{"cancel", "lost"},
		}
		m := fsm.NewMachine(t.Context(), compile(t, s), lamp{State: "off"}, nil, fsm.Hooks[lamp]{})
		require.NoError(t, m.Send("turn"))
		synctest.Wait()
		require.NoError(t, m.Send("lost"))
		require.NoError(t, m.Send("cancel"))
		require.NoError(t, m.Send("lost"))
		synctest.Wait()
		rec, busy := m.State()
		require.False(t, busy)
		require.Equal(t, "dark", rec.State)
		require.NotZero(t, cleaned)
	})
}

func TestMachineDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := compile(t, spec(nil, map[fsm.StateKey]fsm.Deadline{"on": {After: time.Hour, Event: "break"}}))
		m := fsm.NewMachine(t.Context(), tab, lamp{State: "off"}, nil, fsm.Hooks[lamp]{})
		require.NoError(t, m.Send("turn", 1))
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		rec, _ := m.State()
		require.Equal(t, "on", rec.State)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		rec, _ = m.State()
		require.Equal(t, "broken", rec.State)
	})
}

// TestNothingIsAppliedUnstored: an event whose record cannot be stored leaves the record as it was.
func TestNothingIsAppliedUnstored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := 0
		m := fsm.NewMachine(t.Context(), compile(t, spec(nil, nil)), lamp{State: "off"}, nil, fsm.Hooks[lamp]{
			Persist: func(fsm.EventName, lamp) error { return errors.New("disk full") },
			Failed:  func(lamp, error) (fsm.EventName, []any) { failed++; return nil, nil },
		})
		require.NoError(t, m.Send("turn", 1))
		time.Sleep(time.Minute)
		synctest.Wait()
		rec, _ := m.State()
		require.Equal(t, "off", rec.State)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, m.Stop(ctx))
	})
}

// TestMachineDecisions: what an entry function decides is applied to the record that it saw, whatever others send meanwhile; and what
// they sent before the end is not lost.
func TestMachineDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		hold := make(chan struct{})
		s := fsm.Spec[lamp]{
			Name: "lamp", State: func(l *lamp) fsm.StateKey { return l.State }, SetState: func(l *lamp, s fsm.StateKey) { l.State = s.(string) },
			Events: fsm.Events{
				fsm.Event("ask").From("off").To("deciding").From("deciding").To("urgent").FromAny().ToJustRecord(),
				fsm.Event("nothing due").FromMany("deciding", "urgent").To("waiting"),
				fsm.Event("paid").FromAny().ToJustRecord(), fsm.Event("close").From("waiting").To("closing"), fsm.Event("closed").From("closing").To("dark"),
			},
			Entry: fsm.StateEntryFuncs{
				"deciding": func(ctx fsm.Context, _ any, _ lamp) error {
					<-hold
					return ctx.Trigger("nothing due")
				},
				"closing": func(ctx fsm.Context, _ any, _ lamp) error { return ctx.Trigger("closed") },
			},
			Final: []fsm.StateKey{"dark"},
		}
		m := fsm.NewMachine(t.Context(), compile(t, s), lamp{State: "off"}, nil, fsm.Hooks[lamp]{
			Notify: func(e fsm.EventName, l lamp) { order = append(order, e.(string)+":"+l.State) },
		})
		require.NoError(t, m.Send("ask"))
		synctest.Wait()
		for _, e := range []string{"ask", "close", "paid"} {
			require.NoError(t, m.Send(e))
		}
		close(hold)
		require.NoError(t, m.Wait(t.Context()))
		require.Equal(t, []string{"ask:deciding", "nothing due:waiting", "ask:waiting", "close:closing", "paid:closing", "closed:dark"}, order)
	})
}
