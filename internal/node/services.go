package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
	"github.com/cartage-dev/cartage/paych/lotus"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/storagedeal"
)

// Service answers the API of a node.
type Service struct{ n *Node }

// API is the node as its typed client.
func (n *Node) API() *api.Node {
	s, o, set, tok, e := Service{n}, n.overview, Settings{n}, Tokens{n}, n.evm
	return withCodes(&api.Node{
		EVMEarnings: e.EVMEarnings, EVMRedeem: e.EVMRedeem, EVMKeyNew: e.EVMKeyNew, EVMKeys: e.EVMKeys,
		Version: o.Version, Status: o.Status, Doctor: o.Doctor, DashboardCode: n.entrance.DashboardCode,
		VerifyPiece: Stock{n}.VerifyPiece, RemovePiece: Stock{n}.RemovePiece,
		Info: s.Info, Provide: s.Provide, ProvideAs: s.ProvideAs, Pieces: s.Pieces, Import: s.Import, Ask: s.Ask, SetAsk: s.SetAsk, Find: s.Find, FindIn: s.FindIn,
		Retrieve: s.Retrieve, RetrieveWeb: s.RetrieveWeb, Retrieval: s.Retrieval, Deals: s.Deals, CancelDeal: s.CancelDeal,
		Orders: s.Orders, OrderWatch: s.OrderWatch, OrderRelease: s.OrderRelease, OrderPark: s.OrderPark, OrderResume: s.OrderResume, OrderCancel: s.OrderCancel, Faucet: s.Faucet,
		WalletNew: s.WalletNew, WalletList: s.WalletList, WalletExport: s.WalletExport, WalletImport: s.WalletImport, WalletRemove: s.WalletRemove,
		WalletDefault: s.WalletDefault,
		PayChannels:   s.PayChannels, PayChVouchers: s.PayChVouchers, PayChPlan: s.PayChPlan, RedeemPayCh: s.RedeemPayCh, SettlePayCh: s.SettlePayCh,
		CollectPayCh: s.CollectPayCh, Earnings: s.Earnings, Spending: s.Spending, PeerDebts: s.PeerDebts, ForgivePeer: s.ForgivePeer, Limits: s.Limits,
		ConfigShow: set.ConfigShow, ConfigReload: set.ConfigReload,
		TokenCreate: tok.TokenCreate, TokenList: tok.TokenList, TokenRevoke: tok.TokenRevoke,
		Imports: s.Imports, ClientListImports: s.ClientListImports, ClientRemoveImport: s.ClientRemoveImport, ClientHasLocal: s.ClientHasLocal, ClientLocal: s.ClientLocal,
		ClientRepoint: s.ClientRepoint, ClientDealPieceCID: s.ClientDealPieceCID,
		ClientImport: s.ClientImport, ClientFindData: s.ClientFindData, ClientMinerQueryOffer: s.ClientMinerQueryOffer, ClientRetrieve: s.ClientRetrieve,
		ClientRetrieveWait: s.ClientRetrieveWait, ClientListRetrievals: s.ClientListRetrievals, ClientCancelRetrievalDeal: s.ClientCancelRetrievalDeal,
		ClientExport: s.ClientExport, ClientDealSize: s.ClientDealSize, ClientCalcCommP: s.ClientCalcCommP, ClientGenCar: s.ClientGenCar,
		DagstoreListShards: s.DagstoreListShards, DagstoreShards: s.DagstoreShards, DagstoreRegisterShard: s.DagstoreRegisterShard,
		DagstoreRegister: s.DagstoreRegister, DagstoreInitializeShard: s.DagstoreInitializeShard, DagstoreRecoverShard: s.DagstoreRecoverShard,
		DagstoreDestroyShard: s.DagstoreDestroyShard, DagstoreGC: s.DagstoreGC, DagstoreLookupPieces: s.DagstoreLookupPieces, DagstoreImport: s.DagstoreImport, DagstoreDoctor: s.DagstoreDoctor, DagstoreRebuild: s.DagstoreRebuild,
		ClientStatelessDeal: s.ClientStatelessDeal, ClientDealStatus: s.ClientDealStatus, ClientQueryAsk: s.ClientQueryAsk,
		ClientStartDeal: s.ClientStartDeal, StoragePushes: s.StoragePushes, StoragePush: s.StoragePush, ResumeStoragePush: s.ResumeStoragePush,
		StorageDeals: s.StorageDeals, StorageImport: s.StorageImport, StorageAsk: s.StorageAsk, SetStorageAsk: s.SetStorageAsk,
	})
}

