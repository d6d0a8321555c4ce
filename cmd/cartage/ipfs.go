package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/ipfsstore"
)

// atOnce is how many bytes of blocks are put into an IPFS node in one go.
const atOnce = 8 << 20

// intoIPFS puts the blocks of a CAR into an IPFS node. Done again it changes nothing.
func intoIPFS(ctx context.Context, node, car string) (err error) {
	s, err := ipfsstore.New(node, nil)
	if err != nil {
		return err
	}
	f, err := blob.OS{}.Open(car)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	l, err := carstore.Inspect(f, size)
	if err != nil {
		return err
	}
	n := 0
	err = carstore.Batches(f, l, atOnce, func(list []blocks.Block) error {
		n += len(list)
		return s.PutMany(ctx, list)
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, carstore.ErrBadHash), errors.Is(err, ipfsstore.ErrOtherCid):
		return api.Errorf(api.CodeVerification, "", "%w", err)
	case err != nil:
		return api.Errorf(api.CodeUnreachable, "What was retrieved is here: run the same command again, nothing is paid twice.", "put the blocks into the IPFS node: %w", err)
	}
	note("%d blocks are in the IPFS node at %s\n", n, node)
	return nil
}

// partIntoIPFS puts what is wanted of a DAG into an IPFS node, with the blocks on the way to it.
func (f *retrieveFlags) partIntoIPFS(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) error {
	tmp, err := os.MkdirTemp("", "cartage-ipfs-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	car := filepath.Join(tmp, "part.car")
	d, err := carstore.ClaimDest(blob.OS{}, car, false)
	if err != nil {
		return err
	}
	if err := errors.Join(f.part.ExportCAR(ctx, d, ls, root, true), d.Release()); err != nil {
		return err
	}
	return intoIPFS(ctx, f.ipfs, car)
}
