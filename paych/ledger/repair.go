package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	pay "github.com/cartage-dev/cartage/paych"
)

// Repaired is what a repair did.
type Repaired struct {
	Transactions uint64 // that were applied again
	Unread       int64  // bytes of the journal behind them that are damaged
	Aside        string // where the old store is; empty if there was none
}

// ErrJournalDamaged means that the journal is damaged before its end.
var ErrJournalDamaged error = reason.StoreFailed.Errorf("the journal of the ledger is damaged")

// Repair makes the store of a ledger again from its journal, and puts the old store aside; nothing is deleted. A journal that is damaged
// is refused with ErrJournalDamaged, unless what is behind the damage is given up. No process may have the ledger open.
func Repair(ctx context.Context, home string, giveUp bool) (*Repaired, error) {
	fsys, dir := blob.OS{}, filepath.Join(home, "ledger")
	unlock, err := store.LockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	file, err := fsys.Open(filepath.Join(home, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, reason.StoreFailed.Errorf("there is no journal in %s", home).WithHint("Restore a backup.")
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fresh := dir + ".repaired"
	if err := fsys.RemoveAll(fresh); err != nil { // of a repair that was interrupted
		return nil, err
	}
	out := &Repaired{}
	end, err := replayJournal(ctx, home, fresh, file)
	if err != nil {
		return nil, errors.Join(err, fsys.RemoveAll(fresh))
	}
	out.Transactions, out.Unread = end.entries, end.trailing
	if out.Unread > 0 && !giveUp {
		return out, errors.Join(fmt.Errorf("%w: %d transactions are whole, %d bytes behind them cannot be read", ErrJournalDamaged, end.entries, end.trailing), fsys.RemoveAll(fresh))
	}
	out.Aside = fmt.Sprintf("%s.damaged-%s", dir, time.Now().UTC().Format("20060102T150405.000"))
	if err := fsys.Rename(dir, out.Aside); err != nil {
		return nil, err
	}
	if err := fsys.Rename(fresh, dir); err != nil {
		return nil, err
	}
	return out, fsys.SyncDir(home)
}

// replayJournal applies a journal to a new store.
func replayJournal(ctx context.Context, home, dir string, file blob.File) (end journalEnd, err error) {
	kv, err := store.OpenKV(dir)
	if err != nil {
		return end, err
	}
	defer func() { err = errors.Join(err, kv.Close()) }()
	r := &rebuild{l: &Ledger{kv: kv}}
	begun := false
	end, err = readJournal(file, &r.l.net, func(epoch uint64, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !begun {
			begun = true
			if err := r.begin(home); err != nil {
				return err
			}
		}
		c, err := txCid(data)
		if err != nil {
			return err
		}
		return r.apply(c, data, epoch)
	})
	if err != nil {
		return end, err
	}
	if end.off == 0 {
		return end, fmt.Errorf("%w: its beginning cannot be read", ErrJournalDamaged)
	}
	v := newView(kv)
	if err := v.put(keyNetwork, r.l.net.fields()); err != nil {
		return end, err
	}
	return end, v.commit(true)
}

// begin opens what applying needs beside the store.
func (r *rebuild) begin(home string) error {
	wallet, err := pay.OpenWallet(blob.OS{}, filepath.Join(home, "operator"))
	if err != nil {
		return err
	}
	r.l.operator, err = wallet.Key(r.l.net.Operator)
	return err
}
