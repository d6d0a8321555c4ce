package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/testnet"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// served is a client's node that answers over RPC, beside a provider's.
type served struct {
	*api.Node
	provider   *testnet.Peer
	dir        string
	url, token string
}

func serveClient(t *testing.T) *served { return serve(t, false) }

// serve is serveClient for a node that may provide itself.
func serve(t *testing.T, provide bool) *served {
	ctx := t.Context()
	dir := t.TempDir()
	tn, err := testnet.New(ctx, dir)
	require.NoError(t, err)
	s := &served{dir: dir}
	s.provider, err = tn.Peer(ctx, "p", true)
	require.NoError(t, err)
	c, err := tn.Peer(ctx, "c", provide)
	require.NoError(t, err)
	require.NoError(t, s.provider.Start(ctx, nil))
	require.NoError(t, c.Start(ctx, nil))
	h := config.Home{Dir: filepath.Join(dir, "served")}
	_, err = node.Init(h, node.InitOptions{})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	sctx, stop := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- c.Serve(sctx, h, ln, func() error { close(ready); return nil })
	}()
	<-ready
	n, hangup, err := node.Dial(ctx, h)
	require.NoError(t, err)
	token, err := node.ReadToken(h.Path("token"))
	require.NoError(t, err)
	s.Node, s.url, s.token = n, ln.Addr().String()+"/rpc/v1", token
	t.Cleanup(func() {
		hangup()
		stop()
		<-ended
		require.NoError(t, c.Stop(context.Background()))
		require.NoError(t, s.provider.Stop(context.Background()))
		require.NoError(t, tn.Close())
	})
	return s
}

func (s *served) file(t *testing.T, name string, n int, seed uint64) (string, []byte) {
	data := make([]byte, n)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	path := filepath.Join(s.dir, name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path, data
}

// TestClientAPI: the methods of 2.9 by their names and shapes, over real RPC: import and export, offers, a paid retrieval, what is listed.
func TestClientAPI(t *testing.T) {
	s := serveClient(t)
	ctx := t.Context()
	path, data := s.file(t, "import.bin", 3<<20, 1)
	imp, err := s.ClientImport(ctx, api.FileRef{Path: path})
	require.NoError(t, err)
	has, err := s.ClientHasLocal(ctx, imp.Root)
	require.NoError(t, err)
	require.True(t, has)
	imported, err := s.ClientListImports(ctx)
	require.NoError(t, err)
	require.Equal(t, []api.ClientImport{{Key: imp.ImportID, Root: &imp.Root, Source: "import", FilePath: path, CARPath: imported[0].CARPath}}, imported)
	size, err := s.ClientDealSize(ctx, imp.Root)
	require.NoError(t, err)
	require.EqualValues(t, 4<<20, size.PieceSize)
	car := filepath.Join(s.dir, "import.car")
	require.NoError(t, s.ClientExport(ctx, api.ExportRef{Root: imp.Root, FromLocalCAR: "import"}, api.FileRef{Path: car, IsCAR: true}))
	commitment, err := s.ClientCalcCommP(ctx, car)
	require.NoError(t, err)
	piece, err := s.ClientDealPieceCID(ctx, imp.Root)
	require.NoError(t, err)
	require.Equal(t, piece.PieceCID, commitment.Root)
	require.EqualValues(t, size.PieceSize/128*127, commitment.Size)
	require.Equal(t, size.PayloadSize, commitment.Payload)
	back := filepath.Join(s.dir, "back.bin")
	require.NoError(t, s.ClientExport(ctx, api.ExportRef{Root: imp.Root, FromLocalCAR: "import"}, api.FileRef{Path: back}))
	got, err := os.ReadFile(back)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, s.ClientGenCar(ctx, api.FileRef{Path: path}, filepath.Join(s.dir, "gen.car")))

	sold, data := s.file(t, "sold.bin", 5<<20, 2)
	p, err := s.provider.API().Provide(ctx, sold)
	require.NoError(t, err)
	_, err = s.provider.API().SetAsk(ctx, api.Ask{PricePerByte: "2", UnsealPrice: "7", PaymentInterval: 1 << 20})
	require.NoError(t, err)
	root := cid.MustParse(p.Root)
	offers, err := s.ClientFindData(ctx, root, nil)
	require.NoError(t, err)
	require.Empty(t, offers, "nobody is known yet")
	_, err = s.Find(ctx, p.Root, []string{s.provider.Address()})
	require.NoError(t, err)
	offers, err = s.ClientFindData(ctx, root, nil)
	require.NoError(t, err)
	require.Len(t, offers, 1)
	o := offers[0]
	require.Empty(t, o.Err)
	require.Equal(t, "2", o.PricePerByte.String())
	require.Equal(t, big.Add(big.Mul(big.NewInt(2), big.NewIntUnsigned(o.Size)), big.NewInt(7)).String(), o.MinPrice.String())

	streams, hangup, err := api.DialStreams(ctx, "ws://"+s.url, s.token)
	require.NoError(t, err)
	defer hangup()
	sctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	updates, err := streams.ClientGetRetrievalUpdates(sctx)
	require.NoError(t, err)
	_, err = s.ClientRetrieve(ctx, o.Order(o.Miner))
	require.ErrorContains(t, err, "default wallet", "an order is not paid from another wallet than it says")
	order := o.Order(address.Undef)
	res, err := s.ClientRetrieve(ctx, order)
	require.NoError(t, err)
	require.NoError(t, s.ClientRetrieveWait(ctx, res.DealID))
	require.NoError(t, s.ClientRetrieveWait(ctx, res.DealID), "a deal that has ended is not waited for (T-L1)")
	last := api.RetrievalInfo{}
	for u := range updates {
		require.Equal(t, res.DealID, u.ID)
		if last = u; u.Status == rm.DealStatusCompleted {
			break
		}
	}
	require.Equal(t, rm.DealStatusCompleted, last.Status)
	list, err := s.ClientListRetrievals(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, root, list[0].PayloadCID)
	require.Equal(t, big.Add(big.Mul(big.NewInt(2), big.NewIntUnsigned(list[0].BytesReceived)), big.NewInt(7)).String(), list[0].TotalPaid.String())
	require.NoError(t, s.ClientExport(ctx, api.ExportRef{Root: root, DealID: res.DealID}, api.FileRef{Path: back}))
	got, err = os.ReadFile(back)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	offer, err := s.ClientMinerQueryOffer(ctx, offers[0].Miner, root, nil)
	require.NoError(t, err)
	require.Empty(t, offer.Err)
	again, err := s.ClientRetrieve(ctx, order)
	require.NoError(t, err)
	require.Zero(t, again.DealID, "everything is here")

	part := "Links/1/Hash"
	order.DataSelector = &part
	_, err = s.ClientRetrieve(ctx, order)
	require.NoError(t, err)
	proof := filepath.Join(s.dir, "proof.car")
	require.NoError(t, s.ClientExport(ctx, api.ExportRef{Root: root, DAGs: []api.DagSpec{{DataSelector: &part, ExportMerkleProof: true}, {DataSelector: &part}}}, api.FileRef{Path: proof, IsCAR: true}))
	st, err := os.Stat(proof)
	require.NoError(t, err)
	require.Less(t, st.Size(), int64(2<<20))
	s.refusals(t, order)
}

