package channels

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/wire"
)

func stateVectors(t testing.TB) map[string][]byte {
	data, err := os.ReadFile("../../testdata/vectors/datatransfer.json")
	require.NoError(t, err)
	var all []struct{ Name, Hex string }
	require.NoError(t, json.Unmarshal(data, &all))
	out := map[string][]byte{}
	for _, v := range all {
		if v.Name == "state/channel" || v.Name == "state/channel/fresh" {
			out[v.Name], err = hex.DecodeString(v.Hex)
			require.NoError(t, err)
		}
	}
	require.Len(t, out, 2)
	return out
}

// TestChecklist16 is number 16 of the checklist: stored records of v1 load, and the codec of version 2 writes the same bytes.
func TestChecklist16(t *testing.T) {
	for name, raw := range stateVectors(t) {
		t.Run(name, func(t *testing.T) {
			r, err := decodeLegacy(raw)
			require.NoError(t, err)
			out, err := encodeLegacy(r)
			require.NoError(t, err)
			require.Equal(t, hex.EncodeToString(raw), hex.EncodeToString(out))
			require.Equal(t, uint64(1648598400000000001), uint64(r.TransferID))
			if name == "state/channel" {
				require.Equal(t, dt.Ongoing, r.status())
				require.Equal(t, uint64(1048576), r.Received)
				require.Equal(t, uint64(4), r.ReceivedBlocks)
				require.Len(t, r.Vouchers, 1)
				require.Len(t, r.Results, 1)
			}
		})
	}
}

func legacyStore(t testing.TB, version string, n int) datastore.Batching {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	ctx := t.Context()
	require.NoError(t, ds.Put(ctx, versionKey, []byte(version)))
	for i := range n {
		r, err := decodeLegacy(stateVectors(t)["state/channel"])
		require.NoError(t, err)
		r.TransferID += dt.TransferID(i)
		data, err := encodeLegacy(r)
		require.NoError(t, err)
		id := dt.ChannelID{Initiator: r.Initiator, Responder: r.Responder, ID: r.TransferID}
		require.NoError(t, ds.Put(ctx, datastore.NewKey("/"+version+"/"+id.String()), data))
	}
	return ds
}

func openSet(ctx context.Context, t testing.TB, ds datastore.Batching) (*Set, error) {
	none := func(dt.TypeIdentifier) (encoding.Decoder, bool) { return nil, false }
	s, err := New(ctx, ds, none, none, func(dt.Event, dt.ChannelState) {}, func(*Channel) {})
	require.NoError(t, err)
	return s, s.Start(ctx)
}

func legacyKeys(t *testing.T, ds datastore.Batching, version string) int {
	res, err := ds.Query(t.Context(), query.Query{Prefix: "/" + version, KeysOnly: true})
	require.NoError(t, err)
	rest, err := res.Rest()
	require.NoError(t, err)
	return len(rest)
}

// TestR27Migration: stores of versions 2 and 3 are taken over once, whatever write the process dies at; the old records stay
// until the start after.
func TestR27Migration(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		t.Run(version, func(t *testing.T) {
			const channels = 3
			ended := false
			for at := 1; !ended; at++ {
				require.Less(t, at, 100)
				ds := legacyStore(t, version, channels)
				sw := &faults.Switch{At: at}
				_, err := openSet(t.Context(), t, faults.Store{Batching: ds, Switch: sw})
				ended = err == nil
				s, err := openSet(t.Context(), t, ds)
				require.NoError(t, err, "crash at write %d", at)
				all, err := s.All(t.Context())
				require.NoError(t, err)
				require.Len(t, all, channels)
				for _, c := range all {
					require.Equal(t, dt.Ongoing, c.Status())
					require.Equal(t, uint64(1048576), c.Received())
					require.Equal(t, int64(4), c.ReceivedCidsTotal())
				}
				require.NoError(t, s.Close(t.Context()))
			}
			ds := legacyStore(t, version, channels)
			for start, want := range []int{channels, 0} {
				s, err := openSet(t.Context(), t, ds)
				require.NoError(t, err)
				require.NoError(t, s.Close(t.Context()))
				require.Equal(t, want, legacyKeys(t, ds, version), "start %d", start+1)
			}
		})
	}
}

// TestR27BadRecord: a record that does not decode stops the migration and names itself; nothing is lost.
func TestR27BadRecord(t *testing.T) {
	ds := legacyStore(t, "2", 2)
	require.NoError(t, ds.Put(t.Context(), datastore.NewKey("/2/broken"), []byte{0xa1, 0x61}))
	_, err := openSet(t.Context(), t, ds)
	require.ErrorContains(t, err, "/2/broken")
	v, err := ds.Get(t.Context(), versionKey)
	require.NoError(t, err)
	require.Equal(t, "2", string(v))
	require.Equal(t, 3, legacyKeys(t, ds, "2"))
}

