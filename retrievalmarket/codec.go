package retrievalmarket

import (
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/multistore"
	pay "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/piecestore"
)

func optCid(name string, v **cid.Cid) wire.Field {
	return wire.Nullable(name, v, func(c *cid.Cid) wire.Field { return wire.Cid(name, c) })
}

func (a *Ask) fields() []wire.Field {
	return []wire.Field{
		wire.Amount("PricePerByte", &a.PricePerByte), wire.Amount("UnsealPrice", &a.UnsealPrice),
		wire.Uint("PaymentInterval", &a.PaymentInterval), wire.Uint("PaymentIntervalIncrease", &a.PaymentIntervalIncrease),
	}
}

func (p *Params) fields() []wire.Field {
	return []wire.Field{
		wire.Deferred("Selector", &p.Selector), optCid("PieceCID", &p.PieceCID), wire.Amount("PricePerByte", &p.PricePerByte),
		wire.Uint("PaymentInterval", &p.PaymentInterval), wire.Uint("PaymentIntervalIncrease", &p.PaymentIntervalIncrease),
		wire.Amount("UnsealPrice", &p.UnsealPrice),
	}
}

func (p *DealProposal) fields() []wire.Field {
	return []wire.Field{wire.Cid("PayloadCID", &p.PayloadCID), wire.Uint("ID", &p.ID), wire.Map("Params", p.Params.fields())}
}

func (q *QueryParams) fields() []wire.Field { return []wire.Field{optCid("PieceCID", &q.PieceCID)} }

func (q *Query) fields() []wire.Field {
	return []wire.Field{wire.Cid("PayloadCID", &q.PayloadCID), wire.Map("QueryParams", q.QueryParams.fields())}
}

func (q *QueryResponse) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("Status", &q.Status), wire.Uint("PieceCIDFound", &q.PieceCIDFound), wire.Uint("Size", &q.Size),
		wire.Address("PaymentAddress", &q.PaymentAddress), wire.Amount("MinPricePerByte", &q.MinPricePerByte),
		wire.Uint("MaxPaymentInterval", &q.MaxPaymentInterval), wire.Uint("MaxPaymentIntervalIncrease", &q.MaxPaymentIntervalIncrease),
		wire.Text("Message", &q.Message), wire.Amount("UnsealPrice", &q.UnsealPrice),
	}
}

func (p *DealResponse) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("Status", &p.Status), wire.Uint("ID", &p.ID), wire.Amount("PaymentOwed", &p.PaymentOwed), wire.Text("Message", &p.Message),
	}
}

func (p *DealPayment) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("ID", &p.ID), wire.Address("PaymentChannel", &p.PaymentChannel),
		wire.Nullable("PaymentVoucher", &p.PaymentVoucher, voucherField),
	}
}

func (p *PaymentInfo) fields() []wire.Field {
	return []wire.Field{wire.Address("PayCh", &p.PayCh), wire.Uint("Lane", &p.Lane)}
}

func (p *RetrievalPeer) fields() []wire.Field {
	return []wire.Field{wire.Address("Address", &p.Address), wire.Peer("ID", &p.ID), optCid("PieceCID", &p.PieceCID)}
}

// Field is a peer inside another record.
func (p *RetrievalPeer) Field() wire.Field { return wire.Map("RetrievalPeer", p.fields()) }

// channelID writes the tuple and also reads the null of later releases.
func channelID(name string, c *datatransfer.ChannelID) wire.Field {
	f := wire.Object(name, c)
	var p *datatransfer.ChannelID
	opt := wire.Nullable(name, &p, func(c *datatransfer.ChannelID) wire.Field { return wire.Object(name, c) })
	f.Read = func(r *cbg.CborReader) error {
		p = nil
		if err := opt.Read(r); err != nil {
			return err
		}
		*c = datatransfer.ChannelID{}
		if p != nil {
			*c = *p
		}
		return nil
	}
	return f
}

// fields of a deal that went well are those that other releases know; its reason follows when there is one.
func (s *ClientDealState) fields() []wire.Field {
	f := s.published()
	if s.Reason != "" {
		f = append(f, s.reason())
	}
	return f
}

func (s *ClientDealState) reason() wire.Field {
	f := wire.Text("Reason", &s.Reason)
	f.Optional = true
	return f
}

func (s *ClientDealState) published() []wire.Field {
	return []wire.Field{
		wire.Map("DealProposal", s.DealProposal.fields()),
		wire.Nullable("StoreID", &s.StoreID, func(id *multistore.StoreID) wire.Field { return wire.Uint("StoreID", id) }),
		channelID("ChannelID", &s.ChannelID), wire.Bool("LastPaymentRequested", &s.LastPaymentRequested),
		wire.Bool("AllBlocksReceived", &s.AllBlocksReceived), wire.Amount("TotalFunds", &s.TotalFunds),
		wire.Address("ClientWallet", &s.ClientWallet), wire.Address("MinerWallet", &s.MinerWallet),
		wire.Nullable("PaymentInfo", &s.PaymentInfo, func(p *PaymentInfo) wire.Field { return wire.Map("PaymentInfo", p.fields()) }),
		wire.Uint("Status", &s.Status), wire.Peer("Sender", &s.Sender), wire.Uint("TotalReceived", &s.TotalReceived),
		wire.Text("Message", &s.Message), wire.Uint("BytesPaidFor", &s.BytesPaidFor), wire.Uint("CurrentInterval", &s.CurrentInterval),
		wire.Amount("PaymentRequested", &s.PaymentRequested), wire.Amount("FundsSpent", &s.FundsSpent),
		wire.Amount("UnsealFundsPaid", &s.UnsealFundsPaid), optCid("WaitMsgCID", &s.WaitMsgCID),
		wire.Amount("VoucherShortfall", &s.VoucherShortfall), wire.Bool("LegacyProtocol", &s.LegacyProtocol),
	}
}

func (s *ProviderDealState) fields() []wire.Field {
	return []wire.Field{
		wire.Map("DealProposal", s.DealProposal.fields()), wire.Uint("StoreID", &s.StoreID), channelID("ChannelID", &s.ChannelID),
		wire.Nullable("PieceInfo", &s.PieceInfo, (*piecestore.PieceInfo).Field),
		wire.Uint("Status", &s.Status), wire.Peer("Receiver", &s.Receiver), wire.Uint("TotalSent", &s.TotalSent),
		wire.Amount("FundsReceived", &s.FundsReceived), wire.Text("Message", &s.Message),
		wire.Uint("CurrentInterval", &s.CurrentInterval), wire.Bool("LegacyProtocol", &s.LegacyProtocol),
	}
}

// voucherField is a voucher, read strictly: bytes and form are checked before anything is made of them.
func voucherField(v *paych.SignedVoucher) wire.Field {
	return wire.Field{Name: "PaymentVoucher",
		Write: func(w *cbg.CborWriter) error { return v.MarshalCBOR(w) },
		Read: func(r *cbg.CborReader) error {
			raw, err := wire.ReadRaw(r, wire.MaxItem, wire.MaxDepth)
			if err != nil {
				return err
			}
			got, err := pay.DecodeVoucher(raw)
			if err != nil {
				return err
			}
			*v = *got
			return nil
		}}
}
