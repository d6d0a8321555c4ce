package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/store"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// maxAsked bounds how many providers are asked for one payload.
const maxAsked = 32

// ClientImport answers Cartage.ClientImport.
func (s Service) ClientImport(ctx context.Context, ref api.FileRef) (*api.ImportRes, error) {
	i, err := s.Import(ctx, api.ImportRequest{Path: ref.Path, CAR: ref.IsCAR})
	if err != nil {
		return nil, err
	}
	root, err := cid.Decode(i.Root)
	return &api.ImportRes{Root: root, ImportID: i.Key}, err
}

// ClientFindData answers Cartage.ClientFindData: the offers of the providers that this node knows, those that it had deals for the payload
// with first, cheapest first. Providers that do not answer, or do not have it, are left out.
func (s Service) ClientFindData(ctx context.Context, root cid.Cid, piece *cid.Cid) ([]api.QueryOffer, error) {
	known, err := s.n.providersFor(ctx, root)
	if err != nil {
		return nil, coded(err)
	}
	all := make([]api.QueryOffer, len(known))
	var asking sync.WaitGroup
	for i, p := range known {
		asking.Go(func() { all[i] = s.n.queryOffer(ctx, p, root, piece) })
	}
	asking.Wait()
	out := slices.DeleteFunc(all, func(o api.QueryOffer) bool { return o.Err != "" })
	slices.SortStableFunc(out, func(a, b api.QueryOffer) int { return big.Cmp(a.MinPrice, b.MinPrice) })
	return out, ctx.Err()
}

