package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cartage-dev/cartage/money"
	"github.com/cartage-dev/cartage/node"
)

// buy is a whole buyer.
func buy(ctx context.Context, dir, url, tokenFile, root, addr string) error {
	n, err := node.Open(ctx, dir, node.WithLedger(url, tokenFile))
	if err != nil {
		return err
	}
	defer n.Close(ctx)
	if _, err := n.API().Faucet(ctx); err != nil { // of a development ledger
		return err
	}
	p, err := n.Buy(ctx, root, node.From(addr), node.Budget(money.MustParse("0.1FIL")))
	if err != nil {
		return err
	}
	defer p.Close()
	fmt.Println("paid", p.Spent())
	return p.Save(filepath.Join(dir, "bought.txt"))
}

// sell is a whole seller. It says what it sells, and where, and sells until the context ends.
func sell(ctx context.Context, dir, url, tokenFile, file string, say func(root, addr string)) error {
	n, err := node.Open(ctx, dir, node.WithLedger(url, tokenFile), node.WithConfig(map[string]string{"ledger.min_settle_window": "10s"}))
	if err != nil {
		return err
	}
	defer n.Close(context.WithoutCancel(ctx))
	piece, err := n.Provide(ctx, file)
	if err != nil {
		return err
	}
	return n.Serve(ctx, node.Ask{Price: money.MustParsePrice("1FIL/GiB")}, func() { say(piece.Root, n.Addrs()[0]) })
}

// Example sells a file in one home and buys it in another, over a development ledger.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// paid 15646 nanoFIL
	// equal: true
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "cartage-example")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	url, token, stop, err := devLedger(ctx, dir)
	if err != nil {
		return err
	}
	want := bytes.Repeat([]byte("sixteen bytes..."), 1050)
	file := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		return err
	}
	selling, done := context.WithCancel(ctx)
	sold := make(chan error, 1)
	go func() {
		sold <- sell(selling, filepath.Join(dir, "seller"), url, token, file, func(root, addr string) {
			go func() {
				defer done()
				if err := buy(ctx, filepath.Join(dir, "buyer"), url, token, root, addr); err != nil {
					fmt.Println(err)
				}
			}()
		})
	}()
	err = <-sold
	got, rerr := os.ReadFile(filepath.Join(dir, "buyer", "bought.txt"))
	fmt.Println("equal:", bytes.Equal(got, want))
	return errors.Join(err, rerr, stop())
}