// withCodes gives the errors of every method a code and a hint, whatever the method itself does about them.
func withCodes(a *api.Node) *api.Node {
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		f := reflect.ValueOf(v.Field(i).Interface())
		v.Field(i).Set(reflect.MakeFunc(f.Type(), func(args []reflect.Value) []reflect.Value {
			out := f.Call(args)
			if err, failed := out[len(out)-1].Interface().(error); failed {
				err = coded(err)
				out[len(out)-1] = reflect.ValueOf(&err).Elem()
			}
			return out
		}))
	}
	return a
}

// coded gives an error of the node a code and a hint.
func coded(err error) error {
	var e *api.Error
	var refused *storagedeal.RefusedError
	var wrong *dagstore.WrongPieceError
	var known *reason.Error
	switch {
	case err == nil, errors.As(err, &e):
		return err
	case errors.As(err, &known):
		return api.ErrorOf(err)
	case errors.Is(err, ledger.ErrUnavailable):
		return api.ErrorOf(reason.LedgerAway.Errorf("%w", err).WithHint("Is cartage ledger serve running?"))
	case errors.Is(err, lotus.ErrNodeUnavailable), errors.Is(err, lotus.ErrNodeBehind):
		return api.ErrorOf(reason.LedgerAway.Errorf("%w", err).WithHint("Is the Lotus node running, and synced?"))
	case errors.Is(err, lotus.ErrAuth), errors.Is(err, ledger.ErrUnauthorised), errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.CodeUnauthorised, "", "%w", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, rm.ErrNotFound), errors.Is(err, dagstore.ErrShardUnknown), errors.Is(err, imports.ErrUnknownImport), errors.Is(err, paych.ErrUnknownChannel):
		return api.Errorf(api.CodeNotFound, "", "%w", err)
	case errors.As(err, &refused):
		return api.Errorf(api.CodeRejected, "", "%w", err)
	case errors.Is(err, storagedeal.ErrUnknownDeal), errors.Is(err, storagedeal.ErrUnknownMiner):
		return api.Errorf(api.CodeNotFound, "", "%w", err)
	case errors.Is(err, storagedeal.ErrStateless), errors.Is(err, storagedeal.ErrOnline), errors.Is(err, storagedeal.ErrDuration):
		return api.Errorf(api.CodeUsage, "", "%w", err)
	case errors.Is(err, storagedeal.ErrUnreachable):
		return api.Errorf(api.CodeUnreachable, "", "%w", err)
	case errors.Is(err, storagedeal.ErrBadAnswer), errors.Is(err, storagedeal.ErrBadSignature), errors.As(err, &wrong):
		return api.Errorf(api.CodeVerification, "", "%w", err)
	case errors.Is(err, carstore.ErrBadHash), errors.Is(err, carstore.ErrCut):
		return api.Errorf(api.CodeVerification, "", "%w", err)
	case errors.Is(err, paych.ErrWalletFunds):
		return api.Errorf(api.CodeFunds, "On a development ledger: cartage faucet.", "%w", err)
	}
	return err
}

// Info answers Cartage.Info.
func (s Service) Info(context.Context) (*api.Info, error) {
	i := &api.Info{PeerID: s.n.Host.ID().String(), Addresses: s.n.Addresses(), Ledger: s.n.chainName(), Providing: s.n.Provider != nil}
	switch w, err := s.n.wallet(); {
	case err == nil:
		i.Wallet = w.String()
	case !errors.Is(err, paych.ErrNoKey):
		return nil, coded(err)
	}
	if err := s.n.takesDeals(); err != nil {
		i.Refuses = err.Error()
	}
	return i, nil
}

