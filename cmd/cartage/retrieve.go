package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/ui"
	"github.com/cartage-dev/cartage/ipfsstore"
)

// retrieveFlags are the choices of a retrieval.
type retrieveFlags struct {
	terms                                      proposalFlags
	provider, out, budget, exposure, transport string
	into, ipfs, piece                          string
	selector, bytes                            string
	part                                       dataselector.Selection
	car, force, local, proof, queue            bool
	stall                                      time.Duration

	dest *carstore.Dest // the output, if it is a file or folder
	done carstore.Exported
}

// claim keeps the output for this retrieval: nobody else writes there until release.
func (f *retrieveFlags) claim() (err error) {
	if f.dest, err = carstore.ClaimDest(blob.OS{}, f.out, f.force); err == nil {
		f.out = f.dest.Path()
	}
	return err
}

// release gives the output back.
func (f *retrieveFlags) release() error {
	if f.dest == nil {
		return nil
	}
	d := f.dest
	f.dest = nil
	return d.Release()
}

func (c *cli) retrieveCmd() *cobra.Command {
	var f retrieveFlags
	cmd := &cobra.Command{Use: "retrieve CID[/PATH]", Aliases: []string{"get"}, Short: "Buy a payload, or a part of it, and write it to a file or folder", Args: c.args(cobra.ExactArgs(1)),
		Long: "Retrieve buys the payload below CID from a provider, verifies each block and pays as it arrives. Run again after an\ninterruption it continues: blocks that are here are neither fetched nor paid again. With a path of UnixFS names only the file or\nfolder there is bought, with --range only some of its bytes.",
		RunE: func(cmd *cobra.Command, args []string) error { return c.retrieve(cmd.Context(), args[0], f) }}
	f.declare(cmd)
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "where to write; - is stdout")
	cmd.Flags().BoolVar(&f.car, "car", false, "write the CAR instead of the file")
	cmd.Flags().BoolVar(&f.proof, "car-export-merkle-proof", false, "with --car: also the blocks on the way from CID to the part")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace what is at the output")
	cmd.Flags().StringVar(&f.into, "into", "", "car: a file of its own in the home; store: the blocks that all such retrievals share, -o may be left out; ipfs: an IPFS node, after the blocks were checked here (default: as configured, with -o)")
	cmd.Flags().BoolVar(&f.queue, "queue", false, "leave it to the daemon, which buys it and writes the output; the command prints the order and ends")
	cmd.Flags().StringVar(&f.ipfs, "ipfs-api", "http://127.0.0.1:5001", "RPC API of that node: URL or multiaddress")
	return cmd
}

// catCmd is retrieve to stdout.
func (c *cli) catCmd() *cobra.Command {
	f := retrieveFlags{out: "-"}
	cmd := &cobra.Command{Use: "cat CID[/PATH]", Short: "Buy a file, or a part of it, and write it to stdout", Args: c.args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return c.retrieve(cmd.Context(), args[0], f) }}
	f.declare(cmd)
	return cmd
}

// declare declares what all who retrieve can choose.
func (f *retrieveFlags) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.provider, "provider", "", "multiaddress of the provider, with /p2p/, the id of a peer that was met before, or the URL of a gateway")
	cmd.Flags().StringVar(&f.piece, "piece", "", "CID of the piece that has to serve it, of version 1 or 2 (default: any)")
	cmd.Flags().StringVar(&f.selector, "data-selector", "", "a part: path of data model fields (Links/0/Hash), or a selector in DAG-JSON")
	cmd.Flags().StringVar(&f.bytes, "range", "", "bytes of a file: FIRST:LAST, both included, * for the end, negative from the end (-1024:*)")
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "datamodel-path-selector" { // of Lotus
			name = "data-selector"
		}
		return pflag.NormalizedName(name)
	})
	cmd.Flags().BoolVar(&f.local, "allow-local", false, "take it from what was imported here, if it was")
	f.declareDeal(cmd)
}

// declareDeal declares what a deal may cost and how it is carried.
func (f *retrieveFlags) declareDeal(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.budget, "budget", "", "the most to spend: attoFIL, or with FIL or nanoFIL")
	f.terms.declare(cmd)
	cmd.Flags().StringVar(&f.exposure, "max-exposure", "0", "bytes that may be received before they are paid for; 0 is what the configuration says (8MiB)")
	cmd.Flags().StringVar(&f.transport, "transport", "auto", "auto, stream or graphsync")
	cmd.Flags().DurationVar(&f.stall, "stall", 2*time.Minute, "give up after so long without progress; the retrieval can be continued")
}

