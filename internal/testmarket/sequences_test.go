package testmarket_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

type sequence struct {
	name string
	run  func(t *testing.T) *pair
	c, p string
}

// What a client is told, as expressions over events and the states after them.
const (
	proposed = `Open>New (DealProposed>WaitForAcceptance )?` // the answer may be here before the call has returned
	accepted = proposed + `DealAccepted>Accepted `
	unsealed = proposed + `UnsealPaymentRequested>Accepted `
	created  = `PaymentChannelCreateInitiated>PaymentChannelCreating PaymentChannelReady>PaymentChannelAllocatingLane LaneAllocated>Ongoing `
	topped   = `PaymentChannelAddingFunds>PaymentChannelAddingInitialFunds PaymentChannelReady>PaymentChannelAllocatingLane LaneAllocated>Ongoing `
	asked    = `PaymentRequested>FundsNeeded SendFunds>SendFunds `
	pays     = asked + `PaymentSent>Ongoing `
	paysUp   = asked + `(PaymentSent>Ongoing )?` // the end may come while the payment is on its way
	all      = `(AllBlocksReceived>BlocksComplete )?`
	payLast  = all + `LastPaymentRequested>FundsNeededLastPayment SendFunds>SendFundsLastPayment (PaymentSent>Finalizing )?`
	verified = all + `Complete>CheckComplete (CompleteVerified|WaitForLastBlocks>WaitingForLastBlocks AllBlocksReceived)>Completed`
	again    = `DealRejected>RetryLegacy (DealProposed>WaitForAcceptanceLegacy )?`
	cancels  = `Cancelling CancelComplete>Cancelled`
	fails    = `Failing CancelComplete>Errored`
)

// And a provider.
const (
	opens   = `Open>New DealAccepted>Unsealing UnsealComplete>Unsealed (BlockSent>Ongoing )?`
	sells   = `PaymentRequested>FundsNeededUnseal (DealAccepted>FundsNeededUnseal )?PaymentReceived>Unsealing (DealAccepted>Unsealing )?`
	reads   = `UnsealComplete>Unsealed (DealAccepted>Unsealed )?(BlockSent>Ongoing )?`
	takes   = `PaymentRequested>FundsNeeded PaymentReceived>Ongoing `
	sentAll = `BlocksCompleted>BlocksComplete `
	settles = sentAll + `PaymentRequested>FundsNeededLastPayment PaymentReceived>Finalizing `
	ends    = `Complete>Completing CleanupComplete>Completed`
)

func legacyOnly(m *pair) {
	m.p.Config = func(c *retrievalimpl.ProviderConfig) { c.LegacyOnly = true }
}

// recorded are events that a client only records when it is busy with something else: when they come is not ordered.
var recorded = regexp.MustCompile(`^(DealProposed|PaymentRequested|LastPaymentRequested|AllBlocksReceived|DealAccepted|DealRejected|Complete|PaymentSent|DataTransferError)$`)

// repeated are events of a provider that change nothing: on a slow machine a client that sees no bytes for a second sends its voucher again.
var repeated = regexp.MustCompile(`^PaymentReceived$`)

// ordered leaves out what was only recorded.
func ordered(steps string, recorded *regexp.Regexp) string {
	var out []string
	before := ""
	for _, step := range strings.Fields(steps) {
		event, state, _ := strings.Cut(step, ">")
		if state != before || !recorded.MatchString(event) {
			out = append(out, step)
		}
		before = state
	}
	return strings.Join(out, " ")
}

func paidInFull(price, unseal int64, interval uint64) func(t *testing.T) *pair {
	return func(t *testing.T) *pair {
		m := newPair(t, terms(price, unseal, interval, 0), 10, 1024)
		m.retrieve()
		m.completed(m.due())
		return m
	}
}

func closing(t *testing.T, m *pair, c, p rm.DealStatus) *pair {
	t.Helper()
	require.Equal(t, c, m.tc.ended(t), "%s", m.tc)
	require.Equal(t, p, m.tp.ended(t), "%s", m.tp)
	return m
}

