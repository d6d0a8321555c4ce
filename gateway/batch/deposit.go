package batch

import (
	"context"
	"errors"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// deposit relays a deposit and checks the voucher that came with it. What the voucher is worth is seen before anything is relayed.
func (d *draft) deposit(ctx context.Context, e book.Entry, w book.Want, p gateway.Purchase) (gateway.Sale, error) {
	nonce, err := d.checkDeposit()
	if err != nil {
		return gateway.Sale{}, err
	}
	if e.SeenAt.IsZero() {
		if e, err = d.c.cfg.Desk.Refresh(ctx, e); err != nil && !errors.Is(err, evm.ErrNoChannel) {
			return gateway.Sale{}, d.refusal(e, err)
		}
	}
	amount := big.NewFromGo(d.in.Deposit.Amount)
	as := e
	as.Deposit, as.SeenAt = big.Add(e.Deposit, amount), d.c.cfg.Now()
	if as.State == book.Closed {
		as.State = book.Active
	}
	_, outcome, cause := d.c.check.Check(d.payment(), w, as, d.c.cfg.Now())
	if outcome != book.Applied {
		return gateway.Sale{}, d.refusal(e, cause)
	}
	intent := book.Intent{Key: d.key(), Nonce: nonce.String(), Payload: d.raw, Config: e.Config, Before: e.Deposit, Created: d.c.cfg.Now()}
	e, intent, tx, err := d.c.cfg.Desk.Fund(ctx, e, d.in.Config.Payer, intent)
	if err != nil {
		return gateway.Sale{}, d.fundRefusal(e, err)
	}
	s := sold{charge: w.Charge, transaction: tx, amount: amount.String(), intents: []book.Intent{intent}}
	have, next, err := d.checked(ctx, e, w)
	if err != nil { // the deposit is booked, the voucher is not
		return gateway.Sale{}, errors.Join(err, d.c.cfg.Book.Apply(ctx, have, have, intent))
	}
	return d.sale(have, next, p, s)
}

// checkDeposit refuses a deposit that the token would refuse, or that is not worth its gas.
func (d *draft) checkDeposit() (nonce evm.Hash, err error) {
	in, now := d.in.Deposit, uint64(d.c.cfg.Now().Unix())
	least := d.c.minDeposit(d.c.prices.Taken()[0])
	switch {
	case big.NewFromGo(in.Amount).LessThan(least):
		return nonce, refuse("deposit_below_min_deposit", "a deposit is at least %s", least)
	case in.ValidAfter > now:
		return nonce, refuse("payload_authorization_valid_after", "the authorization is not valid yet")
	case in.ValidBefore < now+60 || in.ValidBefore > now+2*timeout:
		return nonce, refuse("payload_authorization_valid_before", "the authorization has to be valid for 60 to %d seconds", 2*timeout)
	}
	if nonce, err = evm.DepositNonce(d.in.Voucher.Channel, in.Salt); err != nil {
		return nonce, err
	}
	digest, err := d.c.cfg.Token.AuthorizationDigest(evm.Authorization{From: d.in.Config.Payer, To: evm.Collector(), Value: in.Amount, ValidAfter: in.ValidAfter, ValidBefore: in.ValidBefore, Nonce: nonce})
	if err != nil {
		return nonce, err
	}
	if who, err := evm.Recover(digest, in.Signature); err != nil || who != d.in.Config.Payer {
		return nonce, refuse("receive_authorization_signature", "the authorization is not signed by the payer of the channel")
	}
	return nonce, nil
}

// fundRefusal says why a deposit was not relayed.
func (d *draft) fundRefusal(e book.Entry, err error) error {
	var refused *book.RefusedError
	if errors.As(err, &refused) && !errors.Is(err, book.ErrUnavailable) {
		if refused.Code == codePrefix+"insufficient_balance" {
			return refuse("insufficient_balance", "the payer does not have so much")
		}
		return refuse("deposit_transaction_failed", "the deposit was refused: %s", refused.Text)
	}
	return d.refusal(e, err)
}

// refund gives back what is left of a channel, or a part of it.
func (d *draft) refund(ctx context.Context, e book.Entry, p gateway.Purchase) (gateway.Sale, error) {
	resumed := e.State == book.Refunding && string(e.LastKey) == string(d.lastKey(p))
	next := e
	if !resumed {
		var err error
		if e, next, err = d.checkRefund(ctx, e, p); err != nil {
			return gateway.Sale{}, err
		}
	}
	done, tx, err := d.c.cfg.Desk.Refund(ctx, e, next, d.in.Config.Payer)
	if err != nil {
		return gateway.Sale{}, d.refundRefusal(done, err)
	}
	return d.sale(done, done, p, sold{charge: big.Zero(), transaction: tx, amount: done.Refund.String(), isRefund: true})
}

// checkRefund is the entry with a refund that was asked for: a voucher for what was charged shows that its payer wants it.
func (d *draft) checkRefund(ctx context.Context, e book.Entry, p gateway.Purchase) (have, next book.Entry, err error) {
	if e.SeenAt.IsZero() || d.c.cfg.Now().Sub(e.SeenAt) > time.Minute {
		if e, err = d.c.cfg.Desk.Refresh(ctx, e); err != nil {
			return e, e, d.refusal(e, err)
		}
	}
	as := e
	as.WithdrawAt = time.Time{} // one who withdraws may have it at once
	if as.State == book.Withdrawing {
		as.State = book.Active
	}
	w := book.Want{Amount: big.Zero(), Charge: big.Zero(), Spare: e.Spare}
	next, outcome, cause := d.c.check.Check(d.payment(), w, as, d.c.cfg.Now())
	if outcome != book.Applied {
		return e, e, d.refusal(e, cause)
	}
	next.WithdrawAt = e.WithdrawAt
	next.Refund = e.Left()
	if d.in.Amount != nil {
		if d.in.Amount.Sign() == 0 {
			return e, e, refuse("refund_amount_invalid", "a refund of nothing")
		}
		next.Refund = big.Min(big.NewFromGo(d.in.Amount), e.Left())
	}
	if next.Refund.Sign() == 0 {
		return e, e, refuse("refund_no_balance", "nothing is left of the channel")
	}
	next.LastKey, next.LastReceipt, next.LastAt, next.Replays = d.lastKey(p), nil, d.c.cfg.Now(), 0
	return e, next, nil
}

func (d *draft) refundRefusal(e book.Entry, err error) error {
	var refused *book.RefusedError
	if errors.As(err, &refused) && !errors.Is(err, book.ErrUnavailable) {
		return refuse("refund_transaction_failed", "the refund was refused: %s", refused.Text)
	}
	return d.refusal(e, err)
}

func refuseTerms() *x402.Refusal {
	r := refuse("", "the terms that were accepted are not those of these bytes")
	r.Code = x402.CodeTerms
	return r
}
