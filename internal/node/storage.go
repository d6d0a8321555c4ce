package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/storagedeal"
)

// dealPieces makes the data of storage deals shards.
type dealPieces struct{ n *Node }

// Add implements storagedeal.Pieces.
func (p dealPieces) Add(ctx context.Context, d storagedeal.Data) error {
	if d.Build == nil {
		d.Build = func(ctx context.Context, to string) error { return blob.Clone(ctx, p.n.parts.FS, d.Path, to) }
	}
	_, err := p.n.Pieces.Register(ctx, dagstore.Source{Name: d.Path, Piece: d.Piece, Padded: uint64(d.Size), Progress: d.Progress, Build: d.Build})
	return err
}

// openStorage opens both sides of storage deals, if there is a view of a chain, before transfers begin.
func (n *Node) openStorage(ctx context.Context) error {
	cfg := n.parts.Config.Storage
	if cfg.ChainView == "" {
		return nil
	}
	name := cfg.ChainView
	if !filepath.IsAbs(name) {
		name = n.parts.Home.Path(name)
	}
	view, err := storagedeal.ReadFileView(ctx, name)
	if err != nil {
		return api.Errorf(api.CodeUsage, "It is chain_view of [storage] in config.toml.", "%w", err)
	}
	n.chainView = view
	n.storageClient = storagedeal.NewClient(storagedeal.ClientConfig{Host: n.Host, Chain: view, Wallet: n.parts.Wallet})
	if n.transfers, err = storagedeal.NewTransfers(n.manager, n.Host.ID()); err != nil {
		return err
	}
	n.pusher = storagedeal.NewPusher(storagedeal.PusherConfig{Client: n.storageClient, Transfers: n.transfers, Store: n.space("/storage/pushes"), Blocks: dealBlocks{n}, Log: n.log})
	if cfg.Miner == "" || !n.parts.Provide {
		return nil
	}
	miner, err := address.NewFromString(cfg.Miner)
	if err != nil {
		return api.Errorf(api.CodeUsage, "It is miner of [storage] in config.toml.", "%q is not an address: %w", cfg.Miner, err)
	}
	worker, err := n.storageWorker(ctx, miner)
	if err != nil {
		return err
	}
	pc := storagedeal.ProviderConfig{
		Host: n.Host, Miner: miner, Worker: worker, Wallet: n.parts.Wallet, Chain: view, Store: n.space("/storage/deals"),
		Pieces: dealPieces{n}, Publisher: &storagedeal.SimulatedPublisher{Store: n.space("/storage/numbers")},
		SkipRules: cfg.SkipRules, FS: n.parts.FS, Log: n.log,
	}
	if len(cfg.Filter) > 0 {
		pc.Filter = storagedeal.CommandFilter(cfg.Filter[0], cfg.Filter[1:]...)
	}
	if n.storage, err = storagedeal.NewProvider(pc); err != nil {
		return api.Errorf(api.CodeUsage, "See [storage] in config.toml.", "%w", err)
	}
	n.storage.JoinTransfers(n.transfers, storagedeal.ReceiveConfig{Dir: n.parts.Home.Path("staging"), Quota: uint64(max(0, cfg.StagingQuota)), Idle: time.Duration(cfg.StagingIdle)})
	return nil
}

// storageWorker is the key that the chain says signs for the miner, or the default wallet where it says nothing.
func (n *Node) storageWorker(ctx context.Context, miner address.Address) (address.Address, error) {
	info, err := n.chainView.MinerInfo(ctx, miner)
	if err != nil || info.Worker != address.Undef {
		return info.Worker, err
	}
	return n.parts.Wallet.Default()
}

