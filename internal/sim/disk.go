package sim

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync/atomic"

	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/store"
)

// disk is what a node keeps: records and files. It outlives the processes of the node, and loses at a power loss what was not synced.
type disk struct {
	records *faults.Records
	engine  *store.Disk // instead of records, in some seeds
	open    datastore.Batching
	files   *blob.Mem
	full    atomic.Bool // files cannot be written
}

func newDisk(engine bool) *disk {
	d := &disk{files: blob.NewMem()}
	if engine {
		d.engine = store.NewDisk()
	} else {
		d.records = faults.NewRecords()
	}
	return d
}

// start opens the records for a process.
func (d *disk) start() (datastore.Batching, error) {
	if d.engine == nil {
		return d.records, nil
	}
	var err error
	d.open, err = d.engine.Open()
	return d.open, err
}

// stop closes what start opened.
func (d *disk) stop() error {
	if d.open == nil {
		return nil
	}
	err := d.open.Close()
	d.open = nil
	return err
}

// powerLoss takes what was not synced, or only a part of it. The engine, if there is one, has to be open still.
func (d *disk) powerLoss(rnd *rand.Rand) {
	percent := []int{0, 0, 50, 100}[rnd.IntN(4)]
	if d.engine != nil {
		d.engine.PowerLoss(percent, rnd.Uint64())
	} else {
		d.records.PowerLoss(func(writes int) int {
			if percent == 100 {
				return writes
			}
			return rnd.IntN(writes+1) * percent / 100
		})
	}
	d.files.PowerLoss(func(_ string, page int64) bool {
		return rnd.IntN(100) < percent || page < 0 // names of files are mostly kept by the journal of a file system
	})
}

// fullFS is a file system that has no room while its disk is full.
type fullFS struct {
	blob.FS
	full *atomic.Bool
}

var errFull = errors.New("no space left on device")

type fullFile struct {
	blob.File
	full *atomic.Bool
}

// WriteAt implements io.WriterAt.
func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if f.full.Load() {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, errFull
	}
	return f.File.WriteAt(p, off)
}

// Create implements blob.FS.
func (f fullFS) Create(name string, mode fs.FileMode) (blob.File, error) {
	if f.full.Load() {
		return nil, errFull
	}
	in, err := f.FS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return fullFile{in, f.full}, nil
}

// OpenRW implements blob.FS.
func (f fullFS) OpenRW(name string) (blob.File, error) {
	in, err := f.FS.OpenRW(name)
	if err != nil {
		return nil, err
	}
	return fullFile{in, f.full}, nil
}
