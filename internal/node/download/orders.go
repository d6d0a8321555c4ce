package download

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
)

// Attempt is what a Market needs to make the next deal of an order.
type Attempt struct {
	Order Order
	Left  *abi.TokenAmount // of the budget; nil: only what is free
	// Bind makes a deal one of the order, durably; it is called before anything may be paid for it.
	Bind func(ctx context.Context, d Deal) error
}

// Outcome is how a deal ended or came to stand still.
type Outcome struct {
	Moved bool // bytes came since it was awaited
	Part  bool // it brought a part of what is wanted: another deal is to bring more
	Final bool // with an error: what came shows that no deal can bring what is wanted
}

// Market makes and ends deals. Its errors have reasons.
type Market interface {
	// Complete reports whether everything that an order wants is here.
	Complete(ctx context.Context, o Order) (bool, error)
	// Deal goes on with the deal in progress for an order, or makes one.
	Deal(ctx context.Context, a Attempt) (Deal, error)
	// Await waits until a deal has ended or stands still: nil when it is complete. moved is called when bytes came.
	Await(ctx context.Context, o Order, d Deal, moved func()) (Outcome, error)
	// Leave pays what is due for an order, and ends its deals or lets them stand still.
	Leave(ctx context.Context, o Order, why reason.Reason) error
	// Spent is what the book says that deals were paid, together.
	Spent(ctx context.Context, deals []Deal) (abi.TokenAmount, error)
	// Changed tells of each new state of an order, and of what ended its last run.
	Changed(o Order, err error)
	// Stall is how long an order may run without a byte; 0 is no bound.
	Stall(o Order) time.Duration
}

// Config is what orders are made of.
type Config struct {
	Store    datastore.Batching // namespaced by the caller
	Market   Market
	Parallel int           // orders of the queue at a time; 4 when 0
	Lease    time.Duration // Lease when 0
	// Deliver writes what an order of the queue has brought to its output, for which nobody waits; nil: nobody does.
	Deliver func(ctx context.Context, o Order) error
	// Allowance is what the orders of a token may cost together; nil: there are no tokens.
	Allowance func(token string) (Allowance, error)
	Log       *slog.Logger
}

// Orders owns the orders of a home. All methods are safe for concurrent use.
type Orders struct {
	cfg   Config
	table *fsm.Table[Order]
	slots chan struct{}
	group lifecycle.Group
	stop  context.CancelCauseFunc
	ctx   context.Context

	placing sync.Mutex // one request at a time: an equal one attaches

	mu    sync.Mutex
	last  ID
	live  map[ID]*owner // that have not ended
	deals map[Deal]*owner
}

var errStopping error = reason.Interrupted.Errorf("the node was stopped")

// Open reads the orders. Those of commands that were running are parked, which is stored before Open returns: nothing is asked for or paid
// until Start, and then for the others only.
func Open(ctx context.Context, cfg Config) (*Orders, error) {
	if cfg.Lease <= 0 {
		cfg.Lease = Lease
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	table, err := fsm.Compile(Spec(cfg.Lease, firstWait))
	if err != nil {
		return nil, err
	}
	s := &Orders{cfg: cfg, table: table, slots: make(chan struct{}, cfg.Parallel), live: map[ID]*owner{}, deals: map[Deal]*owner{}}
	s.ctx, s.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	all, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	parked := false
	for _, o := range all {
		s.last = max(s.last, o.ID)
		if o.State.Final() {
			continue
		}
		if o.State == Running && o.Owner == Command {
			o.State, o.Reason, o.Changed, parked = Parked, reason.ParkedRestart, now(), true
			// On a full disk, or a home that is only read, it is parked all the same: the next start finds it as it was, and parks it too.
			if err := s.put(ctx, &o, false); err != nil && reason.From(err) != reason.DiskFull {
				return nil, err
			}
		}
		s.track(o, true)
	}
	if parked {
		err = cfg.Store.Sync(ctx, datastore.NewKey("/"))
	}
	return s, err
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func (s *Orders) read(ctx context.Context) (out []Order, err error) {
	err = store.Each(ctx, s.cfg.Store, "", func(key string, value []byte) error {
		n, perr := strconv.ParseUint(strings.TrimPrefix(key, "/"), 16, 64)
		if perr != nil {
			return reason.StoreFailed.Errorf("%q is no key of an order", key)
		}
		o, derr := decode(ID(n), value)
		out = append(out, o)
		return derr
	})
	slices.SortFunc(out, func(a, b Order) int { return int(int64(a.ID) - int64(b.ID)) })
	return out, err
}

func (s *Orders) put(ctx context.Context, o *Order, durable bool) error {
	data, err := o.encode()
	if err != nil {
		return err
	}
	if err := s.cfg.Store.Put(ctx, o.ID.key(), data); err != nil || !durable {
		return err
	}
	return s.cfg.Store.Sync(ctx, o.ID.key())
}

// Start goes on with the orders of the daemon.
func (s *Orders) Start() error {
	var errs []error
	for _, c := range s.owners() {
		if o, _ := c.machine.State(); o.State == Running || o.State == Waiting {
			errs = append(errs, c.machine.Reenter())
		}
	}
	return errors.Join(errs...)
}

// Stop parks the orders of commands, bounded by ctx, and lets the others be: they go on at the next Start.
func (s *Orders) Stop(ctx context.Context) error {
	for _, c := range s.owners() {
		if o, _ := c.machine.State(); o.State == Running && o.Owner == Command {
			_ = c.machine.Send(evPark, reason.ParkedRestart)
		}
	}
	for _, c := range s.owners() {
		c.await(ctx, func(o Order) bool { return o.State != Running || o.Owner != Command || c.broken.Load() })
	}
	s.stop(errStopping)
	errs := []error{s.group.Close(ctx)}
	for _, c := range s.owners() {
		errs = append(errs, c.machine.Stop(ctx))
	}
	return errors.Join(errs...)
}

func (s *Orders) owners() []*owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*owner, 0, len(s.live))
	for _, c := range s.live {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *owner) int { return int(int64(a.id) - int64(b.id)) })
	return out
}

