package impl

import (
	"errors"
	"fmt"
	"log/slog"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
)

// receiveVoucher revalidates (section 4.6). The channel exists, is not over, and the sender initiated it.
func (m *Manager) receiveVoucher(c *channels.Channel, req dt.Request) (dt.Response, error) {
	chid := c.ID()
	d, ok := m.revalidators.Decoder(req.VoucherType())
	if !ok {
		return m.refuseVoucher(c, nil, fmt.Errorf("unknown voucher type: %s", req.VoucherType()))
	}
	dec, err := req.Voucher(d)
	if err != nil {
		return m.refuseVoucher(c, nil, err)
	}
	voucher, ok := dec.(dt.Voucher)
	if !ok {
		return m.refuseVoucher(c, nil, fmt.Errorf("%T is not a voucher", dec))
	}
	p, _ := m.revalidators.Processor(req.VoucherType())
	rv, ok := p.(dt.Revalidator)
	if !ok {
		return m.refuseVoucher(c, nil, fmt.Errorf("no revalidator for voucher type %s", req.VoucherType()))
	}
	final := c.Status() == dt.Finalizing
	_, result, rerr := guarded(func() (bool, dt.VoucherResult, error) {
		r, err := rv.Revalidate(chid, voucher)
		return true, r, err
	})
	enc, err := channels.Encode(voucher)
	if err != nil {
		return nil, err
	}
	return m.afterVoucher(c, &enc, result, rerr, final)
}

func (m *Manager) refuseVoucher(c *channels.Channel, result dt.VoucherResult, cause error) (dt.Response, error) {
	if err := record(c, result); err != nil {
		return nil, err
	}
	msg, err := m.resultMessage(c, false, false, result)
	if err != nil {
		return nil, err
	}
	_ = c.Apply(dt.Error, orUnknown(cause))
	return msg.(dt.Response), nil
}

// receiveLateVoucher hands a voucher of a channel that has ended to its revalidator: what was paid is booked whatever became of the transfer.
// A voucher that is refused then is not answered: nothing is left to end.
func (m *Manager) receiveLateVoucher(c *channels.Channel, req dt.Request) dt.Response {
	d, ok := m.revalidators.Decoder(req.VoucherType())
	if !ok {
		return nil
	}
	dec, err := req.Voucher(d)
	if err != nil {
		return nil
	}
	p, _ := m.revalidators.Processor(req.VoucherType())
	voucher, isVoucher := dec.(dt.Voucher)
	r, ok := p.(dt.Revalidator)
	if !ok || !isVoucher {
		return nil
	}
	_, result, rerr := guarded(func() (bool, dt.VoucherResult, error) {
		res, err := r.Revalidate(c.ID(), voucher)
		return true, res, err
	})
	if !accepted(rerr) {
		slog.Info("voucher for a data-transfer channel that has ended was refused", "channel", c.ID(), "error", rerr)
		return nil
	}
	msg, err := m.resultMessage(c, true, false, result)
	if err != nil {
		return nil
	}
	return msg.(dt.Response)
}

// afterVoucher lets a voucher take effect that was looked at before or after the end of data; enc is nil when it is recorded already.
func (m *Manager) afterVoucher(c *channels.Channel, enc *channels.Encoded, result dt.VoucherResult, rerr error, final bool) (dt.Response, error) {
	finalizing, ended, err := m.recordVoucher(c, enc, result, rerr, final)
	switch {
	case err != nil:
		return nil, err
	case !accepted(rerr):
		return m.refuseVoucher(c, result, rerr)
	case ended:
		result, rerr = m.decideEnd(c)
		return m.afterVoucher(c, nil, result, rerr, true)
	}
	paused := errors.Is(rerr, dt.ErrPause)
	msg, err := m.resultMessage(c, true, paused, result)
	if err != nil {
		return nil, err
	}
	if paused {
		c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Paused = true })
		return msg.(dt.Response), dt.ErrPause
	}
	if !errors.Is(rerr, dt.ErrResume) || finalizing || !m.unpause(c) {
		return msg.(dt.Response), nil
	}
	return nil, m.resume(m.ctx, c, msg)
}

// recordVoucher records a voucher and what it means for the channel, as one. A voucher that is refused is recorded alone.
func (m *Manager) recordVoucher(c *channels.Channel, enc *channels.Encoded, result dt.VoucherResult, rerr error, final bool) (finalizing, ended bool, err error) {
	c.Hold()
	defer c.Release()
	if enc != nil {
		err = c.Voucher(*enc)
	}
	if err != nil || !accepted(rerr) {
		return false, false, err
	}
	if err := record(c, result); err != nil {
		return false, false, err
	}
	paused := errors.Is(rerr, dt.ErrPause)
	c.Do(func(r *channels.Record, cr *channels.Credit) {
		finalizing = r.Status == dt.Finalizing
		if !paused {
			cr.Settled++
		}
	})
	switch {
	case paused:
		err = c.Apply(dt.PauseResponder)
	case errors.Is(rerr, dt.ErrResume) || finalizing:
		ended, err = m.resumeResponder(c, final)
	}
	return finalizing, ended, err
}

// unpause ends the pause of a channel on account of its limit if there is one and position is below the limit now.
func (m *Manager) unpause(c *channels.Channel) (was bool) {
	cr := m.credit(c)
	c.Do(func(r *channels.Record, k *channels.Credit) {
		k.Grants++
		was, k.Awaiting = k.Awaiting, false
		if k.Paused && (!cr.Limited || k.Open(r.Queued)) {
			k.Paused, was = false, true
		}
	})
	return was
}
