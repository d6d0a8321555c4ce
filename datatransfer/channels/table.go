package channels

import (
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
)

var (
	cleanup  = []dt.Status{dt.Cancelling, dt.Completing, dt.Failing}
	finality = []dt.Status{dt.Cancelled, dt.Completed, dt.Failed}
	moving   = []dt.Status{
		dt.Requested, dt.Ongoing, dt.InitiatorPaused, dt.ResponderPaused, dt.BothPaused, dt.ResponderCompleted, dt.ResponderFinalizing,
		dt.TransferFinished, dt.Finalizing, dt.ResponderFinalizingTransferFinished,
	}
)

// IsChannelTerminated tells whether a status is final.
func IsChannelTerminated(s dt.Status) bool { return in(finality, s) }

// IsChannelCleaningUp tells whether a status is one of cleanup.
func IsChannelCleaningUp(s dt.Status) bool { return in(cleanup, s) }

func in(list []dt.Status, s dt.Status) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func keys(list ...[]dt.Status) []fsm.StateKey {
	var out []fsm.StateKey
	for _, l := range list {
		for _, s := range l {
			out = append(out, s)
		}
	}
	return out
}

func without(list []dt.Status, not ...dt.Status) []fsm.StateKey {
	var out []fsm.StateKey
	for _, s := range list {
		if !in(not, s) {
			out = append(out, s)
		}
	}
	return out
}

func setMessage(r *Record, msg string) error {
	r.Message = cut(msg)
	return nil
}

func setCause(r *Record, cause error) error {
	r.Cause = cause
	return setMessage(r, cause.Error())
}

func clearMessage(r *Record) error {
	r.Message = ""
	return nil
}

func raise(field func(*Record) *uint64) func(*Record, uint64) error {
	return func(r *Record, v uint64) error {
		if p := field(r); v > *p {
			*p = v
		}
		return nil
	}
}

func add(field func(*Record) *uint64) func(*Record, uint64) error {
	return func(r *Record, v uint64) error {
		*field(r) += v
		return nil
	}
}