// wanted reads CID[/PATH] and the flags that name a part.
func (f *retrieveFlags) wanted(arg string) (req api.RetrieveRequest, err error) {
	req, err = node.Normalize(api.RetrieveRequest{Provider: f.provider, Transport: f.transport, CID: arg, DataSelector: f.selector, Range: f.bytes, Piece: f.piece})
	if err != nil {
		return req, err
	}
	w, err := node.ParseWant(req)
	if err != nil {
		return req, err
	}
	if f.proof && !f.car {
		return req, api.Errorf(api.CodeUsage, "Add --car.", "a proof is part of an archive, not of a file")
	}
	f.part = w.Part
	return req, nil
}

// request checks what can be checked before anything is asked for or spent, and claims the output: release gives it back.
func (f *retrieveFlags) request(root string) (api.RetrieveRequest, error) {
	req, err := f.wanted(root)
	if err != nil {
		return req, err
	}
	switch {
	case f.into == "ipfs":
		if _, err := ipfsstore.New(f.ipfs, nil); err != nil {
			return req, api.Errorf(api.CodeUsage, "", "%w", err)
		}
		if f.out != "" || f.car {
			return req, api.Errorf(api.CodeUsage, "", "--into ipfs writes no file: leave -o and --car out")
		}
	case f.into != "" && f.into != "car" && f.into != "store":
		return req, api.Errorf(api.CodeUsage, "Say car, store or ipfs.", "%q is no place for a payload", f.into)
	case f.into == "store" && f.out == "" && f.local:
		return req, api.Errorf(api.CodeUsage, "Name a file or folder with -o.", "--allow-local reads what was imported: it is not put into the store")
	case f.into == "store" && f.out == "" && f.car:
		return req, api.Errorf(api.CodeUsage, "Name a file with -o.", "--car writes an archive, and no output is given")
	case f.into == "store" && f.out == "":
	case f.out == "":
		return req, api.Errorf(api.CodeUsage, "Name a file or folder with -o, or - for stdout.", "no output given")
	}
	if err := f.fillTerms(&req); err != nil {
		return req, err
	}
	if req.Into = f.into; f.into == "ipfs" {
		req.Into = "car"
	}
	req.Read = f.out != "" || f.into == "ipfs"
	req.File = f.out == "-" && !f.car && f.selector == ""
	if f.out == "-" || f.out == "" {
		return req, nil
	}
	err = f.claim()
	req.Output = f.out
	return req, err
}

// fillTerms fills in what a deal may cost and how it is carried.
func (f *retrieveFlags) fillTerms(req *api.RetrieveRequest) (err error) {
	if err := checkTransport(f.transport); err != nil {
		return err
	}
	req.Transport = f.transport
	if req.MaxExposure, err = parseSize(f.exposure); err != nil {
		return err
	}
	if f.budget != "" {
		if req.Budget, err = parseAmount(f.budget); err != nil {
			return err
		}
	}
	return f.terms.fill(req)
}

// buy runs a retrieval to its end. Without a budget it asks the person at the terminal.
func (c *cli) buy(ctx, nctx context.Context, n *api.Node, req api.RetrieveRequest, stall time.Duration) (*api.Retrieval, error) {
	req.Holder, req.StallSeconds = rand.Text(), stall.Seconds()
	r, err := n.Retrieve(nctx, req)
	if api.CodeOf(err) == api.CodeFunds && req.Budget == "" && isTerminal(os.Stdin) && isTerminal(os.Stderr) && !c.json {
		if req.Budget, err = c.askBudget(nctx, n, req, err); err == nil {
			r, err = n.Retrieve(nctx, req)
		}
	}
	if err != nil {
		return nil, err
	}
	return c.follow(ctx, nctx, n, r, holder{name: req.Holder, again: func(n *api.Node) (*api.Retrieval, error) { return n.Retrieve(nctx, req) }})
}

func (c *cli) retrieve(ctx context.Context, root string, f retrieveFlags) (err error) {
	req, err := f.request(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.release()) }()
	if f.queue {
		return c.enqueue(ctx, req, &f)
	}
	return c.withNode(context.WithoutCancel(ctx), func(nctx context.Context, n *api.Node) error {
		if f.local {
			if done, err := c.fromImport(ctx, n, req.CID, &f); done || err != nil {
				return err
			}
		}
		r, err := c.buyFrom(ctx, nctx, n, req, f.stall)
		if err != nil {
			return err
		}
		if req.Read {
			if err := f.write(ctx, c, r.CarPath); err != nil {
				return spentFor(err, r)
			}
		}
		return c.report(r, f)
	})
}

