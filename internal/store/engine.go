package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cartage-dev/cartage/internal/reason"
)

// engine is an opened database with what is known of its health. Where the library would end the process, the engine ends only what called
// it, keeps the fault, writes nothing any more, and goes on reading what can be read. It is safe for concurrent use.
type engine struct {
	db    *pebble.DB
	dir   string
	proof *proof       // nil in memory
	room  *diskReserve // nil where space is not looked after

	fs     vfs.FS                // with the tables
	tables sstable.ReaderOptions // how they are read alone
	lost   error                 // what was acknowledged and is not there, of a store that was accepted as it is

	fault   atomic.Pointer[reason.Error] // the first one
	stopped chan struct{}                // closed when a goroutine of the engine was ended: what waits for it would wait for ever
	stop    sync.Once
	closed  atomic.Bool
	full    chan struct{} // has one when a flush found no room: the library tries again for as long as there is none

	end       chan struct{} // closed when the engine is
	followers sync.WaitGroup

	order sync.Mutex // synced commits are numbered in the order in which the log has them
	last  mark
}

// errClosed is what a closed store answers.
var errClosed = errors.New("the store is closed")

func (e *engine) pebbleOptions(fs vfs.FS) *pebble.Options {
	return &pebble.Options{
		FS:                 fs,
		Logger:             engineLog{e},
		EventListener:      e.eventListener(),
		MemTableSize:       4 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
	}
}

// openEngine opens a database and proves that everything is in it whose commit was acknowledged. The options' lock, if there is one, is
// shared.
func openEngine(dir string, how openOptions) (*engine, error) {
	e := &engine{dir: dir, stopped: make(chan struct{}), end: make(chan struct{}), full: make(chan struct{}, 1)}
	o := e.pebbleOptions(how.fs)
	o.Lock, o.ReadOnly = how.lock, how.readOnly
	o.DisableAutomaticCompactions = how.shadow // what they write would stay in memory
	e.fs, e.tables = how.fs, o.MakeReaderOptions()
	if how.lock != nil {
		e.room = newDiskReserve(dir)
	}
	if how.maxFiles > 0 {
		o.MaxOpenFiles = how.maxFiles
	}
	if err := e.openDatabase(o, how); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return e, nil
}

func (e *engine) openDatabase(o *pebble.Options, how openOptions) error {
	var err error
	if how.proved {
		if e.proof, err = openProof(how.fs, e.dir, how.readOnly); err != nil {
			return err
		}
		if e.lost = e.proof.checkManifest(); e.lost != nil && !how.accept {
			return errors.Join(e.lost, e.proof.closeFiles())
		}
	}
	opened := make(chan *pebble.DB, 1)
	err = e.runGuarded(func() error {
		db, err := pebble.Open(e.dir, o)
		opened <- db
		return err
	})
	if err == nil {
		e.db = <-opened
	}
	if err == nil && e.proof != nil {
		err = e.proveDurable(how)
	}
	if err != nil {
		e.endFollowers()
		if e.db != nil {
			err = errors.Join(err, e.runGuarded(e.db.Close))
		}
		if e.proof != nil {
			err = errors.Join(err, e.proof.closeFiles())
		}
	}
	return err
}

// proveDurable compares what is there with what was acknowledged.
func (e *engine) proveDurable(how openOptions) error {
	last, err := e.lastMark()
	switch {
	case err == nil:
		e.lost = errors.Join(e.lost, e.proof.checkLast(last))
	case how.accept && how.shadow: // the mark is where the store is damaged
		e.lost, err = errors.Join(e.lost, err), nil
	}
	if err == nil && !how.accept {
		err = e.lost
	}
	if err != nil {
		return err
	}
	e.last = last
	if how.readOnly {
		return nil
	}
	e.followers.Go(func() { e.proof.followWrites(e.end, e.failEngine) })
	if how.accept || last.zero() { // a number of its own, so that no earlier proof fits
		e.last.seq = max(last.seq, e.proof.nextNumber())
		return e.commitBatch(e.db.NewBatch(), true)
	}
	return e.namedError(e.proof.renewMark(last))
}

