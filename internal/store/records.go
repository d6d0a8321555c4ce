package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// records is a record store over an engine, which adds only while there is room. Deleting is always possible. It is safe for concurrent use.
type records struct {
	*engine
	room *diskReserve

	mu    sync.Mutex
	lists map[*list]struct{} // that are being read
}

var _ datastore.Batching = (*records)(nil)

func newRecords(e *engine, r *diskReserve) *records {
	return &records{engine: e, room: r, lists: map[*list]struct{}{}}
}

// Get implements datastore.Read.
func (r *records) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	v, err := r.getValue(k.Bytes())
	if err == nil && v == nil {
		return nil, datastore.ErrNotFound
	}
	return v, err
}

// Has implements datastore.Read.
func (r *records) Has(_ context.Context, k datastore.Key) (bool, error) {
	v, err := r.getValue(k.Bytes())
	return v != nil, err
}

// GetSize implements datastore.Read.
func (r *records) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	v, err := r.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

// Put implements datastore.Write.
func (r *records) Put(_ context.Context, k datastore.Key, value []byte) error {
	if err := r.room.checkReserve(); err != nil {
		return err
	}
	b := r.db.NewBatch()
	if err := b.Set(k.Bytes(), value, nil); err != nil {
		return errors.Join(err, b.Close())
	}
	return r.commitBatch(b, false)
}

// Delete implements datastore.Write.
func (r *records) Delete(_ context.Context, k datastore.Key) error {
	b := r.db.NewBatch()
	if err := b.Delete(k.Bytes(), nil); err != nil {
		return errors.Join(err, b.Close())
	}
	return r.commitBatch(b, false)
}

// Sync implements datastore.Datastore: what was written before is on stable storage, whatever its key.
func (r *records) Sync(context.Context, datastore.Key) error {
	return r.commitBatch(r.db.NewBatch(), true)
}

// Close implements datastore.Datastore. Lists that are being read end with an error.
func (r *records) Close() error {
	r.mu.Lock()
	open := r.lists
	r.lists = nil
	r.mu.Unlock()
	var err error
	for l := range open {
		err = errors.Join(err, l.closeList())
	}
	return errors.Join(err, r.closeDatabase())
}

// Batch implements datastore.Batching.
func (r *records) Batch(context.Context) (datastore.Batch, error) {
	if err := r.failureOf(); err != nil {
		return nil, err
	}
	return &recordBatch{r: r, b: r.db.NewBatch()}, nil
}

type recordBatch struct {
	r    *records
	b    *pebble.Batch
	puts bool // what only deletes makes room
}

var errCommitted = errors.New("the batch was committed already")

// Put implements datastore.Batch.
func (b *recordBatch) Put(_ context.Context, k datastore.Key, value []byte) error {
	if b.b == nil {
		return errCommitted
	}
	b.puts = true
	return b.b.Set(k.Bytes(), value, nil)
}

// Delete implements datastore.Batch.
func (b *recordBatch) Delete(_ context.Context, k datastore.Key) error {
	if b.b == nil {
		return errCommitted
	}
	return b.b.Delete(k.Bytes(), nil)
}

// Commit implements datastore.Batch. One that was refused for want of room may be committed again.
func (b *recordBatch) Commit(context.Context) error {
	if b.b == nil {
		return errCommitted
	}
	if b.puts {
		if err := b.r.room.checkReserve(); err != nil {
			return err
		}
	}
	batch := b.b
	b.b = nil
	return b.r.commitBatch(batch, false)
}

// Query implements datastore.Read. A list that cannot be read to its end ends with an error.
func (r *records) Query(_ context.Context, q query.Query) (query.Results, error) {
	prefix := datastore.NewKey(q.Prefix).String()
	if prefix != "/" {
		prefix += "/"
	}
	l, err := r.newList([]byte(prefix), q)
	if err != nil {
		return nil, err
	}
	rest := q
	rest.Prefix = ""
	return query.NaiveQueryApply(rest, query.ResultsFromIterator(q, query.Iterator{Next: l.nextEntry, Close: l.closeList})), nil
}

// list is a query that is being read. The store may close it at any time.
type list struct {
	r     *records
	q     query.Query
	mu    sync.Mutex
	it    *pebble.Iterator // nil once it is closed
	begun bool
	ended bool // its end or an error was told
}

func (r *records) newList(prefix []byte, q query.Query) (_ *list, err error) {
	defer r.recovered(&err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lists == nil {
		return nil, errClosed
	}
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return nil, r.namedError(err)
	}
	l := &list{r: r, q: q, it: it}
	r.lists[l] = struct{}{}
	return l, nil
}

func (l *list) nextEntry() (query.Result, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return query.Result{}, false
	}
	e, ok, err := l.readEntry()
	if err != nil {
		l.ended = true
		return query.Result{Error: err}, true
	}
	l.ended = !ok
	return query.Result{Entry: e}, ok
}

func (l *list) readEntry() (e query.Entry, ok bool, err error) {
	defer l.r.recovered(&err)
	if l.it == nil {
		return e, false, errClosed
	}
	if l.begun {
		ok = l.it.Next()
	} else {
		ok, l.begun = l.it.First(), true
	}
	if !ok {
		return e, false, l.r.namedError(l.it.Error())
	}
	e.Key = string(l.it.Key())
	if l.q.KeysOnly && !l.q.ReturnsSizes {
		return e, true, nil
	}
	v, err := l.it.ValueAndErr()
	if err != nil {
		return e, false, fmt.Errorf("record %q: %w", e.Key, l.r.namedError(err))
	}
	e.Size = len(v)
	if !l.q.KeysOnly {
		e.Value = append(make([]byte, 0, len(v)), v...)
	}
	return e, true, nil
}

func (l *list) closeList() (err error) {
	defer l.r.recovered(&err)
	l.r.mu.Lock()
	delete(l.r.lists, l)
	l.r.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	it := l.it
	l.it = nil
	if it == nil {
		return nil
	}
	_ = it.Close() // its error was told by next
	return nil
}
