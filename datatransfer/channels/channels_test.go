package channels_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// note is what a listener was told.
type note struct {
	event  dt.EventCode
	status dt.Status
	queued uint64
}

type fixture struct {
	t       *testing.T
	ds      datastore.Batching
	set     *channels.Set
	mu      sync.Mutex
	notes   []note
	cleaned int
	block   chan struct{} // listeners wait for it
}

func newFixture(t *testing.T, ds datastore.Batching) *fixture {
	if ds == nil {
		ds = dssync.MutexWrap(datastore.NewMapDatastore())
	}
	f := &fixture{t: t, ds: ds}
	none := func(dt.TypeIdentifier) (encoding.Decoder, bool) { return nil, false }
	set, err := channels.New(t.Context(), ds, none, none, f.notify, func(*channels.Channel) { f.cleaned++ })
	require.NoError(t, err)
	require.NoError(t, set.Start(t.Context()))
	f.set = set
	return f
}

func (f *fixture) notify(e dt.Event, s dt.ChannelState) {
	if f.block != nil {
		<-f.block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, note{e.Code, s.Status(), s.Queued()})
}

func (f *fixture) seen() []note {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]note(nil), f.notes...)
}

func (f *fixture) close() {
	require.NoError(f.t, f.set.Close(context.WithoutCancel(f.t.Context())))
}

func (f *fixture) create(id uint64) *channels.Channel {
	f.t.Helper()
	c, err := f.set.Create(static(f.t, id), channels.Encoded{Type: "v", Data: []byte{0xf6}}, 0)
	require.NoError(f.t, err)
	return c
}

func static(t *testing.T, id uint64) channels.Static {
	base, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("root"))
	require.NoError(t, err)
	st, err := channels.NewStatic("a", dt.ChannelID{Initiator: "a", Responder: "b", ID: dt.TransferID(id)}, base, shared.AllSelector(), true)
	require.NoError(t, err)
	return st
}

// bubble runs f in fake time over a map store.
func bubble(t *testing.T, f func(t *testing.T, fx *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, nil)
		f(t, fx)
		fx.close()
	})
}

// TestR32Order: each event is told once, in order, with the state right after it, and ChannelState never lags behind Apply.
func TestR32Order(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Accept))
		require.Equal(t, dt.Ongoing, c.State().Status())
		for i := range 5 {
			_, total, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, 10, int64(i+1), true)
			require.NoError(t, err)
			require.EqualValues(t, 10*(i+1), total)
		}
		require.NoError(t, c.Apply(dt.PauseResponder))
		synctest.Wait()
		want := []note{{dt.Open, dt.Requested, 0}, {dt.Accept, dt.Ongoing, 0}}
		for i := range 5 {
			q := uint64(10 * (i + 1))
			want = append(want, note{dt.DataQueuedProgress, dt.Ongoing, q}, note{dt.DataQueued, dt.Ongoing, q})
		}
		require.Equal(t, append(want, note{dt.PauseResponder, dt.ResponderPaused, 50}), f.seen())
	})
}

// TestR42CountedOnce: an index counts once, repeats and resends are told without progress, and a block that cost nothing on the
// wire is not counted.
func TestR42CountedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Accept))
		for _, b := range []struct {
			index  int64
			unique bool
			fresh  bool
			total  uint64
		}{{1, true, true, 7}, {1, true, false, 7}, {2, false, false, 7}, {3, true, true, 14}, {2, true, false, 14}} {
			fresh, total, err := c.Block(dt.DataReceived, dt.DataReceivedProgress, 7, b.index, b.unique)
			require.NoError(t, err)
			require.Equal(t, b.fresh, fresh, "%+v", b)
			require.Equal(t, b.total, total, "%+v", b)
		}
		require.EqualValues(t, 3, c.State().ReceivedCidsTotal())
		_, _, err := c.Block(dt.DataReceived, dt.DataReceivedProgress, 7, -1, true)
		require.ErrorContains(t, err, "negative")
	})
}

