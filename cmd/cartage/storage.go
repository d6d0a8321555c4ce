package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/storagedeal"
)

// dealFlags are the choices of a storage deal.
type dealFlags struct {
	stateless, noWait          bool
	pieceCid, from, collateral string
	pieceSize, startEpoch      int64
	verified, fast             bool
	verifiedGiven, fastGiven   bool
	batch                      string
	jobs                       int
}

func (c *cli) dealCmd() *cobra.Command {
	var f dealFlags
	cmd := &cobra.Command{Use: "deal DATA-CID MINER PRICE DURATION", Short: "Propose a storage deal", Args: c.args(cobra.MaximumNArgs(4)),
		Long: "Deal proposes a free storage deal for data that was imported, or that an IPFS node of this node has, and sends the data. Interrupted, it\ngoes on with the daemon, or at the next start. With --manual-stateless-deal it proposes an offline deal, prints the CID of the proposal and keeps\nnothing else of it; with --batch too it reads one JSON object a line (as of ClientStatelessDeal) and prints one outcome a line, as they come.",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.verifiedGiven, f.fastGiven = cmd.Flags().Changed("verified-deal"), cmd.Flags().Changed("fast-retrieval")
			return c.deal(cmd.Context(), args, f)
		}}
	cmd.Flags().BoolVar(&f.stateless, "manual-stateless-deal", false, "propose an offline deal, and keep nothing")
	cmd.Flags().StringVar(&f.pieceCid, "manual-piece-cid", "", "CID of the piece, as of cartage commp")
	cmd.Flags().Int64Var(&f.pieceSize, "manual-piece-size", 0, "unpadded size of the piece in bytes, as of cartage commp")
	cmd.Flags().StringVar(&f.from, "from", "", "address that signs (default: the default wallet)")
	cmd.Flags().Int64Var(&f.startEpoch, "start-epoch", 0, "epoch at which the deal starts (default: eight days from now)")
	cmd.Flags().BoolVar(&f.verified, "verified-deal", false, "use the data cap of a verified client (default: if the client is one)")
	cmd.Flags().BoolVar(&f.fast, "fast-retrieval", true, "ask the provider to keep an unsealed copy")
	cmd.Flags().StringVar(&f.collateral, "provider-collateral", "", "what the provider lays down: attoFIL, or with FIL or nanoFIL (default: the network's minimum)")
	cmd.Flags().StringVar(&f.batch, "batch", "", "file of many proposals, - for stdin")
	cmd.Flags().IntVar(&f.jobs, "jobs", 64, "how many proposals of a batch are under way at once")
	for _, one := range []string{"manual-piece-cid", "manual-piece-size", "from", "start-epoch", "verified-deal", "fast-retrieval", "provider-collateral"} {
		cmd.MarkFlagsMutuallyExclusive("batch", one)
	}
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "do not wait for the data to arrive; it is sent while a daemon runs")
	cmd.MarkFlagsMutuallyExclusive("manual-stateless-deal", "no-wait")
	cmd.AddCommand(c.dealStatusCmd(), c.dealListCmd(), c.dealResumeCmd())
	return cmd
}

// deal proposes one deal, or a batch.
func (c *cli) deal(ctx context.Context, args []string, f dealFlags) error {
	bad := func(format string, a ...any) error {
		return api.Errorf(api.CodeUsage, "See cartage deal --help.", format, a...)
	}
	switch {
	case !f.stateless && f.batch != "":
		return bad("--batch is of stateless deals: add --manual-stateless-deal")
	case f.batch != "" && len(args) > 0:
		return bad("--batch takes its deals from %s, not from arguments", f.batch)
	case f.batch != "" && f.jobs < 1:
		return bad("--jobs %d: at least one", f.jobs)
	case f.batch != "":
		return c.dealBatch(ctx, f)
	case !f.stateless:
		return c.dealOnline(ctx, args, f)
	case len(args) != 4:
		return bad("--manual-stateless-deal can not be combined with interactive deal mode: you must specify the expected 4 args: dataCid, miner, price, duration")
	}
	p, err := f.params(args)
	if err != nil {
		return err
	}
	return c.withNode(ctx, func(ctx context.Context, n *api.Node) error {
		name, err := n.ClientStatelessDeal(ctx, p)
		if err != nil {
			return err
		}
		if c.json {
			return printJSON(os.Stdout, map[string]string{"proposal": name.String()})
		}
		say("%v\n", name)
		return nil
	})
}