// providersFor lists known providers: those of earlier deals for a payload, then the others.
func (n *Node) providersFor(ctx context.Context, root cid.Cid) (out []peer.ID, err error) {
	add := func(p peer.ID) {
		if len(out) < maxAsked && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	deals, err := n.Client.ListDeals()
	if err != nil {
		return nil, err
	}
	for _, d := range deals {
		if d.PayloadCID.Equals(root) {
			add(d.Sender)
		}
	}
	err = store.Each(ctx, n.space("/peers"), "", func(_ string, value []byte) error {
		var p peer.AddrInfo
		if p.UnmarshalJSON(value) == nil {
			add(p.ID)
		}
		return nil
	})
	return out, err
}

// queryOffer asks one provider; what went wrong is in the offer.
func (n *Node) queryOffer(ctx context.Context, p peer.ID, root cid.Cid, piece *cid.Cid) api.QueryOffer {
	o := api.QueryOffer{Root: root, Piece: piece, MinPrice: big.Zero(), UnsealPrice: big.Zero(), PricePerByte: big.Zero(), MinerPeer: rm.RetrievalPeer{ID: p, PieceCID: piece}}
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	if piece != nil {
		v1, err := commp.V1(*piece)
		if err != nil {
			o.Err = err.Error()
			return o
		}
		piece = &v1
	}
	q, err := n.Client.Query(ctx, rm.RetrievalPeer{ID: p}, root, rm.QueryParams{PieceCID: piece})
	switch {
	case err != nil:
		o.Err = err.Error()
	case q.Status == rm.QueryResponseUnavailable:
		o.Err = "retrieval query offer was unavailable: " + q.Message
	case q.Status == rm.QueryResponseError:
		o.Err = "retrieval query offer errored: " + q.Message
	default:
		o.Size, o.MinPrice, o.UnsealPrice, o.PricePerByte = q.Size, q.PieceRetrievalPrice(), q.UnsealPrice, q.MinPricePerByte
		o.PaymentInterval, o.PaymentIntervalIncrease = q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease
		o.Miner, o.MinerPeer.Address = q.PaymentAddress, q.PaymentAddress
	}
	return o
}

// ClientMinerQueryOffer answers Cartage.ClientMinerQueryOffer. A provider is known by the address that it is paid at, of an earlier deal.
func (s Service) ClientMinerQueryOffer(ctx context.Context, miner address.Address, root cid.Cid, piece *cid.Cid) (*api.QueryOffer, error) {
	deals, err := s.n.Client.ListDeals()
	if err != nil {
		return nil, coded(err)
	}
	for _, d := range deals {
		if d.MinerWallet == miner {
			o := s.n.queryOffer(ctx, d.Sender, root, piece)
			return &o, nil
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "Find it by its network address first: cartage find.", "no provider with address %s is known", miner)
}

// ClientRetrieve answers Cartage.ClientRetrieve.
func (s Service) ClientRetrieve(ctx context.Context, o api.RetrievalOrder) (*api.RetrievalRes, error) {
	switch {
	case o.Total.Nil():
		return nil, api.Errorf(api.CodeUsage, "", "cannot make retrieval deal for null total")
	case o.Size == 0:
		return nil, api.Errorf(api.CodeUsage, "", "cannot make retrieval deal for zero bytes")
	case o.MinerPeer == nil || o.MinerPeer.ID == "":
		return nil, api.Errorf(api.CodeUsage, "An offer of ClientFindData has it.", "the order names no peer")
	}
	if wallet, err := s.n.wallet(); o.Client != address.Undef && (err != nil || wallet != o.Client) {
		return nil, api.Errorf(api.CodeUsage, "Make it the default: cartage wallet default.", "the order is to be paid by %s, this node pays from its default wallet", o.Client)
	}
	req := api.RetrieveRequest{CID: o.Root.String(), Budget: o.Total.String()}
	if o.Piece != nil {
		req.Piece = o.Piece.String()
	}
	if o.Miner != address.Undef {
		req.PaidTo = o.Miner.String()
	}
	if o.DataSelector != nil {
		req.DataSelector = *o.DataSelector
	}
	addrs := s.n.Host.Peerstore().Addrs(o.MinerPeer.ID)
	if len(addrs) == 0 {
		return nil, api.Errorf(api.CodeUnreachable, "", "no network address of peer %s is known", o.MinerPeer.ID)
	}
	if err := s.n.Host.Connect(ctx, peer.AddrInfo{ID: o.MinerPeer.ID, Addrs: addrs}); err != nil {
		return nil, api.Errorf(api.CodeUnreachable, "", "provider %s is not reachable: %w", o.MinerPeer.ID, err)
	}
	req.Provider = addrs[0].Encapsulate(multiaddr.StringCast("/p2p/" + o.MinerPeer.ID.String())).String()
	r, err := s.n.Retrieve(ctx, req, download.API)
	for err == nil && r.ID == "" && !r.Done { // it attached to one that is being proposed
		r, err = s.Retrieval(ctx, r.Key)
	}
	if err != nil || r.ID == "" {
		return &api.RetrievalRes{}, coded(err)
	}
	id, err := clientDeal(r.ID)
	return &api.RetrievalRes{DealID: id}, err
}

// clientDeal reads the id of a deal of the client.
func clientDeal(id string) (out rm.DealID, err error) {
	if _, err := fmt.Sscanf(id, "c%d", &out); err != nil {
		return 0, api.Errorf(api.CodeUsage, "Ids are listed by cartage deals.", "%q is not the id of a deal of the client", id)
	}
	return out, nil
}

// ClientRetrieveWait answers Cartage.ClientRetrieveWait: it returns when the deal has ended, with an error unless it is complete.
func (s Service) ClientRetrieveWait(ctx context.Context, id rm.DealID) error {
	ended := make(chan rm.ClientDealState, 1)
	defer s.n.Client.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if d.ID == id && standsStill(d) {
			select {
			case ended <- d:
			default:
			}
		}
	})()
	d, err := s.n.Client.GetDeal(id)
	if err != nil {
		return coded(err)
	}
	if !standsStill(d) {
		select {
		case d = <-ended:
		case <-ctx.Done():
			return api.Errorf(api.CodeTimeout, "", "Retrieval Timed Out")
		case <-s.n.ctx.Done():
			return api.Errorf(api.CodeInterrupted, "It goes on at the next start.", "the node was stopped")
		}
	}
	code := codeOf(d)
	switch d.Status {
	case rm.DealStatusCompleted:
		return nil
	case rm.DealStatusRejected:
		return api.Errorf(code, "", "Retrieval Proposal Rejected: %s", d.Message)
	case rm.DealStatusCancelled:
		return api.Errorf(code, "", "Retrieval was cancelled externally: %s", d.Message)
	}
	return api.Errorf(code, "", "Retrieval Error: %s", d.Message)
}