// TestR34CleanupAbsorbs: from a cleanup state nothing leads away but its own end; cleanup runs once; the channel is free then.
func TestR34CleanupAbsorbs(t *testing.T) {
	for _, tc := range []struct {
		into    dt.EventCode
		through dt.Status
		end     dt.Status
	}{{dt.Complete, dt.Completing, dt.Completed}, {dt.Cancel, dt.Cancelling, dt.Cancelled}, {dt.Error, dt.Failing, dt.Failed}} {
		t.Run(dt.Events[tc.into], func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				c := f.create(1)
				require.NoError(t, c.Apply(dt.Accept))
				args := []any{}
				if tc.into == dt.Error {
					args = append(args, errors.New("broken"))
				}
				synctest.Wait() // what was told so far was heard
				f.block = make(chan struct{})
				require.NoError(t, c.Apply(tc.into, args...))
				require.Equal(t, tc.through, c.State().Status())
				for _, e := range []dt.EventCode{dt.Cancel, dt.Complete, dt.BeginFinalizing, dt.Restart, dt.Open} {
					require.Error(t, c.Apply(e), dt.Events[e])
				}
				require.Error(t, c.Apply(dt.Error, errors.New("later")))
				require.NoError(t, c.Apply(dt.FinishTransfer))
				require.Equal(t, tc.through, c.State().Status())
				close(f.block)
				synctest.Wait()
				require.Equal(t, tc.end, c.State().Status())
				require.Equal(t, 1, f.cleaned)
				require.Nil(t, f.set.Resident(c.ID()))
				again, err := f.set.Get(t.Context(), c.ID())
				require.NoError(t, err)
				require.Equal(t, tc.end, again.State().Status())
				require.Error(t, again.Apply(dt.Accept), "R-33: over means over, also when it was read from the store")
			})
		})
	}
}

// TestR43NoDuplicate: an id is used once, also after the channel has ended.
func TestR43NoDuplicate(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		_, err := f.set.Create(static(t, 1), channels.Encoded{}, 0)
		require.ErrorContains(t, err, "exists already")
		require.NoError(t, c.Apply(dt.Cancel))
		synctest.Wait()
		_, err = f.set.Create(static(t, 1), channels.Encoded{}, 0)
		require.ErrorContains(t, err, "exists already")
		_, err = f.set.Get(t.Context(), dt.ChannelID{Initiator: "x", Responder: "y", ID: 3})
		require.ErrorIs(t, err, dt.ErrChannelNotFound)
	})
}

// TestR94Reopen: everything but the last moment of counters is there after a restart; a clean end keeps those too.
func TestR94Reopen(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Accept))
		require.NoError(t, c.Voucher(channels.Encoded{Type: "v", Data: []byte{1}}))
		for i := range 200 {
			_, _, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, 10, int64(i+1), true)
			require.NoError(t, err)
		}
		synctest.Wait()
		crashed := newFixture(t, f.ds) // as after a kill: the first set is just not asked any more
		s, err := crashed.set.Get(t.Context(), c.ID())
		require.NoError(t, err)
		require.Equal(t, dt.Ongoing, s.State().Status())
		require.LessOrEqual(t, s.State().Queued(), uint64(2000))
		require.GreaterOrEqual(t, s.State().Queued(), uint64(2000-64*10))
		time.Sleep(time.Second)
		synctest.Wait()
		later := newFixture(t, f.ds)
		s, err = later.set.Get(t.Context(), c.ID())
		require.NoError(t, err)
		require.EqualValues(t, 2000, s.State().Queued(), "the last counters are written soon")
		crashed.close()
		later.close()
	})
}

// TestR32Backlog: a slow listener costs bounded memory: progress is told less often, nothing else is left out, and the log says
// so, once.
func TestR32Backlog(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Accept))
		synctest.Wait()
		synctest.Wait()
		f.block = make(chan struct{})
		for i := range 5000 {
			_, _, err := c.Block(dt.DataReceived, dt.DataReceivedProgress, 1, int64(i+1), true)
			require.NoError(t, err)
			if i%1000 == 0 {
				require.NoError(t, c.Apply(dt.NewVoucherResult))
			}
		}
		close(f.block)
		synctest.Wait()
		vouchers := 0
		for _, n := range f.seen() {
			if n.event == dt.NewVoucherResult {
				vouchers++
			}
		}
		require.Equal(t, 5, vouchers)
		require.EqualValues(t, 5000, c.State().Received())
		require.Less(t, len(f.seen()), 4000)
		require.Equal(t, 1, strings.Count(log.String(), "slower than a data-transfer channel"))
	})
}

