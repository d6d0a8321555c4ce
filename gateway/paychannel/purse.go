package paychannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/gateway/buyer"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/paych"
)

// DealPrefix begins the names of the deals that a Purse pays for in the book.
const DealPrefix = "web/"

// PurseConfig is what a Purse is made of.
type PurseConfig struct {
	Manager *paych.Manager
	// Store keeps what was signed, one record for each order and gateway. It may be that of the manager, or another.
	Store   datastore.Batching
	Network string
	From    address.Address
	// Order names what is bought, and Gateway where: letters, digits and hyphens.
	Order, Gateway string
	Budget         abi.TokenAmount // of the order, over all its runs and gateways, in attoFIL
}

// Purse pays for one order at one gateway out of payment channels. Each run has a lane of its own. It is for one goroutine.
type Purse struct {
	cfg     PurseConfig
	rec     purseRecord
	channel address.Address // of this run; undefined until it has signed
	lane    uint64
	total   abi.TokenAmount // of the lane
}

var _ buyer.Purse = (*Purse)(nil)

// purseRecord is the last request that was paid for at a gateway, and how many lanes it took so far.
type purseRecord struct {
	Lanes  uint64
	Signed []byte // JSON of buyer.Signed; empty: none
}

// maxSigned bounds the record of a request.
const maxSigned = 64 << 10

func (r *purseRecord) fields() []wire.Field {
	return []wire.Field{wire.Uint("lanes", &r.Lanes), wire.Bytes("signed", &r.Signed, maxSigned)}
}

// OpenPurse reads what earlier runs have paid.
func OpenPurse(ctx context.Context, cfg PurseConfig) (*Purse, error) {
	p := &Purse{cfg: cfg, total: big.Zero()}
	data, err := cfg.Store.Get(ctx, p.key())
	if errors.Is(err, datastore.ErrNotFound) {
		return p, nil
	}
	if err == nil {
		err = wire.DecodeTuple(data, "record "+p.key().String(), p.rec.fields())
	}
	return p, err
}

func (p *Purse) orderKey() string   { return "/web/" + p.cfg.Order }
func (p *Purse) key() datastore.Key { return datastore.NewKey(p.orderKey() + "/" + p.cfg.Gateway) }

// dealOf names a lane of an order at a gateway.
func (p *Purse) dealOf(gateway string, lane uint64) string {
	return fmt.Sprintf("%s%s/%s/%d", DealPrefix, p.cfg.Order, gateway, lane)
}

func (p *Purse) deal() string { return p.dealOf(p.cfg.Gateway, p.rec.Lanes) }

// write stores the record; durably if anything hangs on it.
func (p *Purse) write(ctx context.Context, durably bool) error {
	data, err := wire.EncodeTuple(p.rec.fields())
	if err == nil {
		err = p.cfg.Store.Put(ctx, p.key(), data)
	}
	if err == nil && durably {
		err = p.cfg.Store.Sync(ctx, p.key())
	}
	return err
}

// Takes implements buyer.Purse.
func (p *Purse) Takes(o x402.Offer) bool {
	return o.Scheme == Scheme && o.Asset == Asset && o.Network == p.cfg.Network && p.cfg.Network != ""
}

// Last implements buyer.Purse.
func (p *Purse) Last(context.Context) (*buyer.Signed, error) {
	if len(p.rec.Signed) == 0 {
		return nil, nil
	}
	s := &buyer.Signed{}
	return s, json.Unmarshal(p.rec.Signed, s)
}

// Spent implements buyer.Purse: the last totals of all lanes of the order, at all gateways.
func (p *Purse) Spent(ctx context.Context) (abi.TokenAmount, error) {
	sum := big.Zero()
	err := store.Each(ctx, p.cfg.Store, p.orderKey(), func(key string, value []byte) error {
		var r purseRecord
		if err := wire.DecodeTuple(value, "record "+key, r.fields()); err != nil {
			return err
		}
		for lane := uint64(1); lane <= r.Lanes; lane++ {
			e, err := p.cfg.Manager.Best(ctx, false, p.dealOf(datastore.NewKey(key).BaseNamespace(), lane))
			if err != nil {
				return err
			}
			if e != nil {
				sum = big.Add(sum, e.Amount)
			}
		}
		return nil
	})
	return sum, err
}