func (s *Orders) owner(id ID) (*owner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.live[id]; c != nil {
		return c, nil
	}
	return nil, reason.IDUnknown.Errorf("no order %s waits, runs or is parked", id).WithHint("Orders are listed by cartage deals.")
}

// Place takes a request, of which Key, Want, Providers, Transport, Budget, MaxExposure, Owner and Output count. A request that equals one that
// has not ended goes on with that; a budget then replaces the total. It returns at once.
func (s *Orders) Place(ctx context.Context, req Order, holder string) (ID, error) {
	s.placing.Lock()
	defer s.placing.Unlock()
	for _, c := range s.owners() {
		o, _ := c.machine.State()
		switch {
		case o.State.Final():
		case o.Key == req.Key && req.Token != "" && o.Token != req.Token:
			return 0, reason.TokenPermission.Errorf("order %s, which is not of this token, is for the same", o.ID)
		case o.Key == req.Key:
			if err := s.affords(ctx, o.Token, o.ID, req.Budget); err != nil {
				return 0, err
			}
			return c.id, c.goOn(ctx, &req, holder)
		case o.State == Running && req.Output != "" && o.Output == req.Output:
			return 0, reason.OutputBusy.Errorf("order %s writes to %s", o.ID, o.Output)
		}
	}
	if err := s.affords(ctx, req.Token, 0, req.Budget); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.last++
	req.ID = s.last
	s.mu.Unlock()
	req.State, req.Reason, req.Created, req.Asset = Running, reason.None, now(), "FIL"
	req.Changed, req.Deals = req.Created, nil
	c := s.track(req, false)
	c.renew(holder)
	if req.Owner == Queue { // nobody waits for it: it must not be forgotten
		if err := c.persist(evResume, req); err != nil {
			return 0, err
		}
	}
	return req.ID, c.machine.Reenter()
}

// Adopt makes an order for a deal that has none, parked: deals of an older version, or whose order was lost.
func (s *Orders) Adopt(ctx context.Context, req Order, d Deal) (ID, error) {
	s.placing.Lock()
	defer s.placing.Unlock()
	s.mu.Lock()
	s.last++
	req.ID = s.last
	s.mu.Unlock()
	req.State, req.Reason, req.Created, req.Asset = Parked, reason.ParkedRestart, now(), "FIL"
	req.Changed, req.Deals = req.Created, []Deal{d}
	if err := s.put(ctx, &req, true); err != nil {
		return 0, err
	}
	s.track(req, true)
	return req.ID, nil
}

// Has reports whether an order with a key runs, waits or is parked.
func (s *Orders) Has(key string) bool {
	for _, c := range s.owners() {
		if o, _ := c.machine.State(); o.Key == key && !o.State.Final() {
			return true
		}
	}
	return false
}

// Get is an order, also one that has ended.
func (s *Orders) Get(ctx context.Context, id ID) (Order, error) {
	if c, err := s.owner(id); err == nil {
		o, _ := c.machine.State()
		return o, nil
	}
	data, err := s.cfg.Store.Get(ctx, id.key())
	if errors.Is(err, datastore.ErrNotFound) {
		return Order{}, reason.IDUnknown.Errorf("there is no order %s", id).WithHint("Orders are listed by cartage deals.")
	}
	if err != nil {
		return Order{}, err
	}
	return decode(id, data)
}