// ClientStatelessDeal answers Cartage.ClientStatelessDeal.
func (s Service) ClientStatelessDeal(ctx context.Context, p api.StartDealParams) (*cid.Cid, error) {
	if s.n.storageClient == nil {
		return nil, noChainView()
	}
	q, err := s.dealParams(ctx, p)
	if err != nil {
		return nil, err
	}
	c, err := s.n.storageClient.StatelessDeal(ctx, q)
	if err != nil {
		err = coded(err)
		var e *api.Error
		if c.Defined() && !errors.As(err, &e) {
			err = api.Errorf(api.CodeOther, "The provider may have taken it: cartage deal status tells.", "%w", err)
		}
		return nil, err
	}
	return &c, nil
}

// dealParams fills in what the params of a deal leave to this node: its wallet, and whether that is verified.
func (s Service) dealParams(ctx context.Context, p api.StartDealParams) (storagedeal.StartDealParams, error) {
	q := storagedeal.StartDealParams{Wallet: p.Wallet, Miner: p.Miner, EpochPrice: p.EpochPrice, MinBlocksDuration: p.MinBlocksDuration,
		DealStartEpoch: p.DealStartEpoch, FastRetrieval: p.FastRetrieval == nil || *p.FastRetrieval}
	if p.ProviderCollateral != nil {
		q.ProviderCollateral = *p.ProviderCollateral
	}
	if p.Data != nil {
		q.Data = (*storagedeal.DataRef)(p.Data)
	}
	if q.Wallet == address.Undef {
		w, err := s.n.wallet()
		if err != nil {
			return q, coded(err)
		}
		q.Wallet = w
	}
	has, err := s.n.verified(ctx, q.Wallet)
	switch {
	case err != nil:
		return q, coded(err)
	case p.VerifiedDeal == nil:
		q.VerifiedDeal = has
	case *p.VerifiedDeal && !has:
		return q, api.Errorf(api.CodeUsage, "", "address %s does not have verified client status", q.Wallet)
	default:
		q.VerifiedDeal = *p.VerifiedDeal
	}
	return q, nil
}

func noChainView() error {
	return api.Errorf(api.CodeUsage, "Set chain_view of [storage] in config.toml.", "this node knows no chain for storage deals")
}

func (n *Node) verified(ctx context.Context, wallet address.Address) (bool, error) {
	key, err := n.chainView.AccountKey(ctx, wallet)
	if err != nil {
		return false, err
	}
	left, err := n.chainView.VerifiedStatus(ctx, key)
	return left != nil, err
}

// ClientDealStatus answers Cartage.ClientDealStatus.
func (s Service) ClientDealStatus(ctx context.Context, miner, wallet, proposal string) (*api.StorageDealState, error) {
	if s.n.storageClient == nil {
		return nil, noChainView()
	}
	m, err := address.NewFromString(miner)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "%q is not an address: %w", miner, err)
	}
	w, err := s.n.wallet()
	if wallet != "" {
		if w, err = address.NewFromString(wallet); err != nil {
			return nil, api.Errorf(api.CodeUsage, "", "%q is not an address: %w", wallet, err)
		}
	}
	if err != nil {
		return nil, coded(err)
	}
	c, err := ParseCID(proposal)
	if err != nil {
		return nil, err
	}
	d, err := s.n.storageClient.DealStatus(ctx, m, w, c)
	if err != nil {
		return nil, coded(err)
	}
	if d.State == storagedeal.StorageDealProposalNotFound {
		return nil, api.Errorf(api.CodeNotFound, "", "provider %s does not know proposal %s", m, c)
	}
	return &api.StorageDealState{Proposal: c.String(), State: strings.TrimPrefix(d.State.String(), "StorageDeal"), Message: d.Message, DealID: uint64(d.DealID)}, nil
}

// ClientQueryAsk answers Cartage.ClientQueryAsk.
func (s Service) ClientQueryAsk(ctx context.Context, miner string) (*api.StorageAsk, error) {
	if s.n.storageClient == nil {
		return nil, noChainView()
	}
	m, err := address.NewFromString(miner)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "%q is not an address: %w", miner, err)
	}
	a, err := s.n.storageClient.QueryAsk(ctx, m)
	if err != nil {
		return nil, coded(err)
	}
	return storageAsk(*a), nil
}