// Sign implements buyer.Purse.
func (p *Purse) Sign(ctx context.Context, o x402.Offer, from, to uint64, estimate abi.TokenAmount) (*buyer.Signed, error) {
	amount := big.NewFromGo(o.Amount.Int())
	spent, err := p.Spent(ctx)
	if err != nil {
		return nil, err
	}
	left := big.Sub(p.cfg.Budget, spent)
	if amount.GreaterThan(left) {
		if spent.IsZero() {
			return nil, reason.PriceAbove.Errorf("the next window costs %s attoFIL and the rest at most %s, the budget is %s", amount, estimate, p.cfg.Budget).
				WithHint(fmt.Sprintf("Raise it with --budget %s.", estimate))
		}
		return nil, reason.BudgetUsed.Errorf("%s of a budget of %s attoFIL are spent, and the next window costs %s", spent, p.cfg.Budget, amount).
			WithHint(fmt.Sprintf("Raise it with --budget %s.", big.Add(spent, estimate)))
	}
	to0, err := address.NewFromString(o.PayTo)
	if err != nil {
		return nil, reason.PeerFailed.Errorf("the gateway is to be paid at %.100q, which is no address", o.PayTo)
	}
	if p.channel.Empty() {
		if err := p.open(ctx, to0, big.Min(left, big.Max(amount, estimate))); err != nil {
			return nil, err
		}
	}
	return p.sign(ctx, o, from, to, to0, amount)
}

// open gets a lane for this run. Its name is stored before it can cost anything.
func (p *Purse) open(ctx context.Context, to address.Address, deposit abi.TokenAmount) error {
	p.rec.Lanes++
	if err := p.write(ctx, true); err != nil {
		return err
	}
	r, err := p.cfg.Manager.GetOrCreate(ctx, p.deal(), p.cfg.From, to, deposit)
	if err != nil {
		return err
	}
	ch := r.Channel
	if r.Wait.Defined() {
		if ch, err = p.cfg.Manager.WaitReady(ctx, r.Wait); err != nil {
			return err
		}
	}
	if p.lane, err = p.cfg.Manager.AllocateLane(ctx, p.deal(), ch, deposit); err != nil {
		return err
	}
	p.channel, p.total = ch, big.Zero()
	return nil
}

// sign signs the next total of the lane. The voucher is on stable storage, then the request that it pays for.
func (p *Purse) sign(ctx context.Context, o x402.Offer, from, to uint64, payTo address.Address, amount abi.TokenAmount) (*buyer.Signed, error) {
	next := big.Add(p.total, amount)
	v, _, err := p.cfg.Manager.CreateVoucher(ctx, p.deal(), p.channel, p.lane, next, to-from)
	var short *paych.ShortfallError
	if errors.As(err, &short) {
		if err = p.cfg.Manager.TopUp(ctx, p.deal(), p.cfg.From, payTo, short.Missing); err == nil {
			v, _, err = p.cfg.Manager.CreateVoucher(ctx, p.deal(), p.channel, p.lane, next, to-from)
		}
	}
	if err != nil {
		return nil, err
	}
	p.total = next
	payload, err := Payload(v)
	if err != nil {
		return nil, err
	}
	s := &buyer.Signed{Offer: o, Payment: x402.Payment{X402Version: x402.Version, Accepted: o, Payload: payload}, From: from, To: to}
	if p.rec.Signed, err = json.Marshal(s); err != nil {
		return nil, err
	}
	return s, p.write(ctx, true)
}

// Confirm implements buyer.Purse. If it is lost, the request is sent once more, and not charged.
func (p *Purse) Confirm(ctx context.Context) error {
	s, err := p.Last(ctx)
	if err != nil || s == nil || s.Done {
		return err
	}
	s.Done = true
	if p.rec.Signed, err = json.Marshal(s); err != nil {
		return err
	}
	return p.write(ctx, false)
}

// Renew implements buyer.Purse: the next payment is the first of another lane.
func (p *Purse) Renew(ctx context.Context) error {
	err := p.Close(ctx)
	p.rec.Signed = nil
	return errors.Join(err, p.write(ctx, true))
}

// Close gives back what this run has reserved and not spent.
func (p *Purse) Close(ctx context.Context) error {
	if p.rec.Lanes == 0 {
		return nil
	}
	p.channel, p.total = address.Undef, big.Zero()
	return p.cfg.Manager.ReleaseDeal(ctx, p.deal())
}