// TestLegacyStatus: the flags and statuses that only version 3 has.
func TestLegacyStatus(t *testing.T) {
	for want, r := range map[dt.Status]legacyRecord{
		dt.Ongoing: {Status: legacyQueued}, dt.Requested: {Status: legacyAwaitingAcceptance},
		dt.InitiatorPaused: {Status: dt.Ongoing, InitiatorIsPaused: true}, dt.ResponderPaused: {Status: dt.Ongoing, ResponderHolds: true},
		dt.BothPaused: {Status: legacyQueued, InitiatorIsPaused: true, ResponderHolds: true}, dt.Completed: {Status: dt.Completed, ResponderHolds: true},
	} {
		require.Equal(t, want, r.status())
	}
	_, err := (&legacyRecord{Status: 99}).record()
	require.Error(t, err)
}

// FuzzStoredRecord reads what a store may hold: records of this layout and of the older ones.
func FuzzStoredRecord(f *testing.F) {
	for _, raw := range stateVectors(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeLegacy(data); err == nil {
			out, err := encodeLegacy(r)
			require.NoError(t, err)
			_, err = decodeLegacy(out)
			require.NoError(t, err)
			_, _ = r.record()
		}
		ds := datastore.NewMapDatastore()
		s := store{ds: dssync.MutexWrap(ds), ctx: t.Context()}
		id := dt.ChannelID{Initiator: "a", Responder: "b", ID: 1}
		for _, part := range []string{"s", "h"} {
			require.NoError(t, s.ds.Put(t.Context(), s.key(part, id), data))
		}
		_, _ = s.load(t.Context(), id)
		_, _ = s.readItem("v", id, 0)
	})
}

// TestR92Prune: what ended before a time is deleted, all of it and nothing else, whatever write the process dies at.
func TestR92Prune(t *testing.T) {
	base := dssync.MutexWrap(datastore.NewMapDatastore())
	s, err := openSet(t.Context(), t, base)
	require.NoError(t, err)
	for i := range 5 {
		r, err := decodeLegacy(stateVectors(t)["state/channel"])
		require.NoError(t, err)
		r.TransferID = dt.TransferID(i + 1)
		rec, err := r.record()
		require.NoError(t, err)
		c, err := s.Create(*rec.Static, Encoded{"v", []byte{0xf6}}, 0)
		require.NoError(t, err)
		if i < 3 {
			require.NoError(t, c.Apply(dt.Error, errors.New("over")))
		}
	}
	require.NoError(t, s.Close(t.Context()))
	before := len(keysOf(t, base))
	s, err = openSet(t.Context(), t, base)
	require.NoError(t, err)
	n, err := s.Prune(t.Context(), longAgo)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Len(t, keysOf(t, base), before)
	for at := 1; ; at++ {
		crashed, err := openSet(t.Context(), t, faults.Store{Batching: base, Switch: &faults.Switch{At: at}})
		require.NoError(t, err)
		if _, err = crashed.Prune(t.Context(), farAway); err == nil {
			break
		}
	}
	all, err := s.All(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Less(t, len(keysOf(t, base)), before)
	require.Empty(t, prefixed(keysOf(t, base), "/4/e"))
}

func keysOf(t *testing.T, ds datastore.Batching) (out []string) {
	res, err := ds.Query(t.Context(), query.Query{KeysOnly: true})
	require.NoError(t, err)
	rest, err := res.Rest()
	require.NoError(t, err)
	for _, e := range rest {
		out = append(out, e.Key)
	}
	return out
}

func prefixed(keys []string, p string) (out []string) {
	for _, k := range keys {
		if len(k) >= len(p) && k[:len(p)] == p {
			out = append(out, k)
		}
	}
	return out
}

var (
	longAgo = time.Unix(0, 0)
	farAway = time.Unix(1<<36, 0)
)

// watched looks at every hot record that is stored.
type watched struct {
	datastore.Batching
	see func(Hot)
}

func (w watched) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := w.Batching.Batch(ctx)
	return watchedBatch{b, w}, err
}

type watchedBatch struct {
	datastore.Batch
	w watched
}

func (b watchedBatch) Put(ctx context.Context, k datastore.Key, v []byte) error {
	if strings.HasPrefix(k.String(), "/4/h/") {
		var h Hot
		if err := wire.DecodeTuple(v, "hot", h.fields()); err != nil {
			return err
		}
		b.w.see(h)
	}
	return b.Batch.Put(ctx, k, v)
}

// TestStoredCountersAgree: no record has the bytes of a block without its index, at which a crash would count it twice.
func TestStoredCountersAgree(t *testing.T) {
	seen := 0
	s, err := openSet(t.Context(), t, watched{dssync.MutexWrap(datastore.NewMapDatastore()), func(h Hot) {
		seen++
		if h.Queued != 10*h.QueuedTotal {
			t.Errorf("stored %d bytes up to block %d", h.Queued, h.QueuedTotal)
		}
	}})
	require.NoError(t, err)
	r, err := decodeLegacy(stateVectors(t)["state/channel"])
	require.NoError(t, err)
	rec, err := r.record()
	require.NoError(t, err)
	c, err := s.Create(*rec.Static, Encoded{"v", []byte{0xf6}}, 0)
	require.NoError(t, err)
	for i := range int64(1000) {
		_, _, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, 10, i+1, true)
		require.NoError(t, err)
	}
	require.NoError(t, c.Stored(t.Context()))
	require.NoError(t, s.Close(t.Context()))
	require.Greater(t, seen, 3)
}