func storageAsk(a storagedeal.StorageAsk) *api.StorageAsk {
	return &api.StorageAsk{Miner: a.Miner.String(), Price: a.Price.String(), VerifiedPrice: a.VerifiedPrice.String(), MinPieceSize: uint64(a.MinPieceSize),
		MaxPieceSize: uint64(a.MaxPieceSize), Timestamp: int64(a.Timestamp), Expiry: int64(a.Expiry), SeqNo: a.SeqNo}
}

func (s Service) intake() (*storagedeal.Provider, error) {
	if s.n.storage == nil {
		return nil, api.Errorf(api.CodeUsage, "Set chain_view and miner of [storage] in config.toml, and run cartage daemon --provide.", "this node takes no storage deals")
	}
	return s.n.storage, nil
}

func storageDeal(d storagedeal.Deal) api.StorageDeal {
	p := d.Proposal.Proposal
	return api.StorageDeal{Proposal: d.ProposalCid.String(), Client: p.Client.String(), Peer: d.Client.String(), PieceCID: p.PieceCID.String(), PieceSize: uint64(p.PieceSize),
		Root: d.Ref.Root.String(), State: strings.TrimPrefix(d.State.String(), "StorageDeal"), Message: d.Message, DealID: uint64(d.DealID),
		StartEpoch: int64(p.StartEpoch), EndEpoch: int64(p.EndEpoch), Verified: p.VerifiedDeal, Created: d.Created.UTC().Format(time.RFC3339)}
}

// StorageDeals answers Cartage.StorageDeals.
func (s Service) StorageDeals(ctx context.Context) ([]api.StorageDeal, error) {
	p, err := s.intake()
	if err != nil {
		return nil, err
	}
	list, err := p.Deals(ctx)
	out := make([]api.StorageDeal, 0, len(list))
	for _, d := range list {
		out = append(out, storageDeal(d))
	}
	return out, coded(err)
}

// StorageImport answers Cartage.StorageImport: the data of a deal, and with it a piece for sale.
func (s Service) StorageImport(ctx context.Context, proposal, path string) (*api.StorageDeal, error) {
	p, err := s.intake()
	if err != nil {
		return nil, err
	}
	c, err := ParseCID(proposal)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, coded(err)
	}
	d, err := p.ImportData(ctx, c, path, nil)
	var wrong *dagstore.WrongPieceError
	switch {
	case errors.Is(err, storagedeal.ErrUnknownDeal):
		return nil, api.Errorf(api.CodeNotFound, "Deals are listed by cartage storage deals.", "%w", err)
	case errors.As(err, &wrong):
		return nil, api.Errorf(api.CodeVerification, "The deal waits for its data as before.", "%w", err)
	case err != nil:
		return nil, coded(err)
	}
	v := storageDeal(d)
	return &v, nil
}

// StorageAsk answers Cartage.StorageAsk.
func (s Service) StorageAsk(context.Context) (*api.StorageAsk, error) {
	p, err := s.intake()
	if err != nil {
		return nil, err
	}
	return storageAsk(p.Ask()), nil
}

// SetStorageAsk answers Cartage.SetStorageAsk.
func (s Service) SetStorageAsk(ctx context.Context, a api.StorageAsk, epochs int64) (*api.StorageAsk, error) {
	p, err := s.intake()
	if err != nil {
		return nil, err
	}
	price, err := big.FromString(a.Price)
	verified, verr := big.FromString(a.VerifiedPrice)
	if err := errors.Join(err, verr); err != nil {
		return nil, api.Errorf(api.CodeUsage, "Prices are attoFIL for a GiB and epoch.", "price %q, verified price %q: not numbers", a.Price, a.VerifiedPrice)
	}
	set, err := p.SetAsk(ctx, price, verified, abi.PaddedPieceSize(a.MinPieceSize), abi.PaddedPieceSize(a.MaxPieceSize), abi.ChainEpoch(epochs))
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "%w", err)
	}
	return storageAsk(set), nil
}
