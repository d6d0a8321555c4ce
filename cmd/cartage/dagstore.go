package main

import (
	"context"
	"fmt"
	"github.com/cartage-dev/cartage/internal/reason"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/dagstore"
)

func (c *cli) dagstoreCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "dagstore", Short: "The shards that pieces are served from"})
	one := func(use, short string, f func(n *api.Node) func(context.Context, string) error) *cobra.Command {
		return &cobra.Command{Use: use + " KEY", Short: short, Args: c.args(cobra.ExactArgs(1)),
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error { return f(n)(ctx, args[0]) })}
	}
	cmd.AddCommand(c.listShardsCmd(), c.registerShardCmd(), c.initializeAllCmd(), c.lookupPiecesCmd(), c.importPiecesCmd(), c.dagstoreGCCmd(), c.doctorCmd(),
		one("initialize-shard", "Read a shard that is registered only", func(n *api.Node) func(context.Context, string) error { return n.DagstoreInitializeShard }),
		one("recover-shard", "Read a failed shard again", func(n *api.Node) func(context.Context, string) error { return n.DagstoreRecoverShard }),
		one("destroy-shard", "Forget a shard; the file of a piece that was provided as a .car stays", func(n *api.Node) func(context.Context, string) error { return n.DagstoreDestroyShard }))
	return cmd
}

func (c *cli) shards(list []api.DagstoreShardInfo) error {
	return colouredTable(c, list, []string{"KEY", "STATE", "ERROR"}, func(s api.DagstoreShardInfo) []string {
		return []string{s.Key, strings.TrimPrefix(s.State, "ShardState"), s.Error}
	}, stateColour, "no shards")
}

// stateColour gives the states of shards their colours.
func stateColour(column int, cell string) string {
	if column != 1 {
		return ""
	}
	return map[string]string{"Available": "32", "Serving": "34", "Errored": "31", "New": "33"}[cell]
}

func (c *cli) listShardsCmd() *cobra.Command {
	var p api.DagstoreListParams
	var long bool
	cmd := &cobra.Command{Use: "list-shards", Short: "List the shards", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			if !long && p == (api.DagstoreListParams{}) {
				list, err := n.DagstoreListShards(ctx)
				if err != nil {
					return err
				}
				return c.shards(list)
			}
			if p.State != "" && !strings.HasPrefix(p.State, "ShardState") {
				p.State = "ShardState" + p.State
			}
			list, err := n.DagstoreShards(ctx, p)
			if err != nil {
				return err
			}
			return colouredTable(c, list, []string{"KEY", "STATE", "BLOCKS", "CAR SIZE", "READERS", "WHERE", "ERROR"}, func(s api.DagstoreShard) []string {
				return []string{s.Key, strings.TrimPrefix(s.State, "ShardState"), fmt.Sprint(s.Blocks), size(s.CarSize), fmt.Sprint(s.Refs), s.Where, s.Error}
			}, stateColour, "no shards")
		})}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show all that is known")
	cmd.Flags().StringVar(&p.State, "state", "", "only shards in this state, for example Errored")
	cmd.Flags().IntVar(&p.Offset, "offset", 0, "leave out so many of the oldest")
	cmd.Flags().IntVar(&p.Limit, "limit", 0, "show at most so many")
	return cmd
}

func (c *cli) registerShardCmd() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{Use: "register-shard KEY [FILE-OR-URL]", Short: "Register a piece by its CID", Args: c.args(cobra.RangeArgs(1, 2)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			if len(args) == 1 {
				if err := n.DagstoreRegisterShard(ctx, args[0]); err != nil {
					return err
				}
			} else {
				where, url := args[1], strings.Contains(args[1], "://")
				if !url {
					var err error
					if where, err = filepath.Abs(where); err != nil {
						return err
					}
				}
				if _, err := n.DagstoreRegister(ctx, args[0], where, url, lazy); err != nil {
					return err
				}
			}
			return c.show(map[string]string{"registered": args[0]}, [][2]string{{"Registered shard", args[0]}})
		})}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "read it when it is first wanted, not now")
	return cmd
}

func (c *cli) lookupPiecesCmd() *cobra.Command {
	return &cobra.Command{Use: "lookup-pieces CID", Short: "Which pieces hold a block", Args: c.args(cobra.ExactArgs(1)),
		RunE: c.reads(func(ctx context.Context, n *api.Node, args []string) error {
			list, err := n.DagstoreLookupPieces(ctx, args[0])
			if err != nil {
				return err
			}
			return c.shards(list)
		})}
}

func (c *cli) importPiecesCmd() *cobra.Command {
	return &cobra.Command{Use: "import-pieces FOLDER-OR-LIST", Short: "Register all pieces of a folder of CARs, or of a list", Args: c.args(cobra.ExactArgs(1)),
		Long: "The CARs of a folder are read now. The pieces of a list are read when they are first wanted: it has a JSON object a line,\n{\"piece\":\"baga...\",\"path\":\"/pieces/1.car\"} or with \"url\", and \"padded_size\" if it is known. Done again it changes nothing.",
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			from, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			list, err := n.DagstoreImport(ctx, from)
			if err != nil {
				return err
			}
			if err := c.results(list, "the list is empty"); err != nil {
				return err
			}
			failed := 0
			for _, r := range list {
				if !r.Success {
					failed++
				}
			}
			if failed > 0 {
				return reason.PartlyFailed.Errorf("%d of %d pieces failed", failed, len(list))
			}
			return nil
		})}
}

