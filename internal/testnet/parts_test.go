package testnet_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/testnet"
)

// newTree is a world in which a folder is for sale, at 1 attoFIL a byte: big.bin of 5 MB, and docs with a.bin of 3 MB and fourteen files.
func newTree(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	t.Cleanup(cancel)
	net, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	w := newWorldOn(t, ctx, net, 1, api.Ask{PricePerByte: "1", UnsealPrice: "0", PaymentInterval: 1 << 20})
	dir := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "docs"), 0o700))
	write := func(name string, size int) {
		data := make([]byte, size)
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(data)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	write("big.bin", 5_000_000)
	write("docs/a.bin", 3_000_000)
	for i := range 14 {
		write(fmt.Sprintf("docs/%d.txt", i), 1000+i)
	}
	p, err := w.provider.API().Provide(w.ctx, dir)
	require.NoError(t, err)
	w.root = p.Root
	return w
}

// partsRow are requests of one client, one after the other.
type partsRow struct {
	name string
	list []api.RetrieveRequest
}

func partsRows() []partsRow {
	type req = api.RetrieveRequest
	docs := partsRow{name: "fourteen parts of a folder"}
	for i := range 14 {
		docs.list = append(docs.list, req{Path: fmt.Sprintf("docs/%d.txt", i)})
	}
	return []partsRow{docs,
		{"a part and the whole", []req{{Path: "docs"}, {}}},
		{"a file and the whole", []req{{Path: "docs/a.bin"}, {Path: "docs"}, {}}},
		{"ranges and the file", []req{{Path: "big.bin", Range: "1048570:1049569"}, {Path: "big.bin", Range: "0:3000000"}, {Path: "big.bin", Range: "2000000:4000000"}, {Path: "big.bin"}}},
		{"lists and the whole", []req{{List: api.ListNode}, {Path: "docs", List: api.ListNode}, {Path: "docs", List: api.ListShards}, {}}},
		{"the whole and its parts", []req{{}, {Path: "docs"}, {Path: "big.bin", Range: "5:6"}, {DataSelector: "Links/0/Hash"}}},
	}
}

// TestPartsShareBlocks: what is in any file of the home is neither fetched nor paid again. The price is 1 attoFIL a byte, so that what is paid
// is what was bought.
func TestPartsShareBlocks(t *testing.T) {
	w := newTree(t)
	transports := []string{api.TransportStream, api.TransportGraphsync}
	for _, transport := range transports {
		for _, row := range partsRows() {
			t.Run(transport+"/"+row.name, func(t *testing.T) {
				client := w.buyer(t)
				has := map[string]int{}
				for _, r := range row.list {
					r.Transport = transport
					v, err := client.Retrieve(w.ctx, w.of(r))
					require.NoError(t, err)
					require.True(t, v.OK, v.Message)
					held(t, v.CarPath, has)
				}
				total := uint64(0)
				for _, n := range has {
					total += uint64(n)
				}
				require.Equal(t, total, w.vouchered(t, client.API()).Uint64(), "bytes are paid once")
			})
		}
	}
}