func (f *dealFlags) params(args []string) (p api.StartDealParams, err error) {
	bad := func(format string, a ...any) error {
		return api.Errorf(api.CodeUsage, "See cartage deal --help.", format, a...)
	}
	root, err := node.ParseCID(args[0])
	if err != nil {
		return p, err
	}
	if p.Miner, err = address.NewFromString(args[1]); err != nil {
		return p, bad("miner %q is not an address: %w", args[1], err)
	}
	price, err := big.FromString(args[2])
	switch zero := err == nil && price.Sign() == 0; {
	case !f.stateless && !zero:
		return p, bad("price %q: only deals with a price of 0 can be proposed here", args[2])
	case f.stateless && (!zero || f.pieceCid == ""):
		return p, bad("when manual-stateless-deal is enabled, you must also provide a 'price' of 0 and specify 'manual-piece-cid' and 'manual-piece-size'")
	}
	if p.MinBlocksDuration, err = strconv.ParseUint(args[3], 10, 63); err != nil {
		return p, bad("duration %q is not a number of epochs", args[3])
	}
	p.Data = &api.DataRef{TransferType: storagedeal.TTGraphsync, Root: root}
	if f.stateless {
		p.Data.TransferType = storagedeal.TTManual
	}
	if f.pieceCid != "" {
		piece, err := node.PieceCID(f.pieceCid)
		if err != nil {
			return p, err
		}
		if f.pieceSize <= 0 {
			return p, bad("must specify piece size when manually setting cid")
		}
		p.Data.PieceCid, p.Data.PieceSize = &piece, abi.UnpaddedPieceSize(f.pieceSize)
	}
	if f.from != "" {
		if p.Wallet, err = address.NewFromString(f.from); err != nil {
			return p, bad("wallet %q is not an address: %w", f.from, err)
		}
	}
	if f.collateral != "" {
		s, err := parseAmount(f.collateral)
		if err != nil {
			return p, err
		}
		amount, err := big.FromString(s)
		if err != nil {
			return p, err
		}
		p.ProviderCollateral = &amount
	}
	if f.verifiedGiven {
		p.VerifiedDeal = &f.verified
	}
	if f.fastGiven {
		p.FastRetrieval = &f.fast
	}
	p.EpochPrice, p.DealStartEpoch = big.Zero(), abi.ChainEpoch(f.startEpoch)
	return p, nil
}

// outcome is a line of what a batch prints.
type outcome struct {
	Line     int    `json:"line"`
	Proposal string `json:"proposal,omitempty"`
	Error    string `json:"error,omitempty"`
}

// dealBatch proposes the deals of a file as it reads it, and prints each outcome when it is there.
func (c *cli) dealBatch(ctx context.Context, f dealFlags) error {
	in := io.Reader(os.Stdin)
	if f.batch != "-" {
		file, err := os.Open(f.batch)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	return c.withNode(ctx, func(ctx context.Context, n *api.Node) error {
		var wg sync.WaitGroup
		var mu sync.Mutex
		slots, good, failed, code := make(chan struct{}, f.jobs), 0, 0, api.CodeRejected
		tell := func(o outcome, err error) {
			mu.Lock()
			defer mu.Unlock()
			if o.Error == "" {
				good++
			} else {
				failed++
				if c := api.CodeOf(err); c != api.CodeRejected {
					code = c // of the last failure that is no refusal
				}
			}
			switch {
			case c.json:
				_ = printJSON(os.Stdout, o)
			case o.Error == "":
				say("%d\t%s\n", o.Line, o.Proposal)
			default:
				say("%d\tERROR %s\n", o.Line, o.Error)
			}
		}
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		for at := 1; lines.Scan() && ctx.Err() == nil; at++ {
			data := append([]byte(nil), bytes.TrimSpace(lines.Bytes())...)
			if len(data) == 0 {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				tell(proposeLine(ctx, n, at, data))
			})
		}
		wg.Wait()
		note("%d accepted, %d not\n", good, failed)
		if err := errors.Join(lines.Err(), ctx.Err()); err != nil {
			return err
		}
		if failed > 0 {
			return api.Errorf(code, "", "%d of %d proposals were not accepted", failed, good+failed)
		}
		return nil
	})
}

func proposeLine(ctx context.Context, n *api.Node, at int, data []byte) (outcome, error) {
	var p api.StartDealParams
	if err := json.Unmarshal(data, &p); err != nil {
		return outcome{Line: at, Error: err.Error()}, api.Errorf(api.CodeUsage, "", "%w", err)
	}
	name, err := n.ClientStatelessDeal(ctx, p)
	if err != nil {
		return outcome{Line: at, Error: err.Error()}, err
	}
	return outcome{Line: at, Proposal: name.String()}, nil
}