// chainName is where the money is.
func (n *Node) chainName() string {
	if _, ok := n.parts.Chain.(*lotus.Chain); ok {
		return n.parts.Config.Lotus.API
	}
	return n.parts.Config.Ledger.URL
}

func (n *Node) piece(sh dagstore.Shard) api.Piece {
	p := api.Piece{Root: sh.Root.String(), PieceCID: sh.Piece.String(), Bytes: sh.Bytes, Blocks: sh.Blocks, CarSize: sh.CarSize, Padded: sh.Padded,
		Path: n.Pieces.File(sh), State: strings.TrimPrefix(sh.State.String(), "ShardState"), Missing: sh.Missing}
	if v2, err := commp.V2(commp.Piece{CID: sh.Piece, Payload: commp.Payload(sh.CarSize), Padded: commp.Padded(sh.Padded)}); err == nil {
		p.PieceCIDv2 = v2.String() // the smallest pieces have none
	}
	for _, r := range sh.Roots() {
		p.Roots = append(p.Roots, r.String())
	}
	return p
}

// warnings are what the seller of a piece has to know.
func warnings(sh dagstore.Shard) (out []string) {
	if sh.Dropped > 0 {
		out = append(out, fmt.Sprintf("%d bytes behind the last block are no padding and are left out of the piece", sh.Dropped))
	}
	if sh.Missing > 0 {
		out = append(out, fmt.Sprintf("the archive lacks %d blocks below its roots", sh.Missing))
	}
	for _, c := range sh.Opaque {
		out = append(out, fmt.Sprintf("block %s cannot be decoded: it is sold as bytes, and what it may link is not found through it", c))
	}
	return out
}

// Provide answers Cartage.Provide.
func (s Service) Provide(ctx context.Context, path string) (*api.Piece, error) {
	return s.ProvideAs(ctx, api.ProvideRequest{Path: path})
}

// ProvideAs answers Cartage.ProvideAs: Provide with a choice of how links and modes are taken.
func (s Service) ProvideAs(ctx context.Context, r api.ProvideRequest) (*api.Piece, error) {
	o, left, err := importOptions(r.Symlinks, r.Preserve)
	if err != nil {
		return nil, coded(err)
	}
	roots, err := parseCIDs(r.Roots)
	if err != nil {
		return nil, err
	}
	sh, err := s.n.ProvideAs(ctx, r.Path, ProvideOptions{Reading: o, Roots: roots, Partial: r.Partial})
	if err != nil {
		s.n.limits.Ended(reason.From(err))
		return nil, coded(err)
	}
	p := s.n.piece(sh)
	p.LeftOut, p.Warnings = left(), warnings(sh)
	return &p, nil
}

func parseCIDs(list []string) (out []cid.Cid, err error) {
	for _, s := range list {
		c, err := ParseCID(s)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// Pieces answers Cartage.Pieces.
func (s Service) Pieces(context.Context) ([]api.Piece, error) {
	list, err := s.n.Pieces.List()
	out := []api.Piece{}
	for _, sh := range list {
		out = append(out, s.n.piece(sh))
	}
	return out, coded(err)
}

func ask(a *rm.Ask) *api.Ask {
	return &api.Ask{PricePerByte: a.PricePerByte.String(), UnsealPrice: a.UnsealPrice.String(), PaymentInterval: a.PaymentInterval, PaymentIntervalIncrease: a.PaymentIntervalIncrease}
}

// Ask answers Cartage.Ask.
func (s Service) Ask(context.Context) (*api.Ask, error) { return ask(s.n.asks.GetAsk()), nil }

// SetAsk answers Cartage.SetAsk.
func (s Service) SetAsk(_ context.Context, a api.Ask) (*api.Ask, error) {
	price, err := big.FromString(a.PricePerByte)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "price per byte %q is not a number", a.PricePerByte)
	}
	unseal, err := big.FromString(a.UnsealPrice)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "unseal price %q is not a number", a.UnsealPrice)
	}
	if err := s.n.asks.SetAsk(&rm.Ask{PricePerByte: price, UnsealPrice: unseal, PaymentInterval: a.PaymentInterval, PaymentIntervalIncrease: a.PaymentIntervalIncrease}); err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "%w", err)
	}
	return ask(s.n.asks.GetAsk()), nil
}

