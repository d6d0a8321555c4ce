package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	pay "github.com/cartage-dev/cartage/paych"
)

// Refusals: the transaction was not applied and used no seq.
var (
	ErrRefused      = errors.New("transaction refused")
	ErrWrongSeq     = fmt.Errorf("%w: wrong seq", ErrRefused)
	ErrIntentReused = fmt.Errorf("%w: intent was used for something else", ErrRefused)
	ErrQueueFull    = fmt.Errorf("%w: the queue is full", ErrRefused)
	ErrFaucet       = errors.New("faucet refused")
	ErrNotLedger    = errors.New("no ledger here: run cartage ledger init")
	// ErrReadOnly means that the ledger could not write once and takes nothing more: what it answered before is stored.
	ErrReadOnly = errors.New("ledger is read-only")
	// ErrClock means that the clock of the ledger has jumped ahead; its operator has to confirm the time.
	ErrClock = errors.New("the clock of the ledger has jumped ahead")
)

// Batches and queue (4.5).
const (
	maxBatch  = 512
	maxQueue  = 4096
	maxAhead  = 2880
	validFor  = 600 // epochs of a transaction of ours
	schema    = 1
	faucetFIL = 1000
)

// network is the constant part of a ledger.
type network struct {
	ID          []byte
	Schema      uint64
	Genesis     uint64 // unix nanoseconds
	Epoch       uint64 // nanoseconds
	SettleDelay uint64
	Operator    address.Address
	Dev         bool
}

func (n *network) fields() []wire.Field {
	return []wire.Field{wire.Bytes("id", &n.ID, 32), wire.Uint("schema", &n.Schema), wire.Uint("genesis", &n.Genesis), wire.Uint("epoch", &n.Epoch),
		wire.Uint("settleDelay", &n.SettleDelay), wire.Address("operator", &n.Operator), wire.Bool("dev", &n.Dev)}
}

// Options of a new ledger.
type Options struct {
	Epoch       time.Duration // 30 s, as on Filecoin
	SettleDelay uint64        // 1440 epochs
	Dev         bool          // with a faucet
}

// Ledger is the opened store of a ledger. It is safe for concurrent use.
type Ledger struct {
	kv       *store.KV
	journal  *journal // nil in a replay
	net      network
	operator *pay.Key
	clock    clock
	broken   atomic.Pointer[error] // why nothing can be written any more

	queue chan *submission
	done  chan struct{}
	stop  context.CancelFunc

	mu     sync.Mutex
	faucet map[address.Address]time.Time
}

type submission struct {
	tx   *Tx
	data []byte
	cid  cid.Cid
	done chan error
}

// Init makes a ledger in home, with an operator key of its own.
func Init(home string, o Options) error {
	fsys := blob.OS{}
	if o.Epoch <= 0 || o.SettleDelay == 0 {
		return errors.New("epoch and settle delay must be positive")
	}
	wallet, err := pay.OpenWallet(fsys, filepath.Join(home, "operator"))
	if err != nil {
		return err
	}
	kv, err := store.OpenKV(filepath.Join(home, "ledger"))
	if err != nil {
		return err
	}
	defer kv.Close()
	if b, err := kv.Get([]byte(keyNetwork)); err != nil || b != nil {
		return errors.Join(err, fmt.Errorf("%s holds a ledger already", home))
	}
	op, err := wallet.New()
	if err != nil {
		return err
	}
	n := network{ID: make([]byte, 32), Schema: schema, Genesis: uint64(time.Now().UnixNano()), Epoch: uint64(o.Epoch), SettleDelay: o.SettleDelay, Operator: op, Dev: o.Dev}
	if _, err := rand.Read(n.ID); err != nil {
		return err
	}
	v := newView(kv)
	if err := v.put(keyNetwork, n.fields()); err != nil {
		return err
	}
	return v.commit(true)
}

// Option changes how a ledger is opened.
type Option func(*Ledger)

// WithClock replaces the wall clock, for tests and simulations.
func WithClock(now func() time.Time) Option { return func(l *Ledger) { l.clock.now = now } }

// ConfirmClock says that the clock is right although it is far ahead of the last time that the ledger saw.
func ConfirmClock() Option { return func(l *Ledger) { l.clock.confirmed = true } }