// List are all orders, the oldest first.
func (s *Orders) List(ctx context.Context) ([]Order, error) {
	all, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range s.owners() {
		o, _ := c.machine.State()
		if i := slices.IndexFunc(all, func(have Order) bool { return have.ID == o.ID }); i >= 0 {
			all[i] = o
		} else {
			all = append(all, o)
		}
	}
	return all, nil
}

// Renew says that a holder of an order is there.
func (s *Orders) Renew(id ID, holder string) {
	if c, err := s.owner(id); err == nil {
		c.renew(holder)
	}
}

// Release says that a holder goes: the order is parked if it was the last.
func (s *Orders) Release(ctx context.Context, id ID, holder string, why reason.Reason) (Order, error) {
	c, err := s.owner(id)
	if err != nil {
		return s.Get(ctx, id)
	}
	if c.release(holder, s.cfg.Lease) {
		return s.Get(ctx, id)
	}
	return s.Park(ctx, id, why)
}

// Park stops an order: what is due is paid, nothing else until it is resumed. It waits for that, bounded by ctx.
func (s *Orders) Park(ctx context.Context, id ID, why reason.Reason) (Order, error) {
	return s.leave(ctx, id, evPark, why)
}

// Cancel ends an order and its deals. What arrived stays.
func (s *Orders) Cancel(ctx context.Context, id ID) (Order, error) { return s.leave(ctx, id, evCancel) }

func (s *Orders) leave(ctx context.Context, id ID, e event, args ...any) (Order, error) {
	c, err := s.owner(id)
	if err != nil {
		return Order{}, err
	}
	before, _ := c.machine.State()
	if err := c.machine.Send(e, args...); err != nil && !errors.Is(err, fsm.ErrTerminated) {
		return before, err
	}
	if !c.await(ctx, func(o Order) bool { return o.State.Final() || e == evPark && o.State == Parked }) {
		return before, reason.TimedOut.Errorf("order %s has not stopped yet", id)
	}
	o, _ := c.machine.State()
	if before.State == Parked && e == evCancel { // a deal that stands still for it
		err = s.cfg.Market.Leave(ctx, o, reason.Cancelled)
	}
	return o, err
}

// Resume goes on with a parked or waiting order; a budget replaces the total, and change what is wanted, unless it is nil.
func (s *Orders) Resume(ctx context.Context, id ID, budget *abi.TokenAmount, change func(want []byte) []byte, holder string) error {
	c, err := s.owner(id)
	if err != nil {
		return err
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	o, _ := c.machine.State()
	if err := s.affords(ctx, o.Token, id, budget); err != nil {
		return err
	}
	o.Budget = budget
	if change != nil {
		o.Want = change(o.Want)
	}
	return c.goOn(ctx, &o, holder)
}

// Await waits until an order that Place or Resume began has a deal or has stopped, and returns what stopped it before it had one.
func (s *Orders) Await(ctx context.Context, id ID, holder string) error {
	c, err := s.owner(id)
	if err != nil {
		return nil // it has ended: who placed it knows how
	}
	return c.begun(ctx, holder)
}

// MaySpend is the question of the payment channels (O-01): money is spent for a deal of an order that runs, and for no other.
func (s *Orders) MaySpend(key string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(key, "c"), 10, 64)
	if err != nil {
		return reason.Cancelled.Errorf("%q is no deal of an order", key)
	}
	s.mu.Lock()
	c := s.deals[Deal(n)]
	s.mu.Unlock()
	if c == nil {
		return reason.ParkedRestart.Errorf("deal %s has no order that runs", key)
	}
	o, _ := c.machine.State()
	if o.State == Running {
		return nil
	}
	why := o.Reason
	if !why.Parked() {
		why = reason.ParkedAsked
	}
	return why.Errorf("order %s is %s", o.ID, o.State)
}

// Holds reports whether a deal stands still at the start of its market: it goes on only for an order that does so by itself.
func (s *Orders) Holds(d Deal) bool {
	o, ok := s.OrderOf(d)
	return !ok || o.State != Running || o.Owner == Command
}

// OrderOf is the order of a deal, if it has one that has not ended.
func (s *Orders) OrderOf(d Deal) (Order, bool) {
	s.mu.Lock()
	c := s.deals[d]
	s.mu.Unlock()
	if c == nil {
		return Order{}, false
	}
	o, _ := c.machine.State()
	return o, true
}
