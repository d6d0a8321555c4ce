package node

import (
	"context"
	"sync/atomic"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/dashboard"
	"github.com/cartage-dev/cartage/internal/node/tokens"
	"github.com/cartage-dev/cartage/internal/reason"
)

// entrance answers how people get to the dashboard. It is safe for concurrent use.
type entrance struct{ at atomic.Pointer[openEntrance] }

type openEntrance struct {
	site  string
	code  func(*dashboard.Guest) string
	doors *doors
}

// open says where the dashboard is and who gives codes for it.
func (e *entrance) open(site string, code func(*dashboard.Guest) string, d *doors) {
	e.at.Store(&openEntrance{site, code, d})
}

// DashboardCode answers Cartage.DashboardCode: the page permits what the token of the call permits.
func (e *entrance) DashboardCode(ctx context.Context) (*api.DashboardCode, error) {
	at := e.at.Load()
	if at == nil {
		return nil, reason.DaemonAway.Errorf("this process serves no dashboard")
	}
	caller, _ := tokens.CallerOf(ctx)
	return &api.DashboardCode{Site: at.site, URL: at.site + "/sign-in?code=" + at.code(at.doors.guestOf(caller)), Seconds: dashboard.CodeLife.Seconds()}, nil
}

// guest is who a token lets into the dashboard.
func (d *doors) guest(ctx context.Context, token string) (*dashboard.Guest, error) {
	ctx, err := d.enter(ctx, token)
	if err != nil {
		return nil, err
	}
	caller, _ := tokens.CallerOf(ctx)
	return d.guestOf(caller), nil
}

func (d *doors) guestOf(c tokens.Caller) *dashboard.Guest {
	return &dashboard.Guest{Pay: c.Perm.Covers(tokens.Pay), Provide: c.Perm.Covers(tokens.Provide), Admin: c.Perm.Covers(tokens.Admin),
		Enter: func(ctx context.Context) (context.Context, error) {
			if err := d.still(c); err != nil {
				return nil, err
			}
			return tokens.With(ctx, c), nil
		}}
}
