package main

import (
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/money"
)

// proposalFlags are the terms of a deal with a provider that answers no queries.
type proposalFlags struct{ price, unseal, interval, payTo string }

func (f *proposalFlags) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.price, "price", "", "what to propose to a provider that takes deals and answers no queries, for example 0.01FIL/GiB or 2/B (default: nothing, and only with --piece)")
	cmd.Flags().StringVar(&f.unseal, "unseal-price", "", "and before the first byte: attoFIL, or with FIL or nanoFIL (default 0)")
	cmd.Flags().StringVar(&f.interval, "payment-interval", "1MiB", "and the bytes that it sends before a payment is due")
	cmd.Flags().StringVar(&f.payTo, "pay-to", "", "the address that it is paid at; a provider that names another one is refused")
}

// fill puts the terms into a request. A price that does not divide into attoFIL for each byte is rounded down, and said.
func (f *proposalFlags) fill(req *api.RetrieveRequest) (err error) {
	req.PaidTo = f.payTo
	if f.price != "" {
		p, err := money.ParsePrice(f.price)
		if err != nil {
			return api.Errorf(api.CodeUsage, "Write it as 0.01FIL/GiB, 20nanoFIL/MiB or 2/B.", "%w", err)
		}
		each, exact := p.PerByte()
		if !exact {
			note("The price is rounded down to %s attoFIL a byte.\n", each.Units.String())
		}
		req.PricePerByte = each.Units.String()
	}
	if f.unseal != "" {
		if req.UnsealPrice, err = parseAmount(f.unseal); err != nil {
			return err
		}
	}
	req.PaymentInterval, err = parseSize(f.interval)
	return err
}
