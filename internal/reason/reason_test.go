package reason

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"regexp"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTableComplete: each reason has a name of its own, a sentence, a next step and a known exit code, and reads back by both.
func TestTableComplete(t *testing.T) {
	exits := map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 9: true, 130: true}
	word := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]Reason{}
	for r := range All() {
		require.Regexp(t, word, r.String(), "reason %d", r)
		require.NotContains(t, seen, r.String())
		seen[r.String()] = r
		require.NotEmpty(t, r.Error(), r.String())
		require.True(t, r == AlreadyComplete || r.Next() != "", "%s says no next step", r)
		require.True(t, exits[r.Exit()], "%s exits with %d", r, r.Exit())
		back, ok := Parse(r.String())
		require.True(t, ok)
		require.Equal(t, r, back)
		require.Equal(t, r, FromNumber(r.Number()))
	}
	require.Len(t, seen, int(count)-1)
	require.Len(t, seen, len(constants(t))-1, "a constant without a row")
}

// constants are the names of the reasons as the source declares them, so that none is left out by a slip of count.
func constants(t *testing.T) (out []string) {
	f, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	require.NoError(t, err)
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST || g.Specs[0].(*ast.ValueSpec).Names[0].Name != "None" {
			continue
		}
		for _, s := range g.Specs {
			if n := s.(*ast.ValueSpec).Names[0]; n.IsExported() {
				out = append(out, n.Name)
			}
		}
	}
	return out
}

// TestListOfOperations: exit code and side at fault are those of the operations text, section 6. Its "user" and "price" are
// nobody's fault.
func TestListOfOperations(t *testing.T) {
	for _, group := range []struct {
		exit  int
		blame Blame
		names []string
	}{
		{2, Nobody, []string{"usage", "config-unknown-key", "config-value"}},
		{3, Nobody, []string{"daemon-away"}},
		{1, Nobody, []string{"home-busy", "home-newer", "port-busy"}},
		{4, Nobody, []string{"token-missing", "token-unknown", "token-expired", "token-permission"}},
		{6, Nobody, []string{"token-budget"}},
		{5, Nobody, []string{"no-provider", "no-offer", "root-unknown", "path-unknown", "range-outside", "not-a-file"}},
		{3, Network, []string{"peer-unreachable"}},
		{9, Network, []string{"peer-silent"}},
		{3, Theirs, []string{"peer-not-provider"}},
		{7, Theirs, []string{"transport-missing"}},
		{6, Nobody, []string{"price-above", "budget-used", "wallet-short", "day-budget"}},
		{7, Nobody, []string{"exposure-above"}},
		{7, Theirs, []string{"price-below-ask", "peer-limit", "node-limit", "peer-debt", "piece-unavailable"}},
		{8, Theirs, []string{"hash-mismatch", "block-unexpected"}},
		{7, Theirs, []string{"bad-voucher", "overasked", "dag-too-deep", "too-many-links"}},
		{1, Ours, []string{"piece-damaged", "piece-missing", "disk-full", "disk-reserve", "memory-limit", "store-failed"}},
		{3, Network, []string{"ledger-away"}},
		{1, Ours, []string{"ledger-refused", "channel-lost"}},
		{7, Ours, []string{"channel-settling"}},
		{9, Theirs, []string{"accept-late", "voucher-late", "client-left", "idle", "lifetime"}},
		{9, Nobody, []string{"parked-stall"}},
		{0, Nobody, []string{"parked-lease", "parked-restart", "cancelled"}},
		{130, Nobody, []string{"interrupted"}},
		{1, Nobody, []string{"output-exists", "output-busy"}},
		{0, Nobody, []string{"already-complete"}},
	} {
		for _, name := range group.names {
			r, ok := Parse(name)
			require.True(t, ok, name)
			require.Equal(t, group.exit, r.Exit(), name)
			require.Equal(t, group.blame, r.Blame(), name)
		}
	}
}

// TestNumbersStay: the numbers are in records. A reason that moved reads old records wrongly.
func TestNumbersStay(t *testing.T) {
	for r, n := range map[Reason]uint64{None: 0, Unknown: 1, Usage: 2, NoProvider: 14, PeerUnreachable: 20, PriceAbove: 24, PriceBelowAsk: 29, HashMismatch: 34,
		PieceDamaged: 40, LedgerAway: 46, AcceptLate: 50, ParkedStall: 55, AlreadyComplete: 62, PeerRefused: 63, PeerClaims: 72} {
		require.Equal(t, n, r.Number(), r.String())
	}
	require.Equal(t, Unknown, FromNumber(1<<40))
	require.Equal(t, "unknown", Reason(9999).String())
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("deal 3: %w", BudgetUsed.Errorf("%d of %d are spent: %w", 5, 5, io.ErrUnexpectedEOF).WithHint("Raise it."))
	require.ErrorIs(t, err, BudgetUsed)
	require.NotErrorIs(t, err, PriceAbove)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualError(t, err, "deal 3: 5 of 5 are spent: unexpected EOF")
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "Raise it.", e.Hint)
	require.Equal(t, BudgetUsed, From(err))
	require.NoError(t, StoreFailed.Wrap(nil))
	require.Equal(t, StoreFailed, From(StoreFailed.Wrap(io.EOF)))
	require.Equal(t, PeerDebt, From(fmt.Errorf("x: %w", PeerDebt)))
	require.ErrorIs(t, fmt.Errorf("x: %w", PeerDebt), PeerDebt)

	remote := (&Error{Reason: PieceDamaged}).FromPeer("no such file")
	require.Equal(t, Theirs, BlameOf(remote), "a damaged piece of the provider is the provider's fault")
	require.Equal(t, Ours, BlameOf(PieceDamaged))
	require.Equal(t, PieceDamaged.Error(), remote.Error(), "words of a peer are not the sentence")
}

// TestFromReadsNoText: the system's errors have reasons by value; the same words in an error of its own have none.
func TestFromReadsNoText(t *testing.T) {
	_, denied := os.Open("/proc/1/mem")
	for err, want := range map[error]Reason{
		nil: None, context.Canceled: Interrupted, context.DeadlineExceeded: TimedOut, &os.PathError{Err: syscall.ENOSPC}: DiskFull,
		&os.SyscallError{Err: syscall.ECONNREFUSED}: PeerUnreachable, &os.PathError{Err: syscall.EACCES}: FilePermission,
		errors.New("context canceled"): Unknown, errors.New("budget-used"): Unknown, errors.New("no space left on device"): Unknown,
	} {
		require.Equal(t, want, From(err), "%v", err)
	}
	if os.Geteuid() != 0 {
		require.Equal(t, FilePermission, From(denied))
	}
}

func TestNamesOnTheWire(t *testing.T) {
	out, err := json.Marshal(map[string]Reason{"reason": PeerSilent})
	require.NoError(t, err)
	require.JSONEq(t, `{"reason":"peer-silent"}`, string(out))
	var in struct{ A, B, C Reason }
	require.NoError(t, json.Unmarshal([]byte(`{"A":"peer-silent","B":"of-next-year","C":""}`), &in))
	require.Equal(t, PeerSilent, in.A)
	require.Equal(t, Unknown, in.B)
	require.Equal(t, None, in.C)
}
