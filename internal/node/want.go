package node

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/cartargets"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// Want is what is retrieved: a payload or a part of it.
type Want struct {
	Root cid.Cid
	Part dataselector.Selection
	// File says that it has to be a file, or a part of one.
	File bool
	// Piece is the one that has to serve it, by its CID of version 1; nil: any.
	Piece *cid.Cid
}

// Normalize puts the parts of a reference such as ipfs://CID/PATH into the fields that are for them.
func Normalize(req api.RetrieveRequest) (api.RetrieveRequest, error) {
	r, err := ParseRef(req.CID)
	if err != nil {
		return req, err
	}
	req.CID = r.Root.String()
	switch {
	case r.Path == "":
	case req.Path != "" || req.DataSelector != "":
		return req, reason.Usage.Errorf("two parts of a DAG exclude each other: %s and %s", r.Path, req.Path+req.DataSelector).WithHint("Name one.")
	case r.Fields:
		req.DataSelector = r.Path
	default:
		req.Path = r.Path
	}
	return req, nil
}

// ParseWant reads what a request wants, or says what is wrong with it.
func ParseWant(req api.RetrieveRequest) (w Want, err error) {
	if req, err = Normalize(req); err != nil {
		return w, err
	}
	if w.Root, err = cid.Decode(req.CID); err != nil {
		return w, err
	}
	if req.Provider != "" {
		if _, err := parseProvider(req.Provider); err != nil && !isGateway(req.Provider) {
			return w, err
		}
	}
	var r *dataselector.Range
	if req.Range != "" {
		r, err = dataselector.ParseRange(req.Range)
	}
	switch {
	case err != nil:
	case req.DataSelector != "" && (req.Path != "" || r != nil):
		err = errors.New("a data selector and a path or range of bytes exclude each other")
	case req.List != "" && (req.DataSelector != "" || r != nil):
		err = errors.New("a list is of the folder at a path")
	case req.List != "" && req.List != api.ListNode && req.List != api.ListShards:
		err = fmt.Errorf("list %q: say %s or %s", req.List, api.ListNode, api.ListShards)
	case req.List != "":
		w.Part, err = dataselector.Folder(req.Path, req.List == api.ListShards)
	case req.DataSelector != "":
		w.Part, err = dataselector.Parse(req.DataSelector)
	default:
		w.Part, err = dataselector.UnixFS(req.Path, r)
	}
	var told *reason.Error
	if errors.As(err, &told) {
		return w, err
	}
	if err != nil {
		return w, api.Errorf(api.CodeUsage, "A part is a path (docs/a.txt), a data selector (Links/0/Hash) or a range of bytes (0:1023).", "%w", err)
	}
	w.File = req.File || r != nil
	w.Piece, err = parsePiece(req.Piece)
	return w, err
}

// parsePiece reads the CID of a piece, of either version; none is nil.
func parsePiece(s string) (*cid.Cid, error) {
	if s == "" {
		return nil, nil
	}
	c, err := PieceCID(s)
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// PieceCID reads the CID of a piece, of either version (FRC-0069), and returns that of version 1, by which a piece is known here.
func PieceCID(s string) (cid.Cid, error) {
	c, err := cid.Decode(s)
	if err == nil {
		c, err = commp.V1(c)
	}
	if err == nil {
		_, err = commp.Commitment(c)
	}
	if err != nil {
		return cid.Undef, reason.Usage.Errorf("%q is not a piece CID: %w", s, err).WithHint("It looks like baga6ea4seaq... or bafkzcib..., as cartage commp prints it.")
	}
	return c, nil
}

// key names a retrieval: the root, and of a part its selector.
func (w Want) key() (string, error) {
	key := w.Root.String()
	if w.File && w.Part.Bytes() == nil {
		key += "-file"
	}
	if w.Part.Everything() {
		return key, nil
	}
	of, err := cartargets.SelectorHash(w.Part.Node())
	return key + "-" + of, err
}

// params are the terms of a deal: those of the offer, for what is bought.
func (p purchase) params(q rm.QueryResponse, piece *cid.Cid) (rm.Params, error) {
	if !shared.SameNode(p.sel, shared.AllSelector()) {
		return rm.NewParamsV1(q.MinPricePerByte, q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease, p.sel, piece, q.UnsealPrice)
	}
	params := rm.NewParamsV0(q.MinPricePerByte, q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease)
	params.UnsealPrice, params.PieceCID = q.UnsealPrice, piece
	return params, nil
}
