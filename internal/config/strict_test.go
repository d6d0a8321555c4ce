package config_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/reason"
)

// written is a home with a configuration.
func written(t *testing.T, text string) config.Home {
	h := config.Home{Dir: t.TempDir()}
	require.NoError(t, os.WriteFile(h.Path("config.toml"), []byte(text), 0o600))
	return h
}

// TestStrict: every fault of a file is told at once, with its line, what is there and what is allowed.
func TestStrict(t *testing.T) {
	h := written(t, "[retrieval]\nmax_exposur = 5\ncache_bytes = \"ten\"\ninto = 7\nqueue_parallel = -1\n\n[transfer]\naccept_timeout = 30\n[limits]\ndeal_peer = 3\nmemory_node = \"8GiB\"\n[gatway]\nlisten = []\n")
	_, err := h.Load()
	require.ErrorIs(t, err, reason.ConfigValue)
	for _, want := range []string{
		":2: retrieval.max_exposur is not a key: max_exposure?",
		`:3: retrieval.cache_bytes is "ten", it must be a number of bytes such as 1048576, 64KiB or 2GiB`,
		`:4: retrieval.into is 7, it must be a text in quotes`,
		":5: retrieval.queue_parallel is -1, it must be between 1 and 1024",
		`:8: transfer.accept_timeout is 30, it must be a time with its unit such as "30s" or "1h30m"`,
		":10: limits.deal_peer is not a key: deals_peer?",
		":11: limits.memory_node is 8GiB, it must be between 1 and 4GiB",
		":13: gatway.listen is not a key: gateway.listen?",
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = written(t, "[retrieval]\nmax_exposure = 5\nmax_exposur = 5\n").Load()
	require.ErrorIs(t, err, reason.ConfigUnknownKey)
	_, err = written(t, "[retrieval]\nmax_exposure = \n").Load()
	require.ErrorIs(t, err, reason.ConfigValue)
	require.ErrorContains(t, err, "config.toml:2:")
	_, err = written(t, "[retrieval]\nmax_exposure = 5\nmax_exposure = 6\n").Load()
	require.ErrorContains(t, err, "config.toml:3:")
}

// TestOldFiles: what the first edition wrote is read: numbers of bytes, its names in any case, dotted keys and tables in a line.
func TestOldFiles(t *testing.T) {
	c, err := written(t, "retrieval.cache_bytes = 1024\ngateway = {window = \"1MiB\", listen = [\":1\", ':2']}\n[dagstore]\nmaxconcurrentindex = 7\nReaderIdle = \"1m\"\n[ledger]\nwatch = \"auto\"\n").Load()
	require.NoError(t, err)
	require.EqualValues(t, 1024, c.Retrieval.CacheBytes)
	require.Equal(t, []string{":1", ":2"}, c.Gateway.Listen)
	require.Equal(t, "1MiB", c.Gateway.Window)
	require.Equal(t, 7, c.DAGStore.MaxConcurrentIndex)
	require.Equal(t, config.Duration(time.Minute), c.DAGStore.ReaderIdle)
}

// TestEdit: one key is changed in its place; comments, other keys and their order stay. What does not hold changes nothing.
func TestEdit(t *testing.T) {
	const text = "# mine\n[retrieval] # here\ncache_bytes = 5 # five\nmax_exposure=1\n\n[ledger]\nurl = \"http://a\"\n"
	h := written(t, text)
	require.NoError(t, h.Edit(map[string]string{"retrieval.cache_bytes": "2GiB", "retrieval.into": "store", "limits.deals_peer": "3", "ledger.url": "http://b", "gateway.hosts": "a.example, b.example"}))
	data, err := os.ReadFile(h.Path("config.toml"))
	require.NoError(t, err)
	require.Equal(t, "# mine\n[retrieval] # here\ninto = \"store\"\ncache_bytes = \"2GiB\" # five\nmax_exposure=1\n\n[ledger]\nurl = \"http://b\"\n\n[gateway]\nhosts = [\"a.example\", \"b.example\"]\n\n[limits]\ndeals_peer = 3\n", string(data))
	c, err := h.Load()
	require.NoError(t, err)
	require.EqualValues(t, 2<<30, c.Retrieval.CacheBytes)
	require.EqualValues(t, 3, c.Limits["deals_peer"])
	for key, value := range map[string]string{"retrieval.cache_byte": "1", "retrieval.cache_bytes": "-1", "retrieval.into": "disk", "ledger.watch": "often", "limits.deals_peer": "1000000"} {
		require.Error(t, h.Edit(map[string]string{key: value}), key)
	}
	after, err := os.ReadFile(h.Path("config.toml"))
	require.NoError(t, err)
	require.Equal(t, string(data), string(after))
	require.ErrorIs(t, h.Replace([]byte("[retrieval]\nx = 1\n")), reason.ConfigUnknownKey)
	bare := written(t, "")
	require.NoError(t, bare.Edit(map[string]string{"ledger.watch": "5s"}))
	c, err = bare.Load()
	require.NoError(t, err)
	require.Equal(t, config.Auto(5*time.Second), c.Ledger.Watch)
}

// TestEnvironment: a variable sets a key instead of the file, a wrong one is a fault, one that sets nothing a warning; origins say what is from where.
func TestEnvironment(t *testing.T) {
	h := written(t, "[retrieval]\ncache_bytes = 5\nmax_exposure = 7\n")
	l, err := h.Read([]string{"CARTAGE_RETRIEVAL_CACHE_BYTES=2MiB", "CARTAGE_DAGSTORE_READERIDLE=1m", "CARTAGE_HOME=/x", "CARTAGE_NONE=1", "PATH=/bin", "CARTAGE_GATEWAY_LISTEN=:1,:2"})
	require.NoError(t, err)
	require.EqualValues(t, 2<<20, l.Retrieval.CacheBytes)
	require.Equal(t, []string{":1", ":2"}, l.Gateway.Listen)
	require.Equal(t, []string{"CARTAGE_NONE sets no key of the configuration"}, l.Warnings)
	require.NoError(t, l.Override("ledger.url", "http://a", "--ledger"))
	for key, origin := range map[string]string{"retrieval.cache_bytes": "CARTAGE_RETRIEVAL_CACHE_BYTES", "retrieval.max_exposure": "config.toml:3",
		"DAGStore.ReaderIdle": "CARTAGE_DAGSTORE_READERIDLE", "retrieval.into": "default", "ledger.url": "--ledger"} {
		require.Equal(t, origin, l.Origin(key), key)
	}
	_, err = h.Read([]string{"CARTAGE_RETRIEVAL_CACHE_BYTES=much"})
	require.ErrorIs(t, err, reason.ConfigValue)
	require.ErrorContains(t, err, "CARTAGE_RETRIEVAL_CACHE_BYTES: retrieval.cache_bytes is")
}

// TestKeys: every key has a description and bounds that its default keeps, a default is read back from its own notation, and a file with all of
// them, as init writes it, is what Default is.
func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range config.Keys() {
		require.NotEmpty(t, k.Doc, k.Name)
		require.False(t, seen[k.Variable()], k.Name)
		seen[k.Variable()] = true
		c := config.Default()
		require.NoError(t, c.Set(k.Name, k.Default), k.Name)
		require.Equal(t, k.Default, k.Text(&c), k.Name)
	}
	h := config.Home{Dir: t.TempDir()}
	require.NoError(t, h.Save(config.Default()))
	c, err := h.Load()
	require.NoError(t, err)
	for _, k := range config.Keys() {
		def := config.Default()
		require.Equal(t, k.Text(&def), k.Text(&c), k.Name)
	}
}
