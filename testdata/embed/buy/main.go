// Command buy buys a payload from a provider: buy DIR LEDGER TOKENFILE CID ADDRESS OUTPUT.
package main

import (
	"context"
	"log"
	"os"

	"github.com/cartage-dev/cartage/money"
	"github.com/cartage-dev/cartage/node"
)

func main() {
	ctx, a := context.Background(), os.Args
	n, err := node.Open(ctx, a[1], node.WithLedger(a[2], a[3]))
	check(err)
	defer n.Close(ctx)
	p, err := n.Buy(ctx, a[4], node.From(a[5]), node.Budget(money.MustParse("0.1FIL")))
	check(err)
	defer p.Close()
	check(p.Save(a[6]))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