var sequences = []sequence{
	{"5.1", paidInFull(2, 7, 4096), unsealed + created + pays + pays + pays + payLast + verified, sells + reads + takes + takes + settles + ends},
	{"5.2", paidInFull(2, 0, 4096), accepted + created + pays + pays + payLast + verified, opens + takes + takes + settles + ends},
	{"5.3", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024)
		_, _, err := testmarket.Client{SimulatedBank: m.bank}.GetOrCreatePaymentChannel(m.ctx, m.c.Address, m.p.Address, big.Zero(), nil)
		require.NoError(t, err)
		m.retrieve()
		m.completed(m.due())
		return m
	}, accepted + topped + pays + pays + payLast + verified, opens + takes + takes + settles + ends},
	{"5.4", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 10*1024+400, 0), 10, 1024, func(m *pair) { m.params.PaymentInterval = m.total })
		m.retrieve()
		m.completed(m.due())
		return m
	}, accepted + created + all + paysUp + verified, opens + takes + sentAll + ends},
	{"5.5", paidInFull(0, 0, 0), proposed + `(DealAccepted>Accepted )?(PaymentChannelSkip>Ongoing )?` + verified, opens + sentAll + ends},
	{"5.6", paidInFull(0, 7, 0), unsealed + created + paysUp + verified, sells + reads + sentAll + ends},
	{"5.7", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024)
		m.bank.Short(big.NewInt(10000))
		m.retrieve()
		m.tc.saw(t, "FundsExpended>InsufficientFunds")
		m.bank.Short(big.Zero())
		ch, _, err := testmarket.Client{SimulatedBank: m.bank}.GetOrCreatePaymentChannel(m.ctx, m.c.Address, m.p.Address, big.NewInt(10000), nil)
		require.NoError(t, err)
		require.NoError(t, m.c.Client.TryRestartInsufficientFunds(ch))
		m.completed(m.due())
		return m
	}, accepted + created + pays + asked + `VoucherShortfall>CheckFunds FundsExpended>InsufficientFunds RecheckFunds>CheckFunds PaymentChannelReady>Ongoing ` + pays + payLast + verified, opens + takes + takes + settles + ends},
	{"5.8", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024)
		m.params.PricePerByte = big.NewInt(1)
		m.retrieve()
		require.Equal(t, rm.DealStatusRejected, m.tc.ended(t))
		require.Equal(t, "deal rejected: Price per byte too low", m.tc.text)
		return m
	}, proposed + `DealRejected>Rejected`, ``},
	{"5.8 first generation refused", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024, legacyOnly)
		m.params.PricePerByte = big.NewInt(1)
		m.retrieve()
		require.Equal(t, rm.DealStatusRejected, m.tc.ended(t))
		require.Equal(t, "deal rejected: Price per byte too low", m.tc.text)
		return m
	}, proposed + again + `DealRejected>Rejected`, ``},
	{"5.8 first generation accepted", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 7, 4096, 0), 10, 1024, legacyOnly)
		m.retrieve()
		m.completed(m.due())
		return m
	}, proposed + again + `UnsealPaymentRequested>Accepted ` + created + pays + pays + pays + payLast + verified, sells + reads + takes + takes + settles + ends},
	{"5.9", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024)
		other, _, err := testutil.NewMemStore().BuildDAG(1, 64, 99)
		require.NoError(t, err)
		m.root = other
		m.retrieve()
		require.Equal(t, rm.DealStatusDealNotFound, m.tc.ended(t))
		return m
	}, proposed + `DealNotFound>DealNotFound`, ``},
	{"5.10", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024, func(m *pair) {
			m.p.Config = func(c *retrievalimpl.ProviderConfig) {
				c.Decide = func(context.Context, rm.ProviderDealState) (bool, string, error) {
					return false, "", errors.New("the decider is ill")
				}
			}
		})
		m.retrieve()
		require.Equal(t, rm.DealStatusErrored, m.tc.ended(t))
		// The cause is the provider's alone, and its log explains the reference.
		require.Regexp(t, `^Unexpected deal response status: DealStatusErrored: failed to begin the deal: .* \(unknown, reference [A-Z2-7]{8}\)$`, m.tc.text)
		return m
	}, proposed + `UnknownResponseReceived>` + fails, ``},
	{"5.11", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024)
		reached, open := m.gate(6)
		id := m.retrieve()
		<-reached
		m.tc.saw(t, "LaneAllocated>Ongoing")
		require.NoError(t, m.c.Client.CancelDeal(id))
		defer open()
		return closing(t, m, rm.DealStatusCancelled, rm.DealStatusCancelled)
	}, accepted + created + `Cancel>` + cancels, opens + `ClientCancelled>` + cancels},
	{"5.12", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024)
		reached, open := m.gate(6)
		id := m.retrieve()
		<-reached
		m.tc.saw(t, "LaneAllocated>Ongoing")
		require.NoError(t, m.p.Provider.CancelDeal(rm.ProviderDealIdentifier{Receiver: m.c.Host.ID(), DealID: id}))
		defer open()
		closing(t, m, rm.DealStatusCancelled, rm.DealStatusCancelled)
		require.Equal(t, "Provider cancelled retrieval", m.tp.text)
		return m
	}, accepted + created + `ProviderCancelled>` + cancels, opens + `ClientCancelled>(Cancelling ClientCancelled>)?` + cancels}, // it hears of its own close too
	{"5.13", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 7, 4096, 0), 10, 1024, func(m *pair) {
			m.p.Config = func(c *retrievalimpl.ProviderConfig) { c.Pieces = sealed{m.p} }
		})
		m.retrieve()
		closing(t, m, rm.DealStatusCancelled, rm.DealStatusErrored)
		require.Contains(t, m.tp.text, "unseal price 7 was paid")
		require.Contains(t, m.tc.text, "unseal price 7 was paid")
		return m
	}, unsealed + created + paysUp + `ProviderCancelled>` + cancels, sells + `UnsealError>Failing ((DealAccepted|ClientCancelled)>Failing )*CancelComplete>Errored`}, // told beside it
	{"5.14", func(t *testing.T) *pair {
		m := newPair(t, terms(2, 0, 4096, 0), 10, 1024, func(m *pair) { m.bank.Forge(true) })
		m.retrieve()
		closing(t, m, rm.DealStatusErrored, rm.DealStatusErrored)
		require.Contains(t, m.tc.text, "signature")
		return m
	}, accepted + created + pays + pays + asked + `(PaymentSent>Ongoing )?(PaymentRequested>FundsNeeded )?UnknownResponseReceived>` + fails, opens + `PaymentRequested>FundsNeeded SaveVoucherFailed>Failing (DataTransferError>Failing )?CancelComplete>Errored`},
}

// sealed cannot be unsealed.
type sealed struct{ *testmarket.Peer }

func (sealed) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) {
	return nil, errors.New("no sectors found to unseal from")
}

// TestSequences are the end-to-end sequences of section 5, by number.
func TestSequences(t *testing.T) { testutil.EachTransport(t, eachSequence) }

func eachSequence(t *testing.T) {
	for _, s := range sequences {
		t.Run(s.name, func(t *testing.T) {
			m := s.run(t)
			assert.Regexp(t, regexp.MustCompile(`^(`+s.c+`)$`), ordered(m.tc.String(), recorded), "client")
			assert.Regexp(t, regexp.MustCompile(`^(`+s.p+`)$`), ordered(m.tp.String(), repeated), "provider")
		})
	}
}