func (c *cli) dealStatusCmd() *cobra.Command {
	var miner, from string
	cmd := &cobra.Command{Use: "status PROPOSAL", Short: "Ask a provider how a deal stands", Args: c.args(cobra.ExactArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			s, err := n.ClientDealStatus(ctx, miner, from, args[0])
			if err != nil {
				return err
			}
			return c.show(s, [][2]string{{"proposal", s.Proposal}, {"state", s.State}, {"message", s.Message}, {"deal id", fmt.Sprint(s.DealID)}})
		})}
	cmd.Flags().StringVar(&miner, "miner", "", "address of the provider")
	cmd.Flags().StringVar(&from, "from", "", "address that signed the proposal (default: the default wallet)")
	_ = cmd.MarkFlagRequired("miner")
	return cmd
}

func (c *cli) queryAskCmd() *cobra.Command {
	return &cobra.Command{Use: "query-ask MINER", Short: "Ask a provider for the price of storage", Args: c.args(cobra.ExactArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			a, err := n.ClientQueryAsk(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showAsk(a)
		})}
}

func (c *cli) showAsk(a *api.StorageAsk) error {
	return c.show(a, [][2]string{{"Ask:", a.Miner}, {"Price per GiB:", a.Price + " attoFIL an epoch"}, {"Verified Price per GiB:", a.VerifiedPrice + " attoFIL an epoch"},
		{"Max Piece size:", size(a.MaxPieceSize)}, {"Min Piece size:", size(a.MinPieceSize)}, {"Expires at epoch:", fmt.Sprint(a.Expiry)}})
}

func (c *cli) storageCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "storage", Short: "Storage deals that this node takes"})
	row := func(d api.StorageDeal) []string {
		return []string{d.Proposal, d.State, size(d.PieceSize), d.PieceCID, fmt.Sprint(d.StartEpoch), fmt.Sprint(d.DealID), d.Message}
	}
	cmd.AddCommand(
		&cobra.Command{Use: "deals", Short: "List the deals", Args: c.args(cobra.NoArgs), RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.StorageDeals(ctx)
			if err != nil {
				return err
			}
			return table(c, list, []string{"PROPOSAL", "STATE", "SIZE", "PIECE", "START", "DEAL ID", "MESSAGE"}, row, "no storage deals yet")
		})},
		&cobra.Command{Use: "import-data PROPOSAL CAR", Short: "Take the data of a deal, check it, and put it up for sale", Args: c.args(cobra.ExactArgs(2)),
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
				path, err := filepath.Abs(args[1])
				if err != nil {
					return err
				}
				d, err := n.StorageImport(ctx, args[0], path)
				if err != nil {
					return err
				}
				return c.show(d, [][2]string{{"proposal", d.Proposal}, {"state", d.State}, {"piece CID", d.PieceCID}, {"piece size", size(d.PieceSize)}, {"deal id", fmt.Sprint(d.DealID)}})
			})},
		&cobra.Command{Use: "ask", Short: "Show what deals are taken", Args: c.args(cobra.NoArgs), RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			a, err := n.StorageAsk(ctx)
			if err != nil {
				return err
			}
			return c.showAsk(a)
		})},
		c.setStorageAskCmd(),
	)
	return cmd
}

func (c *cli) setStorageAskCmd() *cobra.Command {
	var price, verified, low, high string
	var epochs int64
	cmd := &cobra.Command{Use: "set-ask", Short: "Change what deals are taken; what is not given stays", Args: c.args(cobra.NoArgs)}
	cmd.RunE = c.node(func(ctx context.Context, n *api.Node, _ []string) error {
		a, err := n.StorageAsk(ctx)
		if err != nil {
			return err
		}
		for _, s := range []struct {
			given string
			to    *string
		}{{price, &a.Price}, {verified, &a.VerifiedPrice}} {
			if s.given != "" {
				if *s.to, err = parseAmount(s.given); err != nil {
					return err
				}
			}
		}
		for _, s := range []struct {
			given string
			to    *uint64
		}{{low, &a.MinPieceSize}, {high, &a.MaxPieceSize}} {
			if s.given != "" {
				if *s.to, err = parseSize(s.given); err != nil {
					return err
				}
			}
		}
		if a, err = n.SetStorageAsk(ctx, *a, epochs); err != nil {
			return err
		}
		return c.showAsk(a)
	})
	cmd.Flags().StringVar(&price, "price", "", "attoFIL for a GiB and epoch")
	cmd.Flags().StringVar(&verified, "verified-price", "", "the same for verified deals")
	cmd.Flags().StringVar(&low, "min-piece-size", "", "smallest padded size of a piece")
	cmd.Flags().StringVar(&high, "max-piece-size", "", "largest padded size of a piece")
	cmd.Flags().Int64Var(&epochs, "epochs", 365*2880, "how many epochs the ask is good for")
	return cmd
}
