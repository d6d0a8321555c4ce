package ledger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"

	"golang.org/x/crypto/blake2b"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// The journal is the log of the ledger once more, in a plain file outside the store: what was answered is in both, and either mends the other.
// A record is its length (4 bytes), its body, and the first 16 bytes of the blake2b-256 of both. The body of the first record is the network,
// that of each other one the epoch (8 bytes) and the signed transaction.
const (
	journalName   = "journal"
	journalSum    = 16
	maxJournalLen = maxTx + epochSize
)

// journal is the opened file, for the writer of the ledger.
type journal struct {
	f blob.File
	journalEnd
}

// journalEnd is where a journal ends: the records up to there are whole and follow from each other.
type journalEnd struct {
	off      int64
	entries  uint64
	hash     []byte // of the log behind the last entry
	trailing int64  // bytes behind the end that are no whole record
}

func journalRecord(body []byte) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	sum := blake2b.Sum256(b)
	return append(b, sum[:journalSum]...)
}

// readRecord reads the next record; io.ErrUnexpectedEOF where none is whole.
func readRecord(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxJournalLen {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, len(head)+int(n)+journalSum)
	copy(b, head[:])
	if _, err := io.ReadFull(r, b[len(head):]); err != nil {
		return nil, err
	}
	body := b[len(head) : len(b)-journalSum]
	if sum := blake2b.Sum256(b[:len(b)-journalSum]); !bytes.Equal(sum[:journalSum], b[len(b)-journalSum:]) {
		return nil, io.ErrUnexpectedEOF
	}
	return body, nil
}

// readJournal reads a journal to its end, or to its first record that is not whole, and gives each entry to f.
func readJournal(file blob.File, n *network, f func(epoch uint64, data []byte) error) (end journalEnd, err error) {
	size, err := file.Size()
	if err != nil {
		return end, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 1<<20)
	end.hash = make([]byte, hashSize)
	for {
		end.trailing = size - end.off
		body, err := readRecord(r)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		if end.off == 0 {
			if err := wire.DecodeTuple(body, "network", n.fields()); err != nil {
				return end, err
			}
		} else if err := end.entry(body, f); err != nil {
			return end, fmt.Errorf("journal entry %d: %w", end.entries, err)
		}
		end.off += int64(4 + len(body) + journalSum)
	}
}

func (e *journalEnd) entry(body []byte, f func(epoch uint64, data []byte) error) error {
	if len(body) < epochSize {
		return fmt.Errorf("it has %d bytes", len(body))
	}
	epoch, data := binary.BigEndian.Uint64(body), body[epochSize:]
	c, err := txCid(data)
	if err != nil {
		return err
	}
	e.hash = linkHash(e.hash, c.Bytes(), epoch)
	e.entries++
	if f == nil {
		return nil
	}
	return f(epoch, data)
}

// openJournal opens the journal of a ledger whose store is open and proved, and brings it to where the store is. A journal that has more
// than the store tells what the store has lost.
func (l *Ledger) openJournal(home string) error {
	m, err := newView(l.kv).meta()
	if err != nil {
		return err
	}
	fsys, name := blob.OS{}, filepath.Join(home, journalName)
	f, err := fsys.OpenRW(name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = fsys.Create(name, 0o600); err == nil {
			err = fsys.SyncDir(home)
		}
	}
	if err != nil {
		return err
	}
	l.journal = &journal{f: f}
	err = l.journal.catchUp(l.kv, &l.net, m)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return nil
}

// catchUp compares the journal with the store.
func (j *journal) catchUp(kv *store.KV, net *network, m *meta) error {
	var n network
	end, err := readJournal(j.f, &n, nil)
	if err != nil {
		return reason.StoreFailed.Errorf("the journal of the ledger cannot be read: %w", err)
	}
	if end.off > 0 && !bytes.Equal(n.ID, net.ID) {
		return reason.StoreFailed.Errorf("the journal is that of another ledger").WithHint("Put the files of one ledger together.")
	}
	if end.entries > m.Position {
		return reason.StateRolledBack.Errorf("the store of the ledger has %d transactions, its journal %d: the last %d are missing from the store",
			m.Position, end.entries, end.entries-m.Position).WithHint(repairHint)
	}
	hash, err := hashAt(kv, end.entries)
	if err != nil {
		return err
	}
	if !bytes.Equal(hash, end.hash) {
		return reason.StateRolledBack.Errorf("the journal and the store of the ledger differ before transaction %d", end.entries).WithHint(repairHint)
	}
	j.journalEnd = end
	if missing := m.Position - end.entries; missing > maxBatch || end.trailing > 0 && missing > 0 {
		slog.Warn("the journal of the ledger was damaged and is written again from the store", "entries", missing)
	}
	if end.trailing > 0 {
		if err := j.f.Truncate(end.off); err != nil {
			return err
		}
	}
	return j.follow(kv, net, m)
}

// repairHint is what helps when the store lost what the journal has.
const repairHint = "cartage ledger repair --from-log makes the store again from the journal. Or restore a backup of the whole home."

// hashAt is the hash of the log behind its first n entries.
func hashAt(kv *store.KV, n uint64) ([]byte, error) {
	if n == 0 {
		return make([]byte, hashSize), nil
	}
	entry, err := kv.Get([]byte(keyLog + u64(n-1)))
	if err == nil && len(entry) < epochSize+hashSize {
		err = reason.StoreFailed.Errorf("log position %d is missing or cut", n-1).WithHint(repairHint)
	}
	if err != nil {
		return nil, err
	}
	return entry[epochSize : epochSize+hashSize], nil
}

// follow appends what the store has and the journal has not.
func (j *journal) follow(kv *store.KV, net *network, m *meta) error {
	var b []byte
	if j.off == 0 {
		body, err := wire.EncodeTuple(net.fields())
		if err != nil {
			return err
		}
		b = journalRecord(body)
	}
	flush := func() error {
		if len(b) == 0 {
			return nil
		}
		_, err := j.f.WriteAt(b, j.off)
		j.off += int64(len(b))
		b = b[:0]
		return err
	}
	for pos := j.entries; pos < m.Position; pos++ {
		entry, err := kv.Get([]byte(keyLog + u64(pos)))
		if err != nil {
			return err
		}
		if len(entry) <= epochSize+hashSize {
			return reason.StoreFailed.Errorf("log position %d is missing or cut", pos)
		}
		data, err := kv.Get([]byte(keyTx + string(entry[epochSize+hashSize:])))
		if err != nil {
			return err
		}
		b = append(b, journalRecord(append(entry[:epochSize:epochSize], data...))...)
		if len(b) > 1<<20 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	j.entries, j.hash = m.Position, m.Hash
	return j.f.Sync()
}

// append adds the transactions that a batch has put into the log, and syncs.
func (j *journal) append(v *view) error {
	m, err := v.meta()
	if err != nil || m.Position == j.entries {
		return err
	}
	var b []byte
	for pos := j.entries; pos < m.Position; pos++ {
		entry := v.changed[keyLog+u64(pos)]
		if len(entry) <= epochSize+hashSize {
			return fmt.Errorf("log position %d is not in the batch", pos)
		}
		data := v.changed[keyTx+string(entry[epochSize+hashSize:])]
		b = append(b, journalRecord(append(entry[:epochSize:epochSize], data...))...)
	}
	if _, err := j.f.WriteAt(b, j.off); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.off += int64(len(b))
	j.entries, j.hash = m.Position, m.Hash
	return nil
}
