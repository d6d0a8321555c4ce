// Command sell sells a file or folder until it is interrupted: sell DIR LEDGER TOKENFILE PATH.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/cartage-dev/cartage/money"
	"github.com/cartage-dev/cartage/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	n, err := node.Open(ctx, os.Args[1], node.WithLedger(os.Args[2], os.Args[3]))
	check(err)
	defer n.Close(context.WithoutCancel(ctx))
	piece, err := n.Provide(ctx, os.Args[4])
	check(err)
	fmt.Println(piece.Root, n.Addrs())
	check(n.Serve(ctx, node.Ask{Price: money.MustParsePrice("0.01FIL/GiB")}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
