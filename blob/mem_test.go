package blob_test

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
)

func read(t *testing.T, m *blob.Mem, name string) string {
	t.Helper()
	f, err := m.Open(name)
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	data := make([]byte, size)
	_, err = f.ReadAt(data, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Close(), fs.ErrClosed)
	return string(data)
}

func write(t *testing.T, f blob.File, data string, off int64) {
	t.Helper()
	n, err := f.WriteAt([]byte(data), off)
	require.NoError(t, err)
	require.Equal(t, len(data), n)
}

// TestPowerLoss: of a file survives what was synced, and of its names what the folder had at its last sync; the rest only where the caller
// says so.
func TestPowerLoss(t *testing.T) {
	m := blob.NewMem()
	_, err := m.Create("/d/f", 0o600)
	require.ErrorIs(t, err, fs.ErrNotExist, "no folder")
	require.NoError(t, m.MkdirAll("/d", 0o700))
	f, err := m.Create("/d/f", 0o600)
	require.NoError(t, err)
	write(t, f, "synced", 0)
	require.NoError(t, f.Sync())
	m.PowerLoss(nil)
	_, err = m.Open("/d/f")
	require.ErrorIs(t, err, fs.ErrNotExist, "the name was not synced")

	f, err = m.Create("/d/f", 0o600)
	require.NoError(t, err)
	write(t, f, "synced", 0)
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir("/d"))
	write(t, f, "SYNCED and not", 0)
	require.NoError(t, m.Rename("/d/f", "/d/g"))
	require.Equal(t, "SYNCED and not", read(t, m, "/d/g"))
	m.PowerLoss(nil)
	require.Equal(t, "synced", read(t, m, "/d/f"))
	_, err = m.Open("/d/g")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestPagesSurvive: each page that was not synced is lost or not by itself, and a hole is read as zeros.
func TestPagesSurvive(t *testing.T) {
	m := blob.NewMem()
	require.NoError(t, m.MkdirAll("/d", 0o700))
	f, err := m.Create("/d/f", 0o600)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	write(t, f, "first", 0)
	write(t, f, "third", 8192)
	m.PowerLoss(func(_ string, page int64) bool { return page != 0 })
	got := read(t, m, "/d/f")
	require.Len(t, got, 8197)
	require.Equal(t, make([]byte, 8192), []byte(got[:8192]))
	require.Equal(t, "third", got[8192:])
	m.PowerLoss(nil)
	require.Equal(t, got, read(t, m, "/d/f"), "what survived is durable")
}

// TestMemTruncates: a length is durable with the next sync.
func TestMemTruncates(t *testing.T) {
	m := blob.NewMem()
	require.NoError(t, blob.NewMem().MkdirAll("/", 0o700))
	require.NoError(t, m.MkdirAll("/d", 0o700))
	require.NoError(t, blob.WriteFile(m, "/d/f", []byte("content"), 0o600))
	f, err := m.OpenRW("/d/f")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(3))
	require.Equal(t, "con", read(t, m, "/d/f"))
	m.PowerLoss(nil)
	require.Equal(t, "content", read(t, m, "/d/f"), "WriteFile is durable")
	_, err = m.Create("/d/f", 0o600)
	require.ErrorIs(t, err, fs.ErrExist)
	require.NoError(t, m.Link("/d/f", "/d/g"))
	require.NoError(t, m.Remove("/d/f"))
	require.ErrorIs(t, m.Remove("/d/f"), fs.ErrNotExist)
	require.Equal(t, "content", read(t, m, "/d/g"))
	require.NoError(t, m.RemoveAll("/d"))
	_, err = m.OpenRW("/d/g")
	require.ErrorIs(t, err, fs.ErrNotExist)
}
