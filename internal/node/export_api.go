package node

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/shared"
)

// ClientExport answers Cartage.ClientExport: what was imported or retrieved, or parts of it, to a file of this machine.
func (s Service) ClientExport(ctx context.Context, ref api.ExportRef, to api.FileRef) error {
	if to.Path == "" {
		return api.Errorf(api.CodeUsage, "", "no output given")
	}
	list, err := exported(ref)
	if err != nil {
		return api.Errorf(api.CodeUsage, "", "%w", err)
	}
	if len(list) > 1 && !to.IsCAR {
		return api.Errorf(api.CodeUsage, "Set IsCAR.", "a file is made of one part, not of %d", len(list))
	}
	out := exportTarget{path: to.Path, car: to.IsCAR, replace: true}
	if ref.FromLocalCAR != "" {
		return coded(s.exportImport(ctx, ref, list, out))
	}
	return coded(s.exportRetrieved(ctx, ref.Root, list, out))
}

// exportTarget is where an export goes: a file or folder, or an archive, and whether it may replace a file that is there.
type exportTarget struct {
	path         string
	car, replace bool
}

// deliver writes what an order of the queue has brought to its output. What is there is never replaced: nobody is asked.
func (n *Node) deliver(ctx context.Context, o download.Order) error {
	_, w, err := n.request(o)
	if err != nil {
		return err
	}
	return Service{n}.exportRetrieved(ctx, w.Root, []dataselector.Wanted{{Selection: w.Part}}, exportTarget{path: o.Output})
}

func exported(ref api.ExportRef) (list []dataselector.Wanted, err error) {
	for _, d := range ref.DAGs {
		w := dataselector.Wanted{Proof: d.ExportMerkleProof}
		if d.DataSelector != nil {
			if w.Selection, err = dataselector.Parse(*d.DataSelector); err != nil {
				return nil, err
			}
		}
		list = append(list, w)
	}
	if len(list) == 0 {
		list = []dataselector.Wanted{{}}
	}
	return list, nil
}

func (s Service) exportImport(ctx context.Context, ref api.ExportRef, list []dataselector.Wanted, to exportTarget) error {
	i, err := s.local(ctx, ref.Root)
	if err != nil {
		return err
	}
	v, err := s.n.imports.View(ctx, i.ID)
	if err != nil {
		return err
	}
	ls := v.LinkSystem()
	return errors.Join(s.exportTo(ctx, &ls, ref.Root, list, to), v.Close())
}

// exportRetrieved reads the file of the first part, or of the whole if that was retrieved.
func (s Service) exportRetrieved(ctx context.Context, root cid.Cid, list []dataselector.Wanted, to exportTarget) error {
	of := list[0].Node()
	has, err := s.n.targets.has(root, of)
	if err == nil && !has {
		of = shared.AllSelector()
		has, err = s.n.targets.has(root, of)
	}
	if err != nil {
		return err
	}
	if !has {
		return s.exportShared(ctx, root, list, to)
	}
	c, err := s.n.targets.Acquire(root, of)
	if err != nil {
		return err
	}
	ls := c.LinkSystem()
	return errors.Join(s.exportTo(ctx, &ls, root, list, to), s.n.targets.Release(c))
}

// exportShared reads the shared store.
func (s Service) exportShared(ctx context.Context, root cid.Cid, list []dataselector.Wanted, to exportTarget) error {
	nothing := api.Errorf(api.CodeNotFound, "", "nothing of %s was retrieved", root)
	if s.n.parts.OpenBlocks == nil {
		return nothing
	}
	if _, err := s.n.blocks.get(ctx)(root); errors.Is(err, carstore.ErrNotFound) {
		return nothing
	}
	ls := s.n.blocks.links(ctx)
	return s.exportTo(ctx, &ls, root, list, to)
}

func (s Service) exportTo(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, list []dataselector.Wanted, to exportTarget) error {
	d, err := carstore.ClaimDest(s.n.parts.FS, to.path, to.replace)
	if err != nil {
		return err
	}
	if to.car {
		err = d.WriteFile(func(w io.Writer) error { return dataselector.WriteCARs(ctx, ls, root, w, list) })
		return errors.Join(err, d.Release())
	}
	done, err := list[0].Export(ctx, d, ls, root, nil)
	for _, l := range done.LeftOut {
		s.n.log.Warn("an export left an entry out", "output", d.Path(), "entry", l.Path, "why", l.Why)
	}
	return errors.Join(err, d.Release())
}

// ClientCalcCommP answers Cartage.ClientCalcCommP: the commitment of a CAR of this machine, of a CARv2 its inner payload.
func (s Service) ClientCalcCommP(ctx context.Context, path string) (*api.CommPRet, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, coded(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	l, err := carstore.Inspect(f, st.Size())
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "%s: %w", path, err)
	}
	p, err := commp.Compute(shared.Reader(ctx, io.NewSectionReader(f, l.Offset, l.Size)))
	if err != nil {
		return nil, coded(err)
	}
	return &api.CommPRet{Root: p.CID, Size: abi.UnpaddedPieceSize(p.Padded.Unpadded()), Padded: abi.PaddedPieceSize(p.Padded), Payload: int64(p.Payload)}, nil
}
