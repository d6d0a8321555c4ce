package channels

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/shared"
)

// Notifier is told each applied event, in order for one channel.
type Notifier func(dt.Event, dt.ChannelState)

// Set is all channels of a node. Live channels are resident; final ones are read when asked for.
type Set struct {
	store     store
	table     *fsm.Table[Record]
	notifier  Notifier
	onCleanup func(*Channel)

	mu    sync.Mutex
	live  map[dt.ChannelID]*Channel
	group shared.Group
}

// New makes a set over ds. onCleanup frees everything that belongs to a channel that ends.
func New(ctx context.Context, ds datastore.Batching, vouchers, results DecoderByType, notify Notifier, onCleanup func(*Channel)) (*Set, error) {
	t, err := NewTable()
	if err != nil {
		return nil, err
	}
	return &Set{
		store: store{ds: ds, vouchers: vouchers, results: results, ctx: context.WithoutCancel(ctx)},
		table: t, notifier: notify, onCleanup: onCleanup, live: map[dt.ChannelID]*Channel{},
	}, nil
}

// Start checks the version of the store.
func (s *Set) Start(ctx context.Context) error { return s.store.checkVersion(ctx) }

// Close flushes the counters of all channels and waits for work in progress, bounded by ctx.
func (s *Set) Close(ctx context.Context) error {
	if err := s.group.Close(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	live := make([]*Channel, 0, len(s.live))
	for _, c := range s.live {
		live = append(live, c)
	}
	s.mu.Unlock()
	var first error
	for _, c := range live {
		c.mu.Lock()
		if c.timer != nil {
			c.timer.Stop()
		}
		rec := c.rec
		c.mu.Unlock()
		if err := s.store.putHot(s.store.ds, &rec); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Create stores a new channel with its opening voucher and announces Open.
func (s *Set) Create(st Static, voucher Encoded) (*Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group.Closed() {
		return nil, fmt.Errorf("channel %s: data transfer is stopped", st.ChannelID)
	}
	if _, dup := s.live[st.ChannelID]; dup {
		return nil, fmt.Errorf("channel %s exists already", st.ChannelID)
	}
	if has, err := s.store.ds.Has(s.store.ctx, key("s", st.ChannelID)); err != nil || has {
		return nil, fmt.Errorf("channel %s exists already (%v)", st.ChannelID, err)
	}
	c := &Channel{set: s, id: st.ChannelID, rec: Record{Static: st, Hot: Hot{Vouchers: 1}}, first: voucher, last: voucher}
	b, err := s.store.ds.Batch(s.store.ctx)
	if err != nil {
		return nil, err
	}
	if err = s.store.putStatic(b, &st); err == nil {
		if err = s.store.putItem(b, "v", st.ChannelID, 0, voucher); err == nil {
			if err = s.store.putHot(b, &c.rec); err == nil {
				err = b.Commit(s.store.ctx)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store channel %s: %w", st.ChannelID, err)
	}
	s.live[st.ChannelID] = c
	return c, c.Apply(dt.Open)
}

// Get returns a channel, resident or from the store.
func (s *Set) Get(ctx context.Context, chid dt.ChannelID) (*Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.live[chid]; c != nil {
		return c, nil
	}
	rec, err := s.store.load(ctx, chid)
	if err != nil {
		return nil, err
	}
	c := &Channel{set: s, id: rec.Static.ChannelID, rec: rec}
	c.first, _ = s.store.readItem("v", chid, 0)
	if rec.Vouchers > 0 {
		c.last, _ = s.store.readItem("v", chid, rec.Vouchers-1)
	}
	if rec.Results > 0 {
		c.lastRes, _ = s.store.readItem("r", chid, rec.Results-1)
	}
	if !IsChannelTerminated(rec.Status) {
		s.live[chid] = c
	}
	if IsChannelCleaningUp(rec.Status) { // the process ended in the middle of it
		c.mu.Lock()
		c.push(work{event: flushOnly, at: time.Now(), persist: true, cleanup: true, state: c.snapshot()})
		c.mu.Unlock()
	}
	return c, nil
}

// Resident returns a live channel without looking into the store.
func (s *Set) Resident(chid dt.ChannelID) *Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[chid]
}

// All returns a snapshot of every stored channel.
func (s *Set) All(ctx context.Context) (map[dt.ChannelID]dt.ChannelState, error) {
	ids, err := s.store.ids(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[dt.ChannelID]dt.ChannelState, len(ids))
	for _, id := range ids {
		c, err := s.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		out[id] = c.State()
	}
	return out, nil
}

// Live returns the resident channels, those that have not ended.
func (s *Set) Live() []*Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Channel, 0, len(s.live))
	for _, c := range s.live {
		out = append(out, c)
	}
	return out
}

func (s *Set) notify(e dt.Event, st dt.ChannelState) {
	if e.Code != flushOnly {
		s.notifier(e, st)
	}
}

func (s *Set) cleanup(c *Channel) { s.onCleanup(c) }

func (s *Set) evict(c *Channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, c.ID())
}
