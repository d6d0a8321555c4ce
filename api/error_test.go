package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
)

// TestErrorOf: an error of any package becomes one with reason, code, side and next step, and stays so over RPC.
func TestErrorOf(t *testing.T) {
	require.Nil(t, ErrorOf(nil))
	err := fmt.Errorf("order o3: %w", reason.BudgetUsed.Errorf("5 of 5 attoFIL are spent"))
	e := ErrorOf(err)
	require.Equal(t, &Error{Code: CodeFunds, Reason: "budget-used", Message: "order o3: 5 of 5 attoFIL are spent", Hint: reason.BudgetUsed.Next(), Blame: "nobody"}, e)

	raw, merr := json.Marshal(e)
	require.NoError(t, merr)
	var back Error
	require.NoError(t, json.Unmarshal(raw, &back))
	require.Equal(t, *e, back)
	require.ErrorIs(t, &back, reason.BudgetUsed)
	require.Equal(t, reason.BudgetUsed, reason.From(fmt.Errorf("over RPC: %w", &back)))
	require.Equal(t, reason.Unknown, reason.From(Errorf(CodeOther, "", "budget-used")), "a text is no reason")

	require.Equal(t, CodeOther, CodeOf(errors.New("context canceled")))
	require.Zero(t, CodeOf(nil))
	require.Len(t, Reasons(), len(reasonNames()))
}

// reasonNames are the names alone.
func reasonNames() (out []string) {
	for r := range reason.All() {
		out = append(out, r.String())
	}
	return out
}