// lastMark is the mark of the last synced commit that is there.
func (e *engine) lastMark() (m mark, err error) {
	v, err := e.getValue([]byte(markKey))
	if err != nil || v == nil {
		return m, err
	}
	return m, m.read(v)
}

// runGuarded calls f on a goroutine of its own, which the engine may end: then what it called fails with the fault.
func (e *engine) runGuarded(f func() error) error {
	select {
	case err := <-e.callGuarded(f):
		return err
	case <-e.stopped:
		return e.failureOf()
	}
}

func (e *engine) callGuarded(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		result := errStopped
		defer func() {
			if p := recover(); p != nil {
				result = panicError(p)
			}
			if errors.Is(result, errStopped) {
				result = e.failureOf()
			}
			done <- e.namedError(result)
		}()
		result = f()
	}()
	return done
}

func panicError(p any) error {
	if err, ok := p.(error); ok {
		return err
	}
	return fmt.Errorf("%v", p)
}

var errStopped = errors.New("stopped by the engine")

// commitBatch applies a batch. With sync it returns after the batch, and the proof that it was acknowledged, are on stable storage. The batch is
// closed.
func (e *engine) commitBatch(b *pebble.Batch, sync bool) error {
	if err := e.failureOf(); err != nil {
		return errors.Join(err, b.Close())
	}
	if !sync {
		return e.brokenBatch(e.runGuarded(func() error { return b.Commit(pebble.NoSync) }), b)
	}
	var m mark
	err := e.runGuarded(func() (err error) {
		if m, err = e.writeBatch(b); err != nil {
			return err
		}
		return b.SyncWait()
	})
	if err == nil && e.proof != nil {
		err = e.proof.acknowledge(m)
	}
	return e.brokenBatch(err, b)
}

// writeBatch numbers a batch and puts it into the log.
func (e *engine) writeBatch(b *pebble.Batch) (mark, error) {
	e.order.Lock()
	defer e.order.Unlock()
	m := e.last.next()
	if err := b.Set([]byte(markKey), m.append(nil), nil); err != nil {
		return m, err
	}
	if err := e.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return m, err
	}
	e.last = m
	return m, nil
}

// brokenBatch notes a write that failed: what came after it could not rely on it.
func (e *engine) brokenBatch(err error, b *pebble.Batch) error {
	if err == nil {
		return b.Close()
	}
	e.failEngine(err)
	return e.namedError(err)
}

// getValue returns a copy of a value, nil when there is none.
func (e *engine) getValue(key []byte) (out []byte, err error) {
	defer e.recovered(&err)
	v, closer, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, e.namedError(err)
	}
	out = append(make([]byte, 0, len(v)), v...)
	return out, closer.Close()
}

// eachRecord calls f for every key of the bounds, in order, until f returns false.
func (e *engine) eachRecord(bounds *pebble.IterOptions, f func(key, value []byte) bool) (err error) {
	defer e.recovered(&err)
	it, err := e.db.NewIter(bounds)
	if err != nil {
		return e.namedError(err)
	}
	defer func() { err = errors.Join(err, e.namedError(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return e.namedError(err)
		}
		if !f(it.Key(), v) {
			break
		}
	}
	return nil
}

// recovered turns a panic of the engine into an error.
func (e *engine) recovered(err *error) {
	if p := recover(); p != nil {
		*err = e.namedError(panicError(p))
	}
}

// failureOf returns the fault, if there is one.
func (e *engine) failureOf() error {
	if f := e.fault.Load(); f != nil {
		return f
	}
	if e.closed.Load() {
		return errClosed
	}
	return nil
}

// namedError is an error of the engine with the folder, the file where it is known, and a reason.
func (e *engine) namedError(err error) error {
	if err == nil || errors.Is(err, reason.StoreFailed) || errors.Is(err, reason.StateRolledBack) || errors.Is(err, reason.DiskFull) || errors.Is(err, errClosed) {
		return err
	}
	if errors.Is(err, pebble.ErrClosed) {
		return errClosed
	}
	if noRoom(err) {
		return reason.DiskFull.Errorf("store %s: %w", e.dir, err)
	}
	file := e.dir
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		file = info.Path
	}
	if pebble.IsCorruptionError(err) || file != e.dir {
		return reason.StoreFailed.Errorf("%s is damaged: %w", file, err).WithHint(rescueHint)
	}
	return reason.StoreFailed.Errorf("store %s failed: %w", e.dir, err).WithHint(mendHint)
}

func noRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// What helps.
const (
	rescueHint = "Stop what uses the home and copy it as it is; cartage doctor --rescue shows what can be read. Then restore a backup."
	mendHint   = "Look after the disk, then start again: what was committed before is there."
)

// failEngine keeps the first fault.
func (e *engine) failEngine(err error) {
	var named *reason.Error
	if !errors.As(e.namedError(err), &named) {
		return
	}
	if e.fault.CompareAndSwap(nil, named) {
		slog.Error("store", "error", named)
	}
}

// eventListener keeps what goes wrong in the background. A table that is damaged is told to who reads it, and stops no writes; a full disk passes.
func (e *engine) eventListener() *pebble.EventListener {
	return &pebble.EventListener{
		DataCorruption: func(info pebble.DataCorruptionInfo) {},
		BackgroundError: func(err error) {
			switch {
			case noRoom(err):
				select {
				case e.full <- struct{}{}:
				default:
				}
			case !pebble.IsCorruptionError(err):
				e.failEngine(err)
			}
		},
		ManifestCreated: func(pebble.ManifestCreateInfo) { e.proof.markStale() },
		FlushEnd:        func(pebble.FlushInfo) { e.proof.markStale() },
		CompactionEnd:   func(pebble.CompactionInfo) { e.proof.markStale() },
		TableIngested:   func(pebble.TableIngestInfo) { e.proof.markStale() },
	}
}

// closeGrace bounds how long the engine may take to close after it failed.
const closeGrace = time.Second

// closeDatabase flushes and closes the database. After a fault it gives up what the engine cannot end any more.
func (e *engine) closeDatabase() error {
	if !e.closed.CompareAndSwap(false, true) {
		return nil
	}
	done := e.callGuarded(func() error {
		if e.fault.Load() == nil && e.proof != nil && !e.proof.readOnly {
			if err := errors.Join(e.flushMemory(), e.proof.renewMark(mark{})); err != nil { // while the lock is held
				return errors.Join(err, e.db.Close())
			}
		}
		return e.db.Close()
	})
	var err error
	if e.fault.Load() == nil {
		err = <-done
	} else {
		select {
		case <-done:
		case <-time.After(closeGrace):
		}
	}
	e.endFollowers()
	if e.proof != nil {
		err = errors.Join(err, e.proof.closeFiles())
	}
	return err
}

// flushMemory writes tables of what is in memory. On a full disk it does not, nor begins a new log for it: all of it is in the log that there is, which
// the next start reads.
func (e *engine) flushMemory() error {
	if e.room.checkReserve() != nil {
		return nil
	}
	select {
	case <-e.full: // of an earlier flush
	default:
	}
	done, err := e.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-e.full:
	}
	return nil
}

func (e *engine) endFollowers() {
	close(e.end)
	e.followers.Wait()
}

// engineLog is where the library reports. What it cannot go on after ends the goroutine, not the process.
type engineLog struct{ e *engine }

func (engineLog) Infof(string, ...any)                   {}
func (engineLog) Errorf(string, ...any)                  {}
func (engineLog) Eventf(context.Context, string, ...any) {}
func (engineLog) IsTracingEnabled(context.Context) bool  { return false }

// Fatalf does not return.
func (l engineLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = cause
		}
	}
	l.e.failEngine(err)
	l.e.stop.Do(func() { close(l.e.stopped) })
	runtime.Goexit()
}

// openOptions are how an engine is opened.
type openOptions struct {
	fs       vfs.FS
	lock     *pebble.Lock
	maxFiles int
	proved   bool // with a proof of what was acknowledged
	accept   bool // what is there is taken as it is, whatever the proof says
	readOnly bool
	shadow   bool // written in memory only
}
