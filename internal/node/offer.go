package node

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/api"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// offered is what a deal is proposed on: the answer of a provider, or the terms of the request, of whose provider no size is known.
type offered struct {
	rm.QueryResponse
	unasked bool
}

// query asks a provider for its offer.
func (n *Node) query(ctx context.Context, p peer.ID, root cid.Cid, piece *cid.Cid) (rm.QueryResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	q, err := n.Client.Query(ctx, rm.RetrievalPeer{ID: p}, root, rm.QueryParams{PieceCID: piece})
	if err != nil {
		return q, queryFailure(n.Host, p, err)
	}
	return q, nil
}

// queryFailure says why a query has no answer: a peer that takes none is another fault than a stream that broke.
func queryFailure(h host.Host, p peer.ID, err error) error {
	var reset *network.StreamError
	switch {
	case takesNoQueries(h, p):
		return reason.PeerNotProvider.Errorf("peer %s takes no queries, it is not a provider: %w", p, err).WithHint("Start it with cartage daemon --provide.")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return reason.PeerSilent.Errorf("peer %s did not answer the query within %s: %w", p, queryLimit, err)
	case h.Network().Connectedness(p) != network.Connected:
		return reason.PeerUnreachable.Errorf("the connection to peer %s broke while it was asked: %w", p, err)
	case errors.As(err, &reset) && reset.Remote && reset.ErrorCode == network.StreamResourceLimitExceeded:
		return reason.PeerLimit.Errorf("peer %s has as many streams of this node as it takes: %w", p, err)
	case errors.Is(err, network.ErrReset):
		return reason.PeerFailed.Errorf("peer %s broke the query off: %w", p, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reason.PeerFailed.Errorf("peer %s ended the query without an answer: %w", p, err)
	}
	return reason.PeerFailed.Errorf("peer %s gave no answer that can be read: %w", p, err)
}

// takesNoQueries reports whether a peer that has told what it speaks speaks no protocol of queries.
func takesNoQueries(h host.Host, p peer.ID) bool {
	return tells(h, p) && !listsAny(h, p, rm.QueryProtocolID, rm.OldQueryProtocolID)
}

// takesDealsOnly reports whether a peer takes no queries and yet may take proposals of deals.
func takesDealsOnly(h host.Host, p peer.ID) bool {
	return takesNoQueries(h, p) && listsAny(h, p, dt.ProtocolDataTransfer1_2)
}

func tells(h host.Host, p peer.ID) bool {
	all, err := h.Peerstore().GetProtocols(p)
	return err == nil && len(all) > 0
}

func listsAny(h host.Host, p peer.ID, names ...protocol.ID) bool {
	some, err := h.Peerstore().SupportsProtocols(p, names...)
	return err == nil && len(some) > 0
}

// quoted is the offer of a provider. One that takes proposals only, of whom a piece is wanted or whose price is named, is offered the terms of the
// request.
func quoted(ctx context.Context, n *Node, p peer.ID, root cid.Cid, w Want, req api.RetrieveRequest) (offered, error) {
	q, err := n.query(ctx, p, root, w.Piece)
	if errors.Is(err, reason.PeerNotProvider) && takesDealsOnly(n.Host, p) && (w.Piece != nil || req.PricePerByte != "") {
		return unaskedTerms(req)
	}
	if err != nil {
		return offered{}, err
	}
	switch q.Status {
	case rm.QueryResponseUnavailable:
		return offered{}, reason.RootUnknown.Errorf("the provider does not have %s", root)
	case rm.QueryResponseError:
		return offered{}, reason.PeerFailed.Errorf("the provider cannot answer").FromPeer(q.Message)
	}
	return offered{QueryResponse: q}, nil
}

// unaskedInterval is the payment interval that is proposed where none is named.
const unaskedInterval = 1 << 20

// unaskedTerms are those of a request, for a provider that was asked for none: free where it names no price.
func unaskedTerms(req api.RetrieveRequest) (o offered, err error) {
	o = offered{rm.QueryResponse{Status: rm.QueryResponseAvailable, MinPricePerByte: big.Zero(), UnsealPrice: big.Zero(), MaxPaymentInterval: unaskedInterval}, true}
	for _, f := range []struct {
		text string
		to   *big.Int
		what string
	}{{req.PricePerByte, &o.MinPricePerByte, "price of a byte"}, {req.UnsealPrice, &o.UnsealPrice, "unseal price"}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = big.FromString(f.text); err != nil || f.to.Sign() < 0 {
			return o, reason.Usage.Errorf("the %s %q is not an amount in attoFIL", f.what, f.text)
		}
	}
	if req.PaymentInterval > 0 {
		o.MaxPaymentInterval = req.PaymentInterval
	}
	if req.PaidTo == "" && o.MinPricePerByte.IsZero() && o.UnsealPrice.IsZero() {
		o.PaymentAddress = builtin.BurntFundsActorAddr // a record has an address, and nothing is paid
		return o, nil
	}
	if req.PaidTo == "" {
		return o, reason.Usage.Errorf("the provider takes no queries, and nothing says where it is paid").WithHint("Name its address with --pay-to f1...")
	}
	if o.PaymentAddress, err = address.NewFromString(req.PaidTo); err != nil {
		err = reason.Usage.Errorf("%q is not an address to pay to: %w", req.PaidTo, err)
	}
	return o, err
}