// TestPaidForAnswers: what shows that there is nothing to be had is all that is paid, and once; it is said what was spent.
func TestPaidForAnswers(t *testing.T) {
	w := newTree(t)
	const way = 2000 // bytes of the root, and of docs, and of the first block of a file
	for _, row := range []struct {
		name string
		list []api.RetrieveRequest
		why  reason.Reason
	}{
		{"paths that lead nowhere", []api.RetrieveRequest{{Path: "docs/none"}, {Path: "docs/neither"}, {Path: "none"}, {Path: "big.bin/deeper"}}, reason.PathUnknown},
		{"folders where a file is wanted", []api.RetrieveRequest{{File: true}, {Path: "docs", File: true}, {Path: "docs", Range: "0:5"}, {Range: "1:2"}}, reason.NotAFile},
		{"ranges behind the end", []api.RetrieveRequest{{Path: "big.bin", Range: "5000000:"}, {Path: "docs/a.bin", Range: "9000000:9000001"}}, reason.RangeOutside},
	} {
		t.Run(row.name, func(t *testing.T) {
			client := w.buyer(t)
			for _, r := range append(row.list, row.list...) {
				v, err := client.Retrieve(w.ctx, w.of(r))
				if err != nil {
					require.ErrorIs(t, err, row.why)
					continue
				}
				require.False(t, v.OK)
				require.Equal(t, []any{row.why.String(), api.CodeNotFound}, []any{v.Reason, v.Code}, v.Message)
				require.NotEmpty(t, v.OrderSpent)
			}
			spent := w.vouchered(t, client.API()).Uint64()
			require.Less(t, spent, uint64(way))
			for _, r := range row.list { // known by now
				_, err := client.Retrieve(w.ctx, w.of(r))
				require.ErrorIs(t, err, row.why)
			}
			require.Equal(t, spent, w.vouchered(t, client.API()).Uint64())
		})
	}
}

// buyer is a client that has nothing yet.
func (w *world) buyer(t *testing.T) *testnet.Peer {
	t.Helper()
	w.buyers++
	client, err := w.net.Peer(w.ctx, fmt.Sprint("buyer", w.buyers), false)
	require.NoError(t, err)
	require.NoError(t, client.Start(w.ctx, nil))
	t.Cleanup(func() { require.NoError(t, client.Stop(context.Background())) })
	return client
}

// of asks for a part of what is for sale.
func (w *world) of(r api.RetrieveRequest) api.RetrieveRequest {
	r.CID, r.Provider, r.Budget, r.MaxExposure = w.root, w.provider.Address(), "100000000000", 1<<30
	return r
}

// held adds the blocks of an archive.
func held(t *testing.T, path string, has map[string]int) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	st, err := f.Stat()
	require.NoError(t, err)
	l, err := carstore.Inspect(f, st.Size())
	require.NoError(t, err)
	require.NoError(t, carstore.Walk(f, l, func(b carstore.Block) error {
		has[b.Cid.KeyString()] = len(b.Data)
		return nil
	}))
}

// TestDamagedBlock: one flipped bit in the file of a retrieval costs the block that it lies in, and no other: a leaf, a node, the root.
func TestDamagedBlock(t *testing.T) {
	w := newTree(t)
	for _, transport := range []string{api.TransportStream, api.TransportGraphsync} {
		client := w.buyer(t)
		req := w.of(api.RetrieveRequest{Transport: transport})
		v, err := client.Retrieve(w.ctx, req)
		require.NoError(t, err)
		require.True(t, v.OK, v.Message)
		want, err := os.ReadFile(v.CarPath)
		require.NoError(t, err)
		var list []carstore.Block
		l, err := carstore.Inspect(bytes.NewReader(want), int64(len(want)))
		require.NoError(t, err)
		require.NoError(t, carstore.Walk(bytes.NewReader(want), l, func(b carstore.Block) error {
			list = append(list, b)
			return nil
		}))
		leaf := slices.IndexFunc(list, func(b carstore.Block) bool { return b.Cid.Prefix().Codec == cid.Raw && len(b.Data) > 1000 })
		for _, i := range []int{leaf, 1, 0} { // big.bin is the second block
			before := w.vouchered(t, client.API()).Uint64()
			require.NoError(t, client.Stop(w.ctx))
			data := bytes.Clone(want)
			data[l.Offset+list[i].Offset+list[i].Section-1] ^= 1
			require.NoError(t, os.WriteFile(v.CarPath, data, 0o600))
			require.NoError(t, client.Start(w.ctx, nil))
			again, err := client.Retrieve(w.ctx, req)
			require.NoError(t, err)
			require.True(t, again.OK, again.Message)
			got, err := os.ReadFile(v.CarPath)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "block %d over %s", i, transport)
			require.EqualValues(t, len(list[i].Data), w.vouchered(t, client.API()).Uint64()-before, "block %d over %s", i, transport)
		}
	}
}