func (c *cli) dagstoreGCCmd() *cobra.Command {
	return &cobra.Command{Use: "gc", Short: "Remove copies of pieces that nobody reads", Args: c.args(cobra.NoArgs),
		RunE: c.node(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.DagstoreGC(ctx)
			if err != nil {
				return err
			}
			return c.results(list, "no shards collected")
		})}
}

func (c *cli) results(list []api.DagstoreShardResult, none string) error {
	return table(c, list, []string{"KEY", "RESULT"}, func(r api.DagstoreShardResult) []string {
		if r.Success {
			return []string{r.Key, "SUCCESS"}
		}
		return []string{r.Key, "ERROR " + r.Error}
	}, none)
}

func (c *cli) doctorCmd() *cobra.Command {
	var rebuild bool
	cmd := &cobra.Command{Use: "doctor", Short: "Look for shards that cannot be served, and say what helps", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			if rebuild {
				return c.rebuild(ctx, n)
			}
			list, err := n.DagstoreDoctor(ctx)
			if err != nil {
				return err
			}
			err = table(c, list, []string{"KEY", "REASON", "REPAIR", "DETAIL"}, func(f api.DagstoreFinding) []string {
				return []string{f.Key, f.Reason, f.Repair, f.Detail}
			}, "all shards are well")
			if err == nil && len(list) > 0 {
				err = reason.PartlyFailed.Errorf("%d shards need attention", len(list)).WithHint("cartage dagstore doctor --rebuild makes anew what can be.")
			}
			return err
		})}
	cmd.Flags().BoolVar(&rebuild, "rebuild", false, "make anew what of the index is lost or damaged, out of the pieces; what is well stays as it is")
	return cmd
}

// rebuild makes the index anew where it is not well.
func (c *cli) rebuild(ctx context.Context, n *api.Node) error {
	list, err := n.DagstoreRebuild(ctx)
	if err != nil {
		return err
	}
	failed := 0
	err = table(c, list, []string{"KEY", "RESULT"}, func(r api.DagstoreShardResult) []string {
		if !r.Success {
			failed++
			return []string{r.Key, r.Error}
		}
		return []string{r.Key, "made anew"}
	}, "all shards are well: nothing was made anew")
	if err == nil && failed > 0 {
		err = reason.PartlyFailed.Errorf("%d of %d could not be made anew", failed, len(list)).WithHint("Those are as they were.")
	}
	return err
}

func (c *cli) initializeAllCmd() *cobra.Command {
	var jobs int
	var sealed bool
	cmd := &cobra.Command{Use: "initialize-all", Short: "Read all shards that are registered only", Args: c.args(cobra.NoArgs),
		RunE: c.node(func(ctx context.Context, n *api.Node, _ []string) error { return c.initializeAll(ctx, n, jobs, sealed) })}
	cmd.Flags().IntVar(&jobs, "concurrency", 0, "how many at once, 0 for all of them")
	cmd.Flags().BoolVar(&sealed, "include-sealed", false, "also those that would have to be unsealed")
	_ = cmd.MarkFlagRequired("concurrency")
	return cmd
}

// initializeAll is what DagstoreInitializeAll does, one question a shard: it needs no stream.
func (c *cli) initializeAll(ctx context.Context, n *api.Node, jobs int, sealed bool) error {
	all, err := n.DagstoreShards(ctx, api.DagstoreListParams{State: "ShardStateNew", Limit: 1 << 30})
	if err != nil {
		return err
	}
	var list []api.DagstoreShard
	for _, s := range all {
		if sealed || !strings.HasPrefix(s.Where, dagstore.SectorScheme+"://") {
			list = append(list, s)
		}
	}
	if jobs <= 0 {
		jobs = len(list)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed, slots := 0, make(chan struct{}, max(jobs, 1))
	tell := func(e api.DagstoreInitializeAllEvent) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case c.json:
			_ = printJSON(os.Stdout, e)
		case e.Event == "start":
			say("(%d/%d) %s STARTING\n", e.Current, e.Total, e.Key)
		case e.Success:
			say("(%d/%d) %s SUCCESS\n", e.Current, e.Total, e.Key)
		default:
			say("(%d/%d) %s ERROR %s\n", e.Current, e.Total, e.Key, e.Error)
		}
		if e.Event == "end" && !e.Success {
			failed++
		}
	}
	for i, s := range list {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			e := api.DagstoreInitializeAllEvent{Key: s.Key, Event: "start", Total: len(list), Current: i + 1}
			tell(e)
			e.Event, e.Success = "end", true
			if err := n.DagstoreInitializeShard(ctx, s.Key); err != nil {
				e.Success, e.Error = false, err.Error()
			}
			tell(e)
		})
	}
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		note("aborted\n")
		return ctx.Err()
	case failed > 0:
		return reason.PartlyFailed.Errorf("%d of %d shards failed", failed, len(list))
	}
	return nil
}