// Find answers Cartage.Find: the offers of the named providers.
func (s Service) Find(ctx context.Context, c string, providers []string) ([]api.Offer, error) {
	return s.FindIn(ctx, c, "", providers)
}

// FindIn answers Cartage.FindIn.
func (s Service) FindIn(ctx context.Context, c, in string, providers []string) ([]api.Offer, error) {
	root, err := ParseCID(c)
	if err != nil {
		return nil, err
	}
	piece, err := parsePiece(in)
	if err != nil {
		return nil, coded(err)
	}
	if len(providers) == 0 {
		return nil, api.Errorf(api.CodeUsage, "Name one with --provider.", "no provider is known for %s", root)
	}
	out := []api.Offer{}
	for _, addr := range providers {
		o := api.Offer{Provider: addr}
		if err := s.offer(ctx, &o, root, piece); err != nil {
			if len(providers) == 1 {
				return nil, coded(err)
			}
			e := api.ErrorOf(coded(err))
			o.Message, o.Reason = e.Message, e.Reason
		}
		out = append(out, o)
	}
	return out, nil
}

func (s Service) offer(ctx context.Context, o *api.Offer, root cid.Cid, piece *cid.Cid) error {
	if isGateway(o.Provider) {
		if piece != nil {
			return reason.Usage.Errorf("%s: a gateway cannot be asked what one piece serves", o.Provider).WithHint("Leave --piece out.")
		}
		return s.webOffer(ctx, o, root)
	}
	p, err := s.n.connect(ctx, o.Provider)
	if err != nil {
		return err
	}
	start := time.Now()
	q, err := s.n.query(ctx, p, root, piece)
	if err != nil {
		return err
	}
	o.RoundTripMS = float64(time.Since(start).Microseconds()) / 1000
	o.Available, o.Message, o.Size = q.Status == rm.QueryResponseAvailable, q.Message, q.Size
	switch q.Status {
	case rm.QueryResponseUnavailable: // it has no words of its own that would say more
		o.Reason, o.Message = reason.RootUnknown.String(), reason.RootUnknown.Error()
	case rm.QueryResponseError:
		o.Reason = reason.PeerFailed.String()
	}
	o.Price, o.PricePerByte, o.UnsealPrice = q.PieceRetrievalPrice().String(), q.MinPricePerByte.String(), q.UnsealPrice.String()
	o.Interval, o.Increase, o.PaidTo = q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease, q.PaymentAddress.String()
	return nil
}

// Retrieve answers Cartage.Retrieve.
func (s Service) Retrieve(ctx context.Context, r api.RetrieveRequest) (*api.Retrieval, error) {
	owner := download.Command
	if r.Queue {
		owner = download.Queue
	}
	out, err := s.n.Retrieve(ctx, r, owner)
	return out, coded(err)
}

// Retrieval answers Cartage.Retrieval: how a retrieval stands, by its key. It waits a little for news.
func (s Service) Retrieval(ctx context.Context, key string) (*api.Retrieval, error) {
	r, err := s.n.runOf(key)
	if err != nil {
		return nil, err
	}
	v := r.snapshot()
	s.n.renew(v, "")
	if !v.Done {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		for !v.Done && ctx.Err() == nil {
			r.after(ctx, v.Seq)
			v = r.snapshot()
		}
	}
	return v, nil
}

