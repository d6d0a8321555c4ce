package blob

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLock: one has it at a time, the note of one that left it is found, and a file that is only there is no lock.
func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	require.NoError(t, os.WriteFile(name, []byte("left"), 0o600))
	l, err := TryLock(name)
	require.NoError(t, err)
	note, err := l.Note()
	require.NoError(t, err)
	require.Equal(t, "left", note)
	require.NoError(t, l.SetNote("of mine"))
	require.Error(t, l.SetNote(strings.Repeat("x", maxNote+1)))
	_, err = TryLock(name)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, l.Leave())
	l, err = TryLock(name)
	require.NoError(t, err)
	note, err = l.Note()
	require.NoError(t, err)
	require.Equal(t, "of mine", note)
	require.NoError(t, l.Release())
	require.NoFileExists(t, name)
	_, err = TryLock(filepath.Join(name, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestSyncEach: the way of hosts that cannot sync a file system in one call reaches every file and folder.
func TestSyncEach(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b", "c"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, d, "f"), []byte(d), 0o600))
	}
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	require.NoError(t, syncEach(dir))
	require.NoError(t, OS{}.SyncTree(dir))
	require.ErrorIs(t, syncEach(filepath.Join(dir, "none")), os.ErrNotExist)
	require.ErrorIs(t, OS{}.SyncTree(filepath.Join(dir, "none")), os.ErrNotExist)
}

// TestAttributes: permissions and times, and never more than permissions.
func TestAttributes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	mode, then := os.FileMode(0o4751)|os.ModeSetuid, time.Unix(1e9, 5000)
	require.NoError(t, OS{}.SetAttributes(name, Attributes{Mode: &mode, Mtime: &then}))
	st, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o751), st.Mode())
	require.True(t, then.Equal(st.ModTime()))
	require.NoError(t, OS{}.SetAttributes(name, Attributes{}))
}