// ClientListRetrievals answers Cartage.ClientListRetrievals.
func (s Service) ClientListRetrievals(context.Context) ([]api.RetrievalInfo, error) {
	deals, err := s.n.Client.ListDeals()
	out := make([]api.RetrievalInfo, 0, len(deals))
	for _, d := range deals {
		out = append(out, retrievalInfo(d, nil))
	}
	slices.SortFunc(out, func(a, b api.RetrievalInfo) int { return int(int64(a.ID) - int64(b.ID)) })
	return out, coded(err)
}

func retrievalInfo(d rm.ClientDealState, e *rm.ClientEvent) api.RetrievalInfo {
	v := api.RetrievalInfo{PayloadCID: d.PayloadCID, ID: d.ID, PieceCID: d.PieceCID, PricePerByte: d.PricePerByte, UnsealPrice: d.UnsealPrice, Status: d.Status,
		Message: d.Message, Provider: d.Sender.String(), BytesReceived: d.TotalReceived, BytesPaidFor: d.BytesPaidFor, TotalPaid: d.FundsSpent, Event: e}
	if d.ChannelID.Initiator != "" {
		v.TransferChannelID = d.ChannelID.String()
	}
	return v
}

// updates keeps the newest of each deal for a listener, in the order in which deals changed: one that is slow misses progress, and never
// how a deal ended.
type updates struct {
	mu     sync.Mutex
	newest map[rm.DealID]api.RetrievalInfo
	order  []rm.DealID
	some   chan struct{}
}

func (u *updates) put(v api.RetrievalInfo) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, waits := u.newest[v.ID]; !waits {
		u.order = append(u.order, v.ID)
	}
	u.newest[v.ID] = v
	select {
	case u.some <- struct{}{}:
	default:
	}
}

func (u *updates) take() (v api.RetrievalInfo, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.order) == 0 {
		return v, false
	}
	id := u.order[0]
	v, u.order = u.newest[id], u.order[1:]
	delete(u.newest, id)
	return v, true
}

// ClientGetRetrievalUpdates answers Cartage.ClientGetRetrievalUpdates, over WebSocket: what happens to the client's deals until ctx or the
// node ends.
func (s Service) ClientGetRetrievalUpdates(ctx context.Context) (<-chan api.RetrievalInfo, error) {
	out := make(chan api.RetrievalInfo)
	u := &updates{newest: map[rm.DealID]api.RetrievalInfo{}, some: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.n.ctx, cancel)
	unsubscribe := s.n.Client.SubscribeToEvents(func(e rm.ClientEvent, d rm.ClientDealState) { u.put(retrievalInfo(d, &e)) })
	s.n.wg.Go(func() {
		defer close(out)
		defer unsubscribe()
		defer stop()
		defer cancel()
		for ctx.Err() == nil {
			v, ok := u.take()
			if !ok {
				select {
				case <-u.some:
				case <-ctx.Done():
				}
				continue
			}
			select {
			case out <- v:
			case <-ctx.Done():
			}
		}
	})
	return out, nil
}

// ClientCancelRetrievalDeal answers Cartage.ClientCancelRetrievalDeal.
func (s Service) ClientCancelRetrievalDeal(ctx context.Context, id rm.DealID) error {
	return s.CancelDeal(ctx, "c"+id.String())
}

// ClientDealSize answers Cartage.ClientDealSize.
func (s Service) ClientDealSize(ctx context.Context, root cid.Cid) (*api.DataSize, error) {
	d, err := s.ClientDealPieceCID(ctx, root)
	if err != nil {
		return nil, err
	}
	return &api.DataSize{PayloadSize: d.PayloadSize, PieceSize: d.PieceSize}, nil
}

// ClientGenCar answers Cartage.ClientGenCar: the archive of a file or folder, in the form of the profile lotus.
func (s Service) ClientGenCar(ctx context.Context, ref api.FileRef, out string) error {
	if ref.IsCAR {
		return api.Errorf(api.CodeUsage, "", "%s is a CAR already", ref.Path)
	}
	p, err := imports.ProfileByName("lotus")
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) == "" {
		return api.Errorf(api.CodeUsage, "", "no output given")
	}
	_, err = imports.WriteCAR(ctx, s.n.parts.FS, ref.Path, out, p, nil)
	if errors.Is(err, context.Canceled) {
		return err
	}
	return coded(err)
}
