package node

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/node/tokens"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Tokens answers what concerns the tokens of a node.
type Tokens struct{ n *Node }

// TokenCreate answers Cartage.TokenCreate. The secret is in this answer and nowhere else.
func (s Tokens) TokenCreate(ctx context.Context, r api.TokenRequest) (*api.Token, error) {
	t := tokens.Token{Name: r.Name}
	for _, name := range r.Perms {
		p, ok := tokens.ParsePerm(name)
		if !ok {
			return nil, reason.Usage.Errorf("%q is no permission", name).WithHint("Say read, pay, provide or admin.")
		}
		t.Perm |= p
	}
	switch r.Period {
	case "":
	case tokens.Day.String():
		t.Period = tokens.Day
	case tokens.Month.String():
		t.Period = tokens.Month
	default:
		return nil, reason.Usage.Errorf("%q is no period", r.Period).WithHint("Say day or month, or leave it out.")
	}
	if r.Budget != "" {
		b, err := big.FromString(r.Budget)
		if err != nil || b.Sign() < 0 {
			return nil, reason.Usage.Errorf("budget %q is not an amount in attoFIL", r.Budget)
		}
		t.Budget = &b
	}
	if r.Expires != "" {
		at, err := time.Parse(time.RFC3339, r.Expires)
		if err != nil {
			return nil, reason.Usage.Errorf("expires: %w", err).WithHint("Write it as 2027-01-31T00:00:00Z.")
		}
		t.Expires = at.UTC().Truncate(time.Second)
	}
	t, secret, err := s.n.tokens.Create(ctx, t, time.Now())
	if err != nil {
		return nil, err
	}
	out, err := s.shown(ctx, t)
	if err == nil {
		out.Secret = secret
	}
	return out, err
}

// TokenList answers Cartage.TokenList.
func (s Tokens) TokenList(ctx context.Context) ([]api.Token, error) {
	out := []api.Token{}
	for _, t := range s.n.tokens.List() {
		shown, err := s.shown(ctx, t)
		if err != nil {
			return nil, err
		}
		out = append(out, *shown)
	}
	return out, nil
}

// TokenRevoke answers Cartage.TokenRevoke: the token opens nothing any more, and what it ordered is parked.
func (s Tokens) TokenRevoke(ctx context.Context, name string) (*api.Token, error) {
	t, err := s.n.tokens.Revoke(ctx, name)
	if err != nil {
		return nil, err
	}
	all, err := s.n.orders.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.Token != t.ID || o.State.Final() || o.State == download.Parked {
			continue
		}
		if _, perr := s.n.orders.Park(ctx, o.ID, reason.ParkedAsked); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	if err != nil {
		return nil, err
	}
	return s.shown(ctx, t)
}

func (s Tokens) shown(ctx context.Context, t tokens.Token) (*api.Token, error) {
	out := &api.Token{ID: t.ID, Name: t.Name, Perms: strings.Split(t.Perm.String(), ","), Period: t.Period.String(), Created: t.Created.Format(time.RFC3339), State: "valid"}
	if !t.Expires.IsZero() {
		out.Expires = t.Expires.Format(time.RFC3339)
	}
	switch err := t.Valid(time.Now()); {
	case t.Revoked:
		out.State = "revoked"
	case err != nil:
		out.State = "expired"
	}
	if t.Budget != nil {
		used, err := s.n.orders.Used(ctx, t.ID, t.Period.Since(time.Now()), 0)
		if err != nil {
			return nil, err
		}
		out.Budget, out.Used = t.Budget.String(), used.String()
	}
	return out, nil
}

// allowance is the budget of a token, for its orders since a time.
func (s Tokens) allowance(id string) (download.Allowance, error) {
	t, ok := s.n.tokens.Get(id)
	if !ok {
		return download.Allowance{}, tokens.ErrUnknown
	}
	a := download.Allowance{Since: t.Period.Since(time.Now()), Budget: big.Zero()}
	if t.Budget != nil {
		a.Budget = *t.Budget
	}
	return a, t.Valid(time.Now())
}

// tokenOf is the token that an order is charged to; empty for an admin, and for who runs the node in this process.
func tokenOf(ctx context.Context) string {
	c, ok := tokens.CallerOf(ctx)
	if !ok || c.Perm.Covers(tokens.Admin) {
		return ""
	}
	return c.ID
}

// mayTouch refuses to one token the orders of another.
func mayTouch(ctx context.Context, o download.Order) error {
	if token := tokenOf(ctx); token != "" && token != o.Token {
		return reason.TokenPermission.Errorf("order %s is not of this token", o.ID)
	}
	return nil
}
