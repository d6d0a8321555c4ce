package download

import (
	"context"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Allowance is what the orders of a token may cost together.
type Allowance struct {
	Budget abi.TokenAmount
	Since  time.Time // orders that ended before do not count
}

// Used is what counts against the budget of a token: what its orders have spent that ended since a time, and the budgets of those that have not
// ended. It is computed from the records of the orders, each of which has its budget before anything is paid for it: no crash makes it less. The
// order except is left out.
func (s *Orders) Used(ctx context.Context, token string, since time.Time, except ID) (abi.TokenAmount, error) {
	sum := big.Zero()
	all, err := s.List(ctx)
	if err != nil {
		return sum, err
	}
	for _, o := range all {
		if o.Token != token || o.ID == except || o.State.Final() && o.Changed.Before(since) {
			continue
		}
		spent, err := s.cfg.Market.Spent(ctx, o.Deals)
		if err != nil {
			return sum, err
		}
		if !o.State.Final() && o.Budget != nil {
			spent = big.Max(spent, *o.Budget)
		}
		sum = big.Add(sum, spent)
	}
	return sum, nil
}

// affords refuses a budget that the token of an order does not have any more. The caller holds placing: two orders do not take the same rest.
func (s *Orders) affords(ctx context.Context, token string, id ID, budget *abi.TokenAmount) error {
	if token == "" || s.cfg.Allowance == nil {
		return nil
	}
	a, err := s.cfg.Allowance(token)
	if err != nil || budget == nil || budget.Sign() == 0 {
		return err
	}
	used, err := s.Used(ctx, token, a.Since, id)
	if err != nil {
		return err
	}
	if left := big.Max(big.Zero(), big.Sub(a.Budget, used)); budget.GreaterThan(left) {
		return reason.TokenBudget.Errorf("the token has %s of its %s attoFIL left, and the order may cost %s", left, a.Budget, budget)
	}
	return nil
}