// Open opens a ledger and starts its writer.
func Open(ctx context.Context, home string, options ...Option) (*Ledger, error) {
	kv, err := store.OpenKV(filepath.Join(home, "ledger"))
	if err != nil {
		return nil, repairable(home, err)
	}
	l := &Ledger{kv: kv, clock: clock{now: time.Now}, queue: make(chan *submission, maxQueue), done: make(chan struct{}), faucet: map[address.Address]time.Time{}}
	for _, o := range options {
		o(l)
	}
	b, err := kv.Get([]byte(keyNetwork))
	if err == nil && b == nil {
		err = fmt.Errorf("%s: %w", home, ErrNotLedger)
	}
	if err == nil {
		err = wire.DecodeTuple(b, "network", l.net.fields())
	}
	if err == nil && l.net.Schema > schema {
		err = fmt.Errorf("ledger has schema %d, this program knows %d", l.net.Schema, schema)
	}
	var wallet *pay.Wallet
	if err == nil {
		wallet, err = pay.OpenWallet(blob.OS{}, filepath.Join(home, "operator"))
	}
	if err == nil {
		l.operator, err = wallet.Key(l.net.Operator)
	}
	if err == nil {
		err = l.startClock()
	}
	if err == nil {
		err = l.openJournal(home)
	}
	if err != nil {
		return nil, errors.Join(err, kv.Close())
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go l.write(ctx)
	return l, nil
}

// repairable says what helps a store that is damaged, if the journal is there.
func repairable(home string, err error) error {
	if !errors.Is(err, reason.StateRolledBack) && !errors.Is(err, reason.StoreFailed) {
		return err
	}
	if _, serr := os.Stat(filepath.Join(home, journalName)); serr != nil {
		return err
	}
	return reason.From(err).Errorf("%w", err).WithHint(repairHint)
}

// Close ends the writer and closes the store.
func (l *Ledger) Close() error {
	l.stop()
	<-l.done
	return errors.Join(l.journal.f.Close(), l.kv.Close())
}

// Submit applies a signed transaction and returns after it is durable. The same bytes again answer the same.
func (l *Ledger) Submit(ctx context.Context, data []byte) (cid.Cid, error) {
	t, err := l.check(data)
	if err != nil {
		return cid.Undef, err
	}
	return l.submit(ctx, t, data)
}

// check makes the checks that need no store.
func (l *Ledger) check(data []byte) (*Tx, error) {
	t, err := DecodeTx(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if !bytes.Equal(t.Network, l.net.ID) {
		return nil, fmt.Errorf("%w: it is for another ledger", ErrRefused)
	}
	if len(t.Intent) != 16 {
		return nil, fmt.Errorf("%w: intent must be 16 bytes", ErrRefused)
	}
	if err := t.verify(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return t, nil
}

func (l *Ledger) submit(ctx context.Context, t *Tx, data []byte) (cid.Cid, error) {
	if err := l.writable(); err != nil {
		return cid.Undef, err
	}
	c, err := txCid(data)
	if err != nil {
		return cid.Undef, err
	}
	s := &submission{t, data, c, make(chan error, 1)}
	select {
	case l.queue <- s:
	default:
		return cid.Undef, ErrQueueFull
	}
	select {
	case err := <-s.done:
		if err != nil {
			return cid.Undef, err // a value beside an error makes the RPC library log the whole call
		}
		return c, nil
	case <-l.done:
		return cid.Undef, errors.New("ledger is closed")
	case <-ctx.Done():
		return cid.Undef, ctx.Err()
	}
}

// write is the single writer: it groups what waits into one durable batch.
func (l *Ledger) write(ctx context.Context) {
	defer close(l.done)
	mark := time.NewTicker(markEvery)
	defer mark.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-mark.C:
			l.mark()
		case s := <-l.queue:
			batch := []*submission{s}
			for len(batch) < maxBatch && len(l.queue) > 0 {
				batch = append(batch, <-l.queue)
			}
			l.apply(batch)
		}
	}
}

func (l *Ledger) apply(batch []*submission) {
	v := newView(l.kv)
	m, err := v.meta()
	epoch := uint64(0)
	if err == nil {
		epoch = l.epoch(m)
		if err = l.clock.trusted(); err != nil {
			l.noteJump(v)
			err = errors.Join(err, l.commit(v))
		}
	}
	errs := make([]error, len(batch))
	if err == nil {
		err = l.all(v, batch, epoch, errs)
	}
	if err == nil && len(v.changed) > 0 {
		err = l.commit(v)
	}
	for i, s := range batch {
		if err != nil {
			errs[i] = err
		}
		s.done <- errs[i]
	}
}

// all applies the transactions of a batch one after the other. An error of its own means that nothing may be written.
func (l *Ledger) all(v *view, batch []*submission, epoch uint64, errs []error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a transaction broke the ledger: %v", p)
		}
	}()
	for i, s := range batch {
		errs[i] = l.one(v, s, epoch)
	}
	return nil
}

// one applies one transaction to the view: a refused one changes nothing, a failed one leaves seq and receipt.
func (l *Ledger) one(base *view, s *submission, epoch uint64) error {
	v := base.child()
	if err := l.record(v, s, epoch); err != nil {
		return err
	}
	v.merge()
	return nil
}

// record applies one transaction to a view that is thrown away when it is refused.
func (l *Ledger) record(v *view, s *submission, epoch uint64) error {
	m, err := v.meta()
	if err != nil {
		return err
	}
	key := string(s.cid.Bytes())
	if r, err := v.receipt(key); err != nil || r != nil {
		return err
	}
	ikey := keyIntent + string(s.tx.From.Bytes()) + string(s.tx.Intent)
	if prev, err := v.get(ikey); err != nil || prev != nil {
		return errors.Join(err, ErrIntentReused)
	}
	if s.tx.ValidUntil < epoch || s.tx.ValidUntil > epoch+maxAhead {
		return fmt.Errorf("%w: valid until %d, now is %d", ErrRefused, s.tx.ValidUntil, epoch)
	}
	from, err := v.account(s.tx.From, s.tx.From == l.net.Operator, m)
	if err != nil {
		return err
	}
	if from == nil {
		return fmt.Errorf("%w: %w: account %s does not exist", ErrRefused, pay.ErrWalletFunds, s.tx.From)
	}
	if from.Seq != s.tx.Seq {
		return fmt.Errorf("%w: account has %d, transaction %d", ErrWrongSeq, from.Seq, s.tx.Seq)
	}
	from.Seq++
	if err := v.putAccount(from); err != nil {
		return err
	}
	r := &receipt{Epoch: epoch, Position: m.Position}
	work, wm := v.child(), *m
	ch, err := l.change(work, &wm, s.tx, epoch)
	var f *failure
	switch {
	case err == nil:
		work.merge()
		*m, r.Channel = wm, ch
	case errors.As(err, &f):
		r.ExitCode, r.Message = uint64(f.code), f.Error()
	default:
		return err
	}
	m.Epoch = epoch
	v.changed[keyTx+key] = s.data
	v.changed[ikey] = s.cid.Bytes()
	v.append(m, s.cid.Bytes(), epoch)
	if err := v.put(keyReceipt+key, r.fields()); err != nil {
		return err
	}
	return v.put(keyMeta, m.fields())
}