// Events is the transition table of a channel (docs/protocol/datatransfer.md 3.4 with ). From
// the cleanup states only CleanupComplete leads away; data events are counted in every state in which data can move.
var Events = fsm.Events{
	fsm.Event(dt.Open).From(dt.Requested).ToJustRecord(),
	fsm.Event(dt.Accept).From(dt.Requested).To(dt.Ongoing).
		FromMany(without(moving, dt.Requested)...).ToJustRecord(),
	fsm.Event(dt.TransferRequestQueued).FromAny().ToJustRecord().Action(clearMessage),
	// A restart is an acceptance too, if the first one was lost: otherwise the end of the data would pass for a pull that found
	// everything here.
	fsm.Event(dt.Restart).From(dt.Requested).To(dt.Ongoing).FromMany(without(moving, dt.Requested)...).ToJustRecord().Action(clearMessage),
	fsm.Event(dt.Opened).FromAny().ToJustRecord().Action(clearMessage),
	fsm.Event(dt.Cancel).FromMany(keys(moving)...).To(dt.Cancelling),
	fsm.Event(dt.Error).FromMany(keys(moving)...).To(dt.Failing).Action(setCause),

	fsm.Event(dt.DataReceived).FromAny().ToJustRecord().Action(raise(func(r *Record) *uint64 { return &r.ReceivedTotal })),
	fsm.Event(dt.DataReceivedProgress).FromMany(keys(moving)...).ToJustRecord().Action(add(func(r *Record) *uint64 { return &r.Received })),
	fsm.Event(dt.DataSent).FromMany(keys(moving)...).ToJustRecord().Action(raise(func(r *Record) *uint64 { return &r.SentTotal })),
	fsm.Event(dt.DataSentProgress).FromMany(keys(moving)...).ToJustRecord().Action(add(func(r *Record) *uint64 { return &r.Sent })),
	fsm.Event(dt.DataQueued).FromMany(keys(moving)...).ToJustRecord().Action(raise(func(r *Record) *uint64 { return &r.QueuedTotal })),
	fsm.Event(dt.DataQueuedProgress).FromMany(keys(moving)...).ToJustRecord().Action(add(func(r *Record) *uint64 { return &r.Queued })),

	fsm.Event(dt.Disconnected).FromMany(keys(moving)...).ToJustRecord().Action(setMessage),
	fsm.Event(dt.SendDataError).FromMany(keys(moving)...).ToJustRecord().Action(setMessage),
	fsm.Event(dt.ReceiveDataError).FromMany(keys(moving)...).ToJustRecord().Action(setMessage),
	fsm.Event(dt.RequestCancelled).FromMany(keys(moving)...).ToJustRecord().Action(setMessage),

	fsm.Event(dt.NewVoucher).FromAny().ToJustRecord().Action(func(r *Record) error { r.Vouchers++; return nil }),
	fsm.Event(dt.NewVoucherResult).FromAny().ToJustRecord().Action(func(r *Record) error { r.Results++; return nil }),

	fsm.Event(dt.PauseInitiator).FromMany(dt.Requested, dt.Ongoing).To(dt.InitiatorPaused).
		From(dt.ResponderPaused).To(dt.BothPaused).FromAny().ToJustRecord(),
	fsm.Event(dt.PauseResponder).FromMany(dt.Requested, dt.Ongoing).To(dt.ResponderPaused).
		From(dt.InitiatorPaused).To(dt.BothPaused).FromAny().ToJustRecord().Action(func(r *Record) error { r.WasPaused = true; return nil }),
	fsm.Event(dt.ResumeInitiator).From(dt.InitiatorPaused).To(dt.Ongoing).
		From(dt.BothPaused).To(dt.ResponderPaused).FromAny().ToJustRecord(),
	fsm.Event(dt.ResumeResponder).From(dt.ResponderPaused).To(dt.Ongoing).
		From(dt.BothPaused).To(dt.InitiatorPaused).From(dt.Finalizing).To(dt.Completing).FromAny().ToJustRecord().
		Action(func(r *Record) error { r.WasPaused = false; return nil }),

	fsm.Event(dt.FinishTransfer).FromMany(keys(cleanup)...).ToJustRecord().
		From(dt.ResponderCompleted).To(dt.Completing).
		From(dt.ResponderFinalizing).To(dt.ResponderFinalizingTransferFinished).
		From(dt.Requested).To(dt.Completing).
		FromMany(dt.ResponderFinalizingTransferFinished).ToJustRecord().
		FromAny().To(dt.TransferFinished),
	fsm.Event(dt.ResponderBeginsFinalization).FromMany(keys(cleanup)...).ToJustRecord().
		From(dt.TransferFinished).To(dt.ResponderFinalizingTransferFinished).
		FromMany(dt.ResponderFinalizing, dt.ResponderFinalizingTransferFinished).ToJustRecord().
		FromAny().To(dt.ResponderFinalizing),
	fsm.Event(dt.ResponderCompletes).FromMany(keys(cleanup)...).ToJustRecord().
		FromMany(dt.TransferFinished, dt.ResponderFinalizingTransferFinished).To(dt.Completing).
		FromAny().To(dt.ResponderCompleted),
	fsm.Event(dt.BeginFinalizing).FromMany(keys(moving)...).To(dt.Finalizing),
	fsm.Event(dt.Complete).FromMany(keys(moving)...).To(dt.Completing),
	fsm.Event(dt.CleanupComplete).
		From(dt.Cancelling).To(dt.Cancelled).From(dt.Failing).To(dt.Failed).From(dt.Completing).To(dt.Completed),
	fsm.Event(dt.CompleteCleanupOnRestart).FromMany(keys(cleanup)...).ToJustRecord(),
}

// NewTable compiles the table.
func NewTable() (*fsm.Table[Record], error) {
	return fsm.Compile(fsm.Spec[Record]{
		Name:      "data-transfer channel",
		State:     func(r *Record) fsm.StateKey { return r.Status },
		SetState:  func(r *Record, s fsm.StateKey) { r.Status = s.(dt.Status) },
		Events:    Events,
		Final:     keys(finality),
		StateName: func(s fsm.StateKey) string { return dt.Statuses[s.(dt.Status)] },
		EventName: func(e fsm.EventName) string { return dt.Events[e.(dt.EventCode)] },
	})
}

// logTexts are the lines that an event leaves in the log of the stage in which it happened.
var logTexts = map[dt.EventCode]string{
	dt.DataReceivedProgress: "received data", dt.DataSentProgress: "sending data",
	dt.NewVoucher: "got new voucher", dt.NewVoucherResult: "got new voucher result",
	dt.Error: "data transfer erred: ", dt.Disconnected: "data transfer disconnected: ",
	dt.SendDataError: "data transfer send error: ", dt.ReceiveDataError: "data transfer receive error: ",
	dt.RequestCancelled: "data transfer request cancelled: ",
}

// LostBlocks takes back that all data is here: blocks that were counted are not in the recipient's store any more, and a restart has to ask for them.
func (r *Record) LostBlocks() {
	switch r.Status {
	case dt.TransferFinished:
		r.Status = dt.Ongoing
	case dt.ResponderFinalizingTransferFinished:
		r.Status = dt.ResponderFinalizing
	}
}
