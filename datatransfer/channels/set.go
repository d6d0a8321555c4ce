package channels

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// Notifier is told each applied event, in order for one channel.
type Notifier func(dt.Event, dt.ChannelState)

// Set is all channels of a node. Live channels are resident; final ones are read when asked for.
type Set struct {
	store     store
	table     *fsm.Table[Record]
	notifier  Notifier
	onCleanup func(*Channel)
	coarse    func() bool // nil: each block is told

	mu     sync.Mutex // never held across I/O
	live   map[dt.ChannelID]*Channel
	coming map[dt.ChannelID]bool // being created
	group  lifecycle.Group
}

// New makes a set over ds. onCleanup frees everything that belongs to a channel that ends.
func New(ctx context.Context, ds datastore.Batching, vouchers, results DecoderByType, notify Notifier, onCleanup func(*Channel)) (*Set, error) {
	t, err := NewTable()
	if err != nil {
		return nil, err
	}
	return &Set{
		store: store{ds: ds, vouchers: vouchers, results: results, ctx: context.WithoutCancel(ctx)},
		table: t, notifier: notify, onCleanup: onCleanup, live: map[dt.ChannelID]*Channel{}, coming: map[dt.ChannelID]bool{},
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
		c.finish()
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

// Create stores a new channel with its opening voucher, and of a pull how many of the first blocks its recipient has already, and announces Open.
func (s *Set) Create(st Static, voucher Encoded, base uint64) (*Channel, error) {
	if err := s.reserve(st.ChannelID); err != nil {
		return nil, err
	}
	c := &Channel{set: s, id: st.ChannelID, pull: st.ChannelID.Initiator == st.Recipient, rec: Record{Static: &st, Hot: Hot{Vouchers: 1}}, items: &items{first: voucher, last: voucher}}
	if base > 0 && c.pull {
		c.rec.Skipped.add(span{1, base})
	}
	err := s.writeNew(c, voucher)
	s.mu.Lock()
	delete(s.coming, st.ChannelID)
	if err == nil {
		s.live[st.ChannelID] = c
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c, c.Apply(dt.Open)
}

// Sync returns when what was written of channels is on stable storage.
func (s *Set) Sync(ctx context.Context) error {
	return s.store.ds.Sync(ctx, datastore.NewKey("/"))
}

// reserve keeps an id from being created twice at once.
func (s *Set) reserve(chid dt.ChannelID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group.Closed() {
		return fmt.Errorf("channel %s: data transfer is stopped", chid)
	}
	if s.live[chid] != nil || s.coming[chid] {
		return fmt.Errorf("channel %s: %w", chid, ErrExists)
	}
	s.coming[chid] = true
	return nil
}

// ErrExists says that the id of a new channel is taken.
var ErrExists = errors.New("exists already")

func (s *Set) writeNew(c *Channel, voucher Encoded) error {
	has, err := s.store.ds.Has(s.store.ctx, s.store.key("s", c.id))
	if err == nil && has {
		return fmt.Errorf("channel %s: %w", c.id, ErrExists)
	}
	var b datastore.Batch
	if err == nil {
		b, err = s.store.ds.Batch(s.store.ctx)
	}
	if err == nil {
		err = s.store.putStatic(b, c.rec.Static)
	}
	if err == nil {
		err = s.store.putItem(b, "v", c.id, 0, voucher)
	}
	if err == nil {
		err = s.store.putHot(b, &c.rec)
	}
	if err == nil {
		err = b.Commit(s.store.ctx)
	}
	if err != nil {
		return fmt.Errorf("store channel %s: %w", c.id, err)
	}
	return nil
}

// Get returns a channel, resident or from the store.
func (s *Set) Get(ctx context.Context, chid dt.ChannelID) (*Channel, error) {
	if c := s.Resident(chid); c != nil {
		return c, nil
	}
	c, err := s.read(ctx, chid)
	if err != nil {
		return nil, err
	}
	if IsChannelTerminated(c.rec.Status) {
		return c, nil
	}
	s.mu.Lock()
	if first := s.live[chid]; first != nil { // somebody was faster
		s.mu.Unlock()
		return first, nil
	}
	s.live[chid] = c
	s.mu.Unlock()
	if IsChannelCleaningUp(c.rec.Status) { // the process ended in the middle of it
		c.mu.Lock()
		c.push(work{event: flushOnly, at: time.Now(), persist: true, cleanup: true, state: c.snapshot()})
		c.mu.Unlock()
	}
	return c, nil
}

func (s *Set) read(ctx context.Context, chid dt.ChannelID) (*Channel, error) {
	rec, err := s.store.load(ctx, chid)
	if err != nil {
		return nil, err
	}
	c := &Channel{set: s, id: rec.Static.ChannelID, pull: rec.Static.ChannelID.Initiator == rec.Static.Recipient, rec: rec, items: &items{}}
	c.Credit.Behind = true
	c.items.first, _ = s.store.readItem("v", chid, 0)
	if rec.Vouchers > 0 {
		c.items.last, _ = s.store.readItem("v", chid, rec.Vouchers-1)
	}
	if rec.Results > 0 {
		c.items.lastResult, _ = s.store.readItem("r", chid, rec.Results-1)
	}
	return c, nil
}

// Resident returns a live channel without looking into the store.
func (s *Set) Resident(chid dt.ChannelID) *Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[chid]
}

// All returns a snapshot of every stored channel. Those that are not resident stay so.
func (s *Set) All(ctx context.Context) (map[dt.ChannelID]dt.ChannelState, error) {
	ids, err := s.store.ids(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[dt.ChannelID]dt.ChannelState, len(ids))
	for _, id := range ids {
		c := s.Resident(id)
		if c == nil {
			if c, err = s.read(ctx, id); errors.Is(err, dt.ErrChannelNotFound) {
				continue // pruned in between
			}
		}
		if err != nil {
			return nil, err
		}
		out[id] = c.State()
	}
	return out, nil
}

// Prune deletes channels that ended before a time, and reports how many. It costs by what it deletes.
func (s *Set) Prune(ctx context.Context, before time.Time) (int, error) {
	return s.store.prune(ctx, before)
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