// refusals are orders that name nothing to do.
func (s *served) refusals(t *testing.T, order api.RetrievalOrder) {
	ctx := t.Context()
	for want, change := range map[string]func(*api.RetrievalOrder){
		"zero bytes": func(o *api.RetrievalOrder) { o.Size = 0 },
		"no peer":    func(o *api.RetrievalOrder) { o.MinerPeer = nil },
	} {
		bad := order
		change(&bad)
		_, err := s.ClientRetrieve(ctx, bad)
		require.ErrorContains(t, err, want)
		require.Equal(t, api.CodeUsage, api.CodeOf(err))
	}
	require.Error(t, s.ClientRetrieveWait(ctx, 99))
	require.Equal(t, api.CodeNotFound, api.CodeOf(s.ClientCancelRetrievalDeal(ctx, 99)))
	require.Equal(t, api.CodeUsage, api.CodeOf(s.ClientExport(ctx, api.ExportRef{Root: order.Root}, api.FileRef{})))
	require.Equal(t, api.CodeNotFound, api.CodeOf(s.ClientExport(ctx, api.ExportRef{Root: cid.MustParse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")}, api.FileRef{Path: filepath.Join(s.dir, "x")})))
}

// call posts a call as a program of another language does.
func (s *served) call(t *testing.T, method, params string) (answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}) {
	body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &answer), string(data))
	return answer
}

// TestFilecoinNamespace: a program of a Filecoin node finds the methods under their names there, with CIDs as such programs write them.
func TestFilecoinNamespace(t *testing.T) {
	s := serveClient(t)
	const root = `{"/":"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}`
	a := s.call(t, "Filecoin.ClientHasLocal", "["+root+"]")
	require.Nil(t, a.Error)
	require.Equal(t, "false", string(a.Result))
	a = s.call(t, "Filecoin.ClientRetrieve", `[{"Root":`+root+`,"Size":5}]`)
	require.NotNil(t, a.Error)
	require.Contains(t, a.Error.Message, "cannot make retrieval deal for null total")
	a = s.call(t, "Filecoin.DagstoreListShards", "[]")
	require.Nil(t, a.Error)
	require.Equal(t, "[]", string(a.Result))
}

// TestR_J3 : the stream of initialisations has two events for each shard, and ends with them or with its caller.
func TestR_J3(t *testing.T) {
	s := serveClient(t)
	ctx := t.Context()
	for i := range 3 {
		path, _ := s.file(t, fmt.Sprintf("f%d.bin", i), 100_000, uint64(i+10))
		car := path + ".car"
		require.NoError(t, s.ClientGenCar(ctx, api.FileRef{Path: path}, car))
		c, err := s.ClientCalcCommP(ctx, car)
		require.NoError(t, err)
		_, err = s.DagstoreRegister(ctx, c.Root.String(), car, false, true)
		require.NoError(t, err)
	}
	streams, hangup, err := api.DialStreams(ctx, "ws://"+s.url, s.token)
	require.NoError(t, err)
	defer hangup()
	events, err := streams.DagstoreInitializeAll(ctx, api.DagstoreInitializeAllParams{MaxConcurrency: 1})
	require.NoError(t, err)
	n := 0
	for e := range events {
		require.Equal(t, 3, e.Total)
		require.Equal(t, n%2 == 0, e.Event == "start")
		require.True(t, e.Event == "start" || e.Success, e.Error)
		n++
	}
	require.Equal(t, 6, n)
	events, err = streams.DagstoreInitializeAll(ctx, api.DagstoreInitializeAllParams{})
	require.NoError(t, err)
	_, more := <-events
	require.False(t, more, "none is left")
	sctx, cancel := context.WithCancel(ctx)
	updates, err := streams.ClientGetRetrievalUpdates(sctx)
	require.NoError(t, err)
	cancel()
	for range updates {
	}
}

// TestEveryMethodAnswers: no function of the API is left out where a process runs the node itself.
func TestEveryMethodAnswers(t *testing.T) {
	v := reflect.ValueOf(*new(node.Node).API())
	for i := range v.NumField() {
		require.False(t, v.Field(i).IsNil(), "%s answers nothing", v.Type().Field(i).Name)
	}
}
