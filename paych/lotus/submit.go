package lotus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	initactor "github.com/filecoin-project/go-state-types/builtin/v8/init"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/wire"
	pay "github.com/cartage-dev/cartage/paych"
)

// Submit implements paych.Submitter. The node makes one message of an intent, however often it is pushed.
func (c *Chain) Submit(ctx context.Context, op pay.Op) (cid.Cid, error) {
	if err := c.fresh(ctx); err != nil {
		return cid.Undef, err
	}
	msg, err := c.message(ctx, op)
	if err != nil {
		return cid.Undef, err
	}
	spec := &SendSpec{MaxFee: big.Zero(), MsgUuid: op.Intent.String()}
	if !op.MaxFee.Nil() {
		spec.MaxFee = op.MaxFee
	}
	sent, err := read(ctx, c, func(ctx context.Context) (*SignedMessage, error) { return c.api.MpoolPushMessage(ctx, msg, spec) })
	for _, definite := range []error{ErrAuth, pay.ErrNoKey, pay.ErrWalletFunds, pay.ErrFee} { // it was not pushed, and would not be the next time
		if errors.Is(err, definite) {
			return cid.Undef, fmt.Errorf("%w: %w", pay.ErrRefused, err)
		}
	}
	if err != nil {
		return cid.Undef, err
	}
	if sent == nil || !sent.CID.Defined() {
		return cid.Undef, errors.New("the Lotus node does not say what became of the message")
	}
	return sent.CID, nil
}

// message is the message of a change.
func (c *Chain) message(ctx context.Context, op pay.Op) (*Message, error) {
	m := &Message{From: op.From, To: op.Channel, Value: big.Zero(), GasFeeCap: big.Zero(), GasPremium: big.Zero()}
	switch op.Kind {
	case pay.OpCreate:
		code, err := c.code(ctx)
		if err != nil {
			return nil, err
		}
		ctor, err := wire.Encode(&paych.ConstructorParams{From: op.From, To: op.To})
		if err != nil {
			return nil, err
		}
		if m.Params, err = wire.Encode(&initactor.ExecParams{CodeCID: code, ConstructorParams: ctor}); err != nil {
			return nil, err
		}
		m.To, m.Method, m.Value = initActor(), 2, op.Value
	case pay.OpAddFunds:
		m.Value = op.Value
	case pay.OpRedeem:
		params, err := wire.Encode(&paych.UpdateChannelStateParams{Sv: *op.Voucher, Secret: op.Secret})
		if err != nil {
			return nil, err
		}
		m.Method, m.Params = 2, params
	case pay.OpSettle:
		m.Method = 3
	case pay.OpCollect:
		m.Method = 4
	default:
		return nil, fmt.Errorf("change of kind %d is unknown", op.Kind)
	}
	return m, nil
}

func initActor() address.Address {
	a, _ := address.NewIDAddress(1) // cannot fail
	return a
}

// code is the code of payment channels in the present version of the network.
func (c *Chain) code(ctx context.Context) (cid.Cid, error) {
	v, err := read(ctx, c, func(ctx context.Context) (uint, error) { return c.api.StateNetworkVersion(ctx, nil) })
	if err != nil {
		return cid.Undef, err
	}
	codes, err := read(ctx, c, func(ctx context.Context) (map[string]cid.Cid, error) { return c.api.StateActorCodeCIDs(ctx, v) })
	if err != nil {
		return cid.Undef, err
	}
	code, ok := codes["paymentchannel"]
	if !ok || !code.Defined() {
		return cid.Undef, fmt.Errorf("network version %d has no payment channel actor", v)
	}
	return code, nil
}

// Wait implements paych.Submitter. It asks again when a proxy cut the wait, or the node was away.
func (c *Chain) Wait(ctx context.Context, msg cid.Cid) (*pay.Receipt, error) {
	wait := 200 * time.Millisecond
	for {
		l, err := c.api.StateWaitMsg(ctx, msg, uint64(confidence), -1, true)
		if err = mapped(err); err == nil {
			c.reached(nil)
		}
		switch {
		case err == nil && l != nil:
			return c.receipt(ctx, msg, l)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			err = ErrNodeUnavailable
		}
		if !errors.Is(err, ErrNodeUnavailable) {
			return nil, fmt.Errorf("wait for message %s: %w", msg, err)
		}
		if !lifecycle.Sleep(ctx, wait/2+rand.N(wait/2)) {
			return nil, ctx.Err()
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// receipt names the channel of a change: a create returns its address, other messages were sent to it.
func (c *Chain) receipt(ctx context.Context, msg cid.Cid, l *MsgLookup) (*pay.Receipt, error) {
	r := &pay.Receipt{ExitCode: l.Receipt.ExitCode, Epoch: l.Height}
	if r.ExitCode != 0 {
		r.Message = r.ExitCode.String()
		return r, nil
	}
	var ret initactor.ExecReturn
	if len(l.Receipt.Return) > 0 && wire.Decode(l.Receipt.Return, &ret) == nil {
		r.Channel = ret.RobustAddress
		return r, nil
	}
	m, err := read(ctx, c, func(ctx context.Context) (*Message, error) { return c.api.ChainGetMessage(ctx, msg) })
	if err == nil && m == nil {
		err = errNothing
	}
	if err != nil {
		return nil, err
	}
	r.Channel = m.To
	return r, nil
}

// Lookup implements paych.Submitter: the node knows what was pushed under an intent, so that a push that is repeated is the same one.
func (c *Chain) Lookup(context.Context, address.Address, uuid.UUID) (cid.Cid, error) {
	return cid.Undef, nil
}