// TestR40Message: a long or broken message is cut to 4096 bytes of valid text.
func TestR40Message(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Error, errors.New(strings.Repeat("é", 4000)+"\xff")))
		synctest.Wait()
		require.Len(t, c.State().Message(), 4096)
	})
}

// brokenStore fails when told to.
type brokenStore struct {
	datastore.Batching
	broken *bool
}

func (b brokenStore) Batch(ctx context.Context) (datastore.Batch, error) {
	if *b.broken {
		return nil, errors.New("disk full")
	}
	return b.Batching.Batch(ctx)
}

// TestR98StoreError: a store that cannot write makes the channel fail with that message instead of hanging.
func TestR98StoreError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		f := newFixture(t, brokenStore{dssync.MutexWrap(datastore.NewMapDatastore()), &broken})
		c := f.create(1)
		synctest.Wait()
		broken = true
		require.NoError(t, c.Apply(dt.Accept))
		synctest.Wait()
		require.Equal(t, dt.Ongoing, c.State().Status(), "it is tried again first")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, dt.Failed, c.State().Status())
		require.Contains(t, c.State().Message(), "disk full")
		broken = false
		f.close()
	})
}

// TestAfterClose: nothing is applied that nobody would store, and closing waits for what is being told.
func TestAfterClose(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		c := f.create(1)
		synctest.Wait()
		f.close()
		require.ErrorContains(t, c.Apply(dt.Accept), "stopped")
		require.ErrorContains(t, c.Voucher(channels.Encoded{}), "stopped")
		_, _, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, 1, 1, true)
		require.ErrorContains(t, err, "stopped")
		_, err = f.set.Create(static(t, 2), channels.Encoded{}, 0)
		require.ErrorContains(t, err, "stopped")
	})
}

// TestR28Version: an unknown or newer store is refused and left as it is.
func TestR28Version(t *testing.T) {
	for name, fill := range map[string]map[string]string{
		"newer":   {"/versions/current": "99"},
		"unknown": {"/something": "else"},
	} {
		t.Run(name, func(t *testing.T) {
			ds := dssync.MutexWrap(datastore.NewMapDatastore())
			for k, v := range fill {
				require.NoError(t, ds.Put(t.Context(), datastore.NewKey(k), []byte(v)))
			}
			none := func(dt.TypeIdentifier) (encoding.Decoder, bool) { return nil, false }
			set, err := channels.New(t.Context(), ds, none, none, func(dt.Event, dt.ChannelState) {}, func(*channels.Channel) {})
			require.NoError(t, err)
			require.ErrorContains(t, set.Start(t.Context()), "channel store")
			for k, v := range fill {
				got, err := ds.Get(t.Context(), datastore.NewKey(k))
				require.NoError(t, err)
				require.Equal(t, v, string(got))
			}
		})
	}
}

// BenchmarkEvent shows that an event costs the same in a channel with 10 and with 5,000 vouchers.
func BenchmarkEvent(b *testing.B) {
	for _, vouchers := range []int{10, 5000} {
		b.Run(fmt.Sprint(vouchers, "-vouchers"), func(b *testing.B) {
			none := func(dt.TypeIdentifier) (encoding.Decoder, bool) { return nil, false }
			set, err := channels.New(b.Context(), dssync.MutexWrap(datastore.NewMapDatastore()), none, none, func(dt.Event, dt.ChannelState) {}, func(*channels.Channel) {})
			require.NoError(b, err)
			base, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("root"))
			require.NoError(b, err)
			st, err := channels.NewStatic("a", dt.ChannelID{Initiator: "a", Responder: "b", ID: 1}, base, shared.AllSelector(), true)
			require.NoError(b, err)
			c, err := set.Create(st, channels.Encoded{Type: "v", Data: []byte{0xf6}}, 0)
			require.NoError(b, err)
			require.NoError(b, c.Apply(dt.Accept))
			for range vouchers {
				require.NoError(b, c.Voucher(channels.Encoded{Type: "v", Data: make([]byte, 300)}))
			}
			b.ResetTimer()
			for i := range b.N {
				if _, _, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, 1, int64(i+1), true); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			require.NoError(b, set.Close(context.WithoutCancel(b.Context())))
		})
	}
}
