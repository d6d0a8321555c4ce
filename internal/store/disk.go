package store

import (
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"
)

// Disk is a disk in memory that a power loss leaves as a real one would: with what was synced, and some of the rest. It is for tests of
// crashes over the engine that is used, and safe for concurrent use.
type Disk struct {
	mu sync.Mutex
	fs *vfs.MemFS
}

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{fs: vfs.NewCrashableMem()} }

// diskDir is the folder of the store on a Disk.
const diskDir = "store"

// Open is the function Open on this disk. A store that was open at a power loss is closed all the same; what it writes is lost.
func (d *Disk) Open() (datastore.Batching, error) {
	d.mu.Lock()
	fs := d.fs
	d.mu.Unlock()
	if err := fs.MkdirAll(diskDir, 0o700); err != nil {
		return nil, err
	}
	e, err := openEngine(diskDir, openOptions{fs: fs, proved: true})
	if err != nil {
		return nil, err
	}
	return newRecords(e, nil), nil
}

// PowerLoss takes what was not synced; of that each part survives with the given probability, which seed decides.
func (d *Disk) PowerLoss(percent int, seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
}
