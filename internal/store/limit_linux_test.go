package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
)

// fillUntilRefused commits records in a process whose files cannot grow beyond a limit, until one is refused; then it reads one that was
// committed before, is refused again, and closes.
func fillUntilRefused(ctx context.Context, dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 128 << 10, Max: 128 << 10}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	ds, err := store.Open(dir)
	if err != nil {
		return err
	}
	put := func(i int) error {
		b, err := ds.Batch(ctx)
		if err == nil {
			err = b.Put(ctx, recordKey(i), make([]byte, 1000))
		}
		if err != nil {
			return err
		}
		return store.Commit(ctx, ds, b)
	}
	n := 0
	for err == nil {
		err = put(n)
		n++
	}
	if !errors.Is(err, reason.StoreFailed) || !errors.Is(put(n), reason.StoreFailed) {
		return fmt.Errorf("commit %d and the next are refused with another reason: %w", n, err)
	}
	if _, err := ds.Get(ctx, recordKey(0)); err != nil {
		return fmt.Errorf("read after it failed: %w", err)
	}
	if err := ds.Put(ctx, datastore.NewKey("/later"), nil); !errors.Is(err, reason.StoreFailed) {
		return fmt.Errorf("a write after it: %w", err)
	}
	fmt.Println(err)
	return ds.Close()
}

// TestFailedWrite: a write that fails otherwise than by a full disk is an error with a reason and the folder, what was committed can be read
// in the same process and after it, and nothing panics.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(self)
	c.Env = append(os.Environ(), "STORE_TO_FILL="+dir)
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), dir)
	ds, err := store.Open(dir)
	require.NoError(t, err)
	_, err = ds.Get(t.Context(), recordKey(0))
	require.NoError(t, err)
	require.NoError(t, ds.Close())
}
