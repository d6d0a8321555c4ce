package main

import (
	"context"
	"errors"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
)

// queueable checks what only somebody who waits can have.
func (f *retrieveFlags) queueable() error {
	for _, no := range []struct {
		used bool
		name string
	}{{f.out == "-", "-o -"}, {f.car, "--car"}, {f.force, "--force"}, {f.local, "--allow-local"}, {f.into == "ipfs", "--into ipfs"}} {
		if no.used {
			return api.Errorf(api.CodeUsage, "Leave it out, or wait for the retrieval without --queue.", "%s does not go with --queue: the daemon writes a new file or folder", no.name)
		}
	}
	return nil
}

// enqueue leaves a retrieval to the daemon, which goes on with it after this command, and writes the output. It needs one that runs.
func (c *cli) enqueue(ctx context.Context, req api.RetrieveRequest, f *retrieveFlags) error {
	if err := errors.Join(f.queueable(), f.release()); err != nil { // the output is claimed anew when it is written
		return err
	}
	h, err := c.home()
	if err != nil {
		return err
	}
	n, done, err := node.Dial(ctx, h)
	if err != nil {
		return err
	}
	if n == nil {
		return reason.DaemonAway
	}
	defer done()
	req.Queue, req.Read = true, false
	r, err := n.Retrieve(ctx, req)
	if err != nil {
		return err
	}
	if !r.Done {
		return c.show(r, [][2]string{{"order", r.Order}, {"state", r.State}, {"root", r.Root}, {"output", f.out}})
	}
	// Everything is here already: no order is needed to write it.
	if f.out != "" {
		if err := f.claim(); err != nil {
			return err
		}
		if err := errors.Join(f.write(ctx, c, r.CarPath), f.release()); err != nil {
			return err
		}
	}
	return c.report(r, *f)
}
