package retrievalimpl

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/faults"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

func vectorBytes(t *testing.T, name string) []byte {
	raw, err := os.ReadFile("../../testdata/vectors/retrievalmarket.json")
	require.NoError(t, err)
	var list []struct{ Name, Hex string }
	require.NoError(t, json.Unmarshal(raw, &list))
	for _, v := range list {
		if v.Name == name {
			b, err := hex.DecodeString(v.Hex)
			require.NoError(t, err)
			return b
		}
	}
	t.Fatalf("no vector %s", name)
	return nil
}

type clientDeals = deals[rm.ClientDealState, *rm.ClientDealState]

func openClient(ds datastore.Batching) clientDeals {
	return clientDeals{ds, func(d *rm.ClientDealState) { d.LegacyProtocol = true }}
}

func content(t *testing.T, ds datastore.Batching) map[string]string {
	res, err := ds.Query(t.Context(), query.Query{})
	require.NoError(t, err)
	rest, err := res.Rest()
	require.NoError(t, err)
	out := map[string]string{}
	for _, e := range rest {
		out[e.Key] = hex.EncodeToString(e.Value)
	}
	return out
}

// TestM29Migrations: stores of versions 0 and 2 open as ours; a running deal keeps the protocol that it was made with; killed at
// any write, the next start finds either the old store or the new one.
func TestM29Migrations(t *testing.T) {
	for name, tc := range map[string]struct {
		key, version string
		data         []byte
		legacy       bool
	}{
		"0": {"/5", "", vectorBytes(t, "ClientDealState/v0/full"), true},
		"2": {"/2/5", "2", vectorBytes(t, "ClientDealState/v2/new"), false},
	} {
		t.Run("version "+name, func(t *testing.T) {
			for n := 1; ; n++ {
				under := dssync.MutexWrap(datastore.NewMapDatastore())
				require.NoError(t, under.Put(t.Context(), datastore.NewKey(tc.key), tc.data))
				require.NoError(t, under.Put(t.Context(), datastore.NewKey("/retrieval-ask/1/latest"), []byte("ask")))
				if tc.version != "" {
					require.NoError(t, under.Put(t.Context(), versionKey, []byte(tc.version)))
				}
				sw := &faults.Switch{At: n}
				if err := openClient(faults.Store{Batching: under, Switch: sw}).open(t.Context()); err != nil {
					require.ErrorIs(t, err, faults.ErrCrashed)
				}
				s := openClient(under)
				require.NoError(t, s.open(t.Context()))
				d, err := s.get(t.Context(), "5")
				require.NoError(t, err)
				require.Equal(t, tc.legacy, d.LegacyProtocol)
				all := content(t, under)
				require.Len(t, all, 3, "nothing of the old store is left")
				require.Equal(t, hex.EncodeToString([]byte("ask")), all["/retrieval-ask/1/latest"], "the ask is not a deal")
				if !sw.Crashed() {
					require.Greater(t, n, 1)
					break
				}
			}
		})
	}
}

// TestNewerStore: what is newer, or is no deal, is refused and left as it is.
func TestNewerStore(t *testing.T) {
	for name, fill := range map[string]map[string][]byte{
		"newer":        {versionKey.String(): []byte("3"), "/3/5": {1}},
		"not a number": {versionKey.String(): []byte("x")},
		"ten":          {versionKey.String(): []byte("10")},
		"broken 0":     {"/5": {0x81, 0x01}},
		"broken 2":     {versionKey.String(): []byte("2"), "/2/5": {0xa0}},
		"cut 0":        {"/5": vectorBytes(t, "ClientDealState/v0/full")[:100]},
	} {
		t.Run(name, func(t *testing.T) {
			ds := dssync.MutexWrap(datastore.NewMapDatastore())
			for k, v := range fill {
				require.NoError(t, ds.Put(t.Context(), datastore.NewKey(k), v))
			}
			before := content(t, ds)
			require.Error(t, openClient(ds).open(t.Context()))
			require.Equal(t, before, content(t, ds))
		})
	}
	empty := dssync.MutexWrap(datastore.NewMapDatastore())
	require.NoError(t, openClient(empty).open(t.Context()))
	require.Len(t, content(t, empty), 1)
}
