package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/dataselector"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Want is what is retrieved: a payload or a part of it.
type Want struct {
	Root cid.Cid
	Part dataselector.Selection
}

// ParseWant reads what a request wants, or says what is wrong with it.
func ParseWant(req api.RetrieveRequest) (w Want, err error) {
	if w.Root, err = ParseCID(req.CID); err != nil {
		return w, err
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
	if err != nil {
		return w, api.Errorf(api.CodeUsage, "A part is a path (docs/a.txt), a data selector (Links/0/Hash) or a range of bytes (0:1023).", "%w", err)
	}
	return w, nil
}

// key names a retrieval: the root, and of a part its selector.
func (w Want) key() (string, error) {
	if w.Part.Everything() {
		return w.Root.String(), nil
	}
	of, err := selectorHash(w.Part.Node())
	return w.Root.String() + "-" + of, err
}

// params are the terms of a deal: those of the offer, for what is wanted.
func (w Want) params(q rm.QueryResponse) (rm.Params, error) {
	if !w.Part.Everything() {
		return rm.NewParamsV1(q.MinPricePerByte, q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease, w.Part.Node(), nil, q.UnsealPrice)
	}
	params := rm.NewParamsV0(q.MinPricePerByte, q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease)
	params.UnsealPrice = q.UnsealPrice
	return params, nil
}

// ParseCID reads a CID or says what is wrong with it.
func ParseCID(s string) (cid.Cid, error) {
	c, err := cid.Decode(strings.TrimPrefix(s, "/ipfs/"))
	if err != nil {
		return cid.Undef, api.Errorf(api.CodeUsage, "A CID looks like bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi.", "%q is not a CID: %w", s, err)
	}
	return c, nil
}