// spentFor is an error with what was spent before it.
func spentFor(err error, r *api.Retrieval) error {
	e := *api.ErrorOf(err)
	e.Spent, e.Bytes = r.Spent, r.Received
	return &e
}

// askBudget asks the person at the terminal.
func (c *cli) askBudget(ctx context.Context, n *api.Node, req api.RetrieveRequest, cause error) (string, error) {
	offers, err := n.Find(ctx, req.CID, []string{req.Provider})
	if err != nil || len(offers) == 0 || !offers[0].Available {
		return "", cause
	}
	o := offers[0]
	note("The offer: at most %s attoFIL for at most %s (%s a byte, %s before the first).\nPay up to that? [y/N] ", o.Price, size(o.Size), o.PricePerByte, o.UnsealPrice)
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return "", cause
	}
	return o.Price, nil
}

// write exports the retrieved file.
func (f *retrieveFlags) write(ctx context.Context, c *cli, car string) error {
	if f.into == "ipfs" && f.part.Everything() {
		return intoIPFS(ctx, f.ipfs, car)
	}
	s, err := carstore.OpenRead(car)
	if err != nil {
		return err
	}
	defer s.Close()
	ls := s.LinkSystem()
	if f.into == "ipfs" {
		return f.partIntoIPFS(ctx, &ls, s.Root())
	}
	switch whole := f.part.Everything(); {
	case whole && f.out == "-" && f.car: // as it is
		_, err = io.Copy(os.Stdout, s.Payload())
	case whole && f.car:
		err = s.ExportCAR(f.dest)
	default:
		err = f.export(ctx, c, &ls, s.Root())
	}
	if errors.Is(err, carstore.ErrBadHash) {
		return api.Errorf(api.CodeVerification, "", "%w", err)
	}
	return err
}

// export writes what is wanted out of a DAG, and says what it left out.
func (f *retrieveFlags) export(ctx context.Context, c *cli, ls *ipld.LinkSystem, root cid.Cid) (err error) {
	switch {
	case f.out == "-" && f.car:
		return f.part.WriteCAR(ctx, ls, root, os.Stdout, f.proof)
	case f.out == "-":
		return f.part.WriteFile(ctx, ls, root, os.Stdout)
	case f.car:
		return f.part.ExportCAR(ctx, f.dest, ls, root, f.proof)
	}
	bar, begun := ui.NewProgress(os.Stderr, false, c.json), time.Now()
	f.done, err = f.part.Export(ctx, f.dest, ls, root, func(e carstore.Exported) {
		if time.Since(begun) > time.Second {
			bar.Update(ui.State{Received: e.Bytes, Status: fmt.Sprintf("writing, %d files", e.Files)})
		}
	})
	bar.Close()
	if err == nil && !c.json {
		for _, l := range f.done.LeftOut {
			note("left out: %s, a %v\n", l.Path, errors.New(l.Why))
		}
	}
	return err
}

// leftOut are the entries that were not written, as JSON has them.
func (f *retrieveFlags) leftOut() []map[string]string {
	out := []map[string]string{}
	for _, l := range f.done.LeftOut {
		out = append(out, map[string]string{"path": l.Path, "why": l.Why})
	}
	return out
}

func (c *cli) report(r *api.Retrieval, f retrieveFlags) error {
	out := os.Stdout
	if f.out == "-" {
		out = os.Stderr
	}
	if c.json {
		return printJSON(out, map[string]any{"root": r.Root, "output": f.out, "deal": r.ID, "bytes": r.Bytes, "received": r.Received, "blocks": r.Blocks, "spent": r.Spent,
			"owed": r.Owed, "seconds": r.Seconds, "vouchers": r.Vouchers, "transport": r.Transport, "payment_channel": r.PaymentChan, "status": r.Status, "left_out": f.leftOut()})
	}
	what := f.out
	if what == "" {
		what = r.Root
	}
	if r.ID == "" {
		ui.Printf(out, "%s was here already: nothing was fetched and nothing paid\n", what)
		return nil
	}
	ui.Printf(out, "%s: received %s in %.1f s, spent %s attoFIL in %d vouchers\n", what, size(r.Received), r.Seconds, r.Spent, r.Vouchers)
	return nil
}

// checkTransport refuses the name of a transport that there is not.
func checkTransport(name string) error {
	switch name {
	case api.TransportAuto, api.TransportStream, api.TransportGraphsync:
		return nil
	}
	return api.Errorf(api.CodeUsage, "Use auto, stream or graphsync.", "transport %q is unknown", name)
}
