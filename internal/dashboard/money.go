package dashboard

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
)

type moneyPage struct {
	frame
	Earnings *api.Earnings
	Earned   chart
	Channels []api.PayChannel
	Spending *api.Spending
	Debts    []api.Debt
}

func (d *Dashboard) money(w http.ResponseWriter, r *http.Request, s *session) error {
	var p moneyPage
	var err error
	if p.Earnings, err = d.cfg.API.Earnings(r.Context()); err != nil {
		return err
	}
	if p.Channels, err = d.cfg.API.PayChannels(r.Context()); err != nil {
		return err
	}
	t := table{columns: []string{"channel", "direction", "from", "to", "deposit", "vouchered", "redeemed", "settling_at", "unknown"}, values: p.Channels}
	for _, c := range p.Channels {
		t.rows = append(t.rows, []string{c.Channel, c.Direction, c.From, c.To, c.Deposit, c.Vouchered, c.Redeemed, strconv.FormatInt(c.SettlingAt, 10), c.Unknown})
	}
	if t.sent(w, r) {
		return nil
	}
	if p.Spending, err = d.cfg.API.Spending(r.Context()); err != nil {
		return err
	}
	if p.Debts, err = d.cfg.API.PeerDebts(r.Context()); err != nil {
		return err
	}
	p.Earned = earnedChart(p.Earnings.Days, d.cfg.Now())
	if p.frame, err = d.frameOf(r, s, "money", "Money"); err != nil {
		return err
	}
	d.render(w, "money", p)
	return nil
}

type channelPage struct {
	frame
	Channel  api.PayChannel
	Plan     *api.PayChPlan
	PlanLack string // why there is no plan
	Vouchers []api.Voucher
}

func (d *Dashboard) findChannel(r *http.Request) (api.PayChannel, error) {
	list, err := d.cfg.API.PayChannels(r.Context())
	if err != nil {
		return api.PayChannel{}, err
	}
	for _, c := range list {
		if c.Channel == r.PathValue("channel") {
			return c, nil
		}
	}
	return api.PayChannel{}, reason.IDUnknown.Errorf("no payment channel %q", r.PathValue("channel"))
}

// channel shows a payment channel and what redeeming, settling and collecting it would do now.
func (d *Dashboard) channel(w http.ResponseWriter, r *http.Request, s *session) error {
	c, err := d.findChannel(r)
	if err != nil {
		return err
	}
	p := channelPage{Channel: c}
	if p.Plan, err = d.cfg.API.PayChPlan(r.Context(), c.Channel); err != nil {
		p.PlanLack = err.Error()
	}
	if p.Vouchers, err = d.cfg.API.PayChVouchers(r.Context(), c.Channel); err != nil {
		return err
	}
	if p.frame, err = d.frameOf(r, s, "money", c.Channel); err != nil {
		return err
	}
	d.render(w, "channel", p)
	return nil
}

func (d *Dashboard) redeem(w http.ResponseWriter, r *http.Request, s *session) error {
	return d.changeChannel(w, r, s, "redeemed", d.cfg.API.RedeemPayCh)
}

func (d *Dashboard) settle(w http.ResponseWriter, r *http.Request, s *session) error {
	return d.changeChannel(w, r, s, "settled", d.cfg.API.SettlePayCh)
}

func (d *Dashboard) collect(w http.ResponseWriter, r *http.Request, s *session) error {
	return d.changeChannel(w, r, s, "collected", d.cfg.API.CollectPayCh)
}

func (d *Dashboard) changeChannel(w http.ResponseWriter, r *http.Request, s *session, outcome string, change func(ctx context.Context, ch string) error) error {
	c, err := d.findChannel(r)
	if err != nil {
		return err
	}
	s.noteOutcome(c.Channel, outcome, change(r.Context(), c.Channel))
	http.Redirect(w, r, "/money/"+url.PathEscape(c.Channel), http.StatusSeeOther)
	return nil
}

// peerRow sums up what a peer did here.
type peerRow struct {
	Peer                        string
	Deals, Open                 int
	Bytes                       uint64
	Owed, Vouchered             string
	Debt                        *api.Debt
	Ours, Theirs, Network, Well int
}

type peersPage struct {
	frame
	Rows  []*peerRow
	Total int
}

func (d *Dashboard) peers(w http.ResponseWriter, r *http.Request, s *session) error {
	rows, err := d.peerRows(r)
	if err != nil {
		return err
	}
	t := table{columns: []string{"peer", "deals", "open", "bytes", "owed", "vouchered", "well", "ours", "theirs", "network"}, values: rows}
	for _, v := range rows {
		t.rows = append(t.rows, []string{v.Peer, strconv.Itoa(v.Deals), strconv.Itoa(v.Open), strconv.FormatUint(v.Bytes, 10), v.Owed, v.Vouchered,
			strconv.Itoa(v.Well), strconv.Itoa(v.Ours), strconv.Itoa(v.Theirs), strconv.Itoa(v.Network)})
	}
	if t.sent(w, r) {
		return nil
	}
	p := peersPage{Total: len(rows), Rows: rows[:min(len(rows), rowsPerPage)]}
	if p.frame, err = d.frameOf(r, s, "peers", "Peers"); err != nil {
		return err
	}
	d.render(w, "peers", p)
	return nil
}

func (d *Dashboard) forgive(w http.ResponseWriter, r *http.Request, s *session) error {
	n, err := d.cfg.API.ForgivePeer(r.Context(), r.PathValue("peer"))
	s.noteOutcome(r.PathValue("peer"), "forgiven ("+strconv.Itoa(n)+" debts)", err)
	http.Redirect(w, r, "/peers", http.StatusSeeOther)
	return nil
}
