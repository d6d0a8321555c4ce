package denylist_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/denylist"
)

func raw(t testing.TB, text string) cid.Cid {
	h, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
	require.NoError(t, err)
	return cid.NewCidV1(cid.Raw, h)
}

func write(t *testing.T, dir, name, text string) {
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

func open(t *testing.T, dir string) (*denylist.Set, *strings.Builder) {
	log := &strings.Builder{}
	s, err := denylist.Open(dir, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	return s, log
}

// TestG_90_Rules: each form of rule denies what it says and nothing else, and bad lines are named.
func TestG_90_Rules(t *testing.T) {
	dir := t.TempDir()
	whole, path, begins, below, hidden, hiddenPath, older, legal, spared := raw(t, "whole"), raw(t, "path"), raw(t, "begins"), raw(t, "below"), raw(t, "hidden"), raw(t, "hidden path"), raw(t, "older"), raw(t, "legal"), raw(t, "spared")
	double, err := mh.Sum([]byte(hidden.Hash().B58String()), mh.SHA2_256, -1)
	require.NoError(t, err)
	doublePath, err := mh.Sum([]byte(hiddenPath.Hash().B58String()+"/a/b"), mh.BLAKE2B_MIN+31, -1)
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(older.String() + "/"))
	write(t, dir, "list.deny", strings.Join([]string{
		"version: 1", "name: a list", "hints:", "  - a: b", "---", "# a comment", "",
		"/ipfs/" + whole.String(),
		"/ipfs/" + path.String() + "/a/b%20c",
		"/ipfs/" + begins.String() + "/a/b*",
		"/ipfs/" + below.String() + "/*",
		"//" + double.B58String(),
		"//" + doublePath.B58String(),
		"//" + hex.EncodeToString(sum[:]),
		"/ipfs/" + legal.String() + " status=451",
		"/ipfs/" + spared.String(),
		"!/ipfs/" + spared.String(),
		"/ipns/example.org", "/ipfs/nonsense", "whatever",
		"//zzzz",
	}, "\n"))
	s, log := open(t, dir)
	v0 := cid.NewCidV0(whole.Hash())
	for _, tc := range []struct {
		c    cid.Cid
		path string
		line int // 0: it is not denied
	}{
		{whole, "", 8}, {v0, "", 8}, {cid.NewCidV1(cid.DagProtobuf, whole.Hash()), "", 8},
		{path, "", 0}, {path, "a", 0}, {path, "a/b c", 9}, {path, "a/b c/d", 0},
		{begins, "", 0}, {begins, "a/b", 10}, {begins, "a/bcd/e", 10}, {begins, "a/c", 0},
		{below, "", 11}, {below, "x/y", 11},
		{hidden, "", 12}, {hidden, "a", 0}, {hiddenPath, "", 0}, {hiddenPath, "a/b", 13}, {older, "", 14}, {older, "a", 0},
		{legal, "", 15}, {spared, "", 0}, {raw(t, "other"), "", 0},
	} {
		v, denied := s.Denied(tc.c, tc.path)
		require.Equal(t, tc.line != 0, denied, "%s %q", tc.c, tc.path)
		require.Equal(t, tc.line, v.Line)
		if denied {
			require.Equal(t, "list", v.List)
			require.Equal(t, tc.c.Equals(legal), v.Legal)
		}
	}
	require.Equal(t, 3, strings.Count(log.String(), "left out"), log.String())
	require.Equal(t, 10, s.Len())
}

// TestG_90_Changes: appended lines count, a shrunk, a new and a removed file are read anew, and each change is a new generation.
func TestG_90_Changes(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, filepath.Join(dir, "none"))
	require.Zero(t, s.Len())
	a, b := raw(t, "a"), raw(t, "b")
	s, _ = open(t, dir)
	denied := func(c cid.Cid) bool {
		_, ok := s.Denied(c, "")
		return ok
	}
	last := s.Generation()
	changed := func() {
		t.Helper()
		require.NoError(t, s.Refresh())
		require.Greater(t, s.Generation(), last)
		last = s.Generation()
	}
	write(t, dir, "one.deny", "/ipfs/"+a.String()+"\n")
	changed()
	require.True(t, denied(a))
	require.False(t, denied(b))
	require.NoError(t, s.Refresh())
	require.Equal(t, last, s.Generation())
	write(t, dir, "one.deny", "/ipfs/"+a.String()+"\n/ipfs/"+b.String())
	changed()
	require.True(t, denied(b))
	v, _ := s.Denied(b, "")
	require.Equal(t, 2, v.Line)
	// Half of a line is nothing yet, and is no rule lost when the rest comes.
	torn := "/ipfs/" + a.String() + "\n/ipfs/" + b.String() + "\n/ipfs/" + raw(t, "c").String()
	write(t, dir, "one.deny", torn[:len(torn)-10])
	changed()
	require.False(t, denied(raw(t, "c")))
	require.NoError(t, s.Refresh())
	require.Equal(t, last, s.Generation())
	write(t, dir, "one.deny", torn)
	changed()
	require.True(t, denied(raw(t, "c")))
	write(t, dir, "two.deny", "!/ipfs/"+a.String()+"\n")
	changed()
	require.False(t, denied(a))
	require.NoError(t, os.Remove(filepath.Join(dir, "two.deny")))
	changed()
	require.True(t, denied(a))
	write(t, dir, "one.deny", "#\n")
	changed()
	require.False(t, denied(a))
}

// TestG_90_Size: a rule takes at most 64 bytes of memory.
func TestG_90_Size(t *testing.T) {
	const rules = 200_000
	dir := t.TempDir()
	var list strings.Builder
	for i := range rules {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		fmt.Fprintf(&list, "//%x\n", sum)
	}
	write(t, dir, "large.deny", list.String())
	list.Reset()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, _ := open(t, dir)
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Equal(t, rules, s.Len())
	require.Less(t, (int64(after.HeapAlloc)-int64(before.HeapAlloc))/rules, int64(64))
}

// FuzzLine: no line of a list panics.
func FuzzLine(f *testing.F) {
	f.Add("/ipfs/bafkqaaa/*\n!//x")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "x.deny"), []byte(text), 0o600))
		s, err := denylist.Open(dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		s.Denied(raw(t, "x"), "a/b")
	})
}