// Deals answers Cartage.Deals: both roles, newest last.
func (s Service) Deals(ctx context.Context) ([]api.Deal, error) {
	mine, err := s.n.Client.ListDeals()
	if err != nil {
		return nil, err
	}
	out := []api.Deal{}
	for _, d := range mine {
		v := api.Deal{ID: "c" + d.ID.String(), Role: "client", Peer: d.Sender.String(), Root: d.PayloadCID.String(), Status: strings.TrimPrefix(d.Status.String(), "DealStatus"),
			Message: d.Message, Final: clientstates.IsFinal(d.Status), PricePerByte: d.PricePerByte.String(), UnsealPrice: d.UnsealPrice.String(), Bytes: d.TotalReceived,
			Owed: clientstates.Terms(&d).Due(d.TotalReceived).String(), Vouchered: d.FundsSpent.String()}
		if v.Reason = d.Reason; v.Reason != "" {
			v.Blame = clientstates.ReasonOf(&d).Blame().String()
		}
		if d.PaymentInfo != nil {
			v.PayCh, v.Lane = d.PaymentInfo.PayCh.String(), d.PaymentInfo.Lane
		}
		out = append(out, s.book(ctx, v, false, clientstates.DealKey(d.ID)))
	}
	sold, err := s.n.sold(ctx)
	if err != nil {
		return nil, err
	}
	for id, d := range sold {
		v := api.Deal{ID: "p" + id.String(), Role: "provider", Peer: d.Receiver.String(), Root: d.PayloadCID.String(), Status: strings.TrimPrefix(d.Status.String(), "DealStatus"),
			Message: d.Message, Final: clientstates.IsFinal(d.Status), PricePerByte: d.PricePerByte.String(), UnsealPrice: d.UnsealPrice.String(), Bytes: d.TotalSent,
			Owed: providerstates.Terms(&d).Due(d.TotalSent).String(), Vouchered: d.FundsReceived.String()}
		out = append(out, s.book(ctx, v, true, providerstates.DealKey(id)))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

// sold are the deals of the provider, also of one that is not running.
func (n *Node) sold(ctx context.Context) (map[rm.ProviderDealIdentifier]rm.ProviderDealState, error) {
	if n.Provider != nil {
		return n.Provider.ListDeals(), nil
	}
	list, err := retrievalimpl.ProviderDeals(ctx, n.space("/retrievals/provider"))
	out := make(map[rm.ProviderDealIdentifier]rm.ProviderDealState, len(list))
	for _, d := range list {
		out[d.Identifier()] = d
	}
	return out, err
}

// book fills in what the voucher book knows: what it has is in what is shown, whatever became of the deal's record.
func (s Service) book(ctx context.Context, v api.Deal, inbound bool, key string) api.Deal {
	if s.n.Payments == nil {
		return v
	}
	if e, err := s.n.Payments.Best(ctx, inbound, key); err == nil && e != nil {
		v.PayCh, v.Lane, v.Vouchers = e.Channel.String(), e.Lane, e.Nonce
		if recorded, err := big.FromString(v.Vouchered); err == nil { // a deal that ended while power was lost may not have heard of its last voucher
			v.Vouchered = big.Max(recorded, e.Credit).String()
		}
	}
	return v
}

// CancelDeal answers Cartage.CancelDeal.
func (s Service) CancelDeal(ctx context.Context, id string) error {
	if _, ok := download.ParseID(id); ok {
		_, err := s.OrderCancel(ctx, id)
		return err
	}
	rest := strings.TrimLeft(id, "cp")
	if strings.HasPrefix(id, "c") {
		n, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			return api.Errorf(api.CodeUsage, "Ids are listed by cartage deals.", "%q is not the id of a deal", id)
		}
		return coded(s.n.cancelDeal(ctx, rm.DealID(n)))
	}
	p, num, ok := strings.Cut(strings.TrimPrefix(id, "p"), "/")
	pid, err := peer.Decode(p)
	n, nerr := strconv.ParseUint(num, 10, 64)
	if !ok || err != nil || nerr != nil || s.n.Provider == nil {
		return api.Errorf(api.CodeUsage, "Ids are listed by cartage deals.", "%q is not the id of a deal", id)
	}
	key := rm.ProviderDealIdentifier{Receiver: pid, DealID: rm.DealID(n)}
	if err := s.n.Provider.CancelDeal(key); err != nil {
		return coded(err)
	}
	return s.n.waitEnded(ctx, id, func() bool { return clientstates.IsFinal(s.n.Provider.ListDeals()[key].Status) })
}
