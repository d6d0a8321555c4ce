package dashboard

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/money"
)

// peerRows are the peers of all deals, those with a debt and with most bytes first.
func (d *Dashboard) peerRows(r *http.Request) ([]*peerRow, error) {
	deals, err := d.cfg.API.Deals(r.Context())
	if err != nil {
		return nil, err
	}
	debts, err := d.cfg.API.PeerDebts(r.Context())
	if err != nil {
		return nil, err
	}
	by := map[string]*peerRow{}
	row := func(peer string) *peerRow {
		if by[peer] == nil {
			by[peer] = &peerRow{Peer: peer, Owed: "0", Vouchered: "0"}
		}
		return by[peer]
	}
	for _, v := range deals {
		p := row(v.Peer)
		p.Deals++
		p.Bytes += v.Bytes
		p.Owed, p.Vouchered = sum(p.Owed, v.Owed), sum(p.Vouchered, v.Vouchered)
		switch {
		case !v.Final:
			p.Open++
		case v.Blame == "ours":
			p.Ours++
		case v.Blame == "theirs":
			p.Theirs++
		case v.Blame == "network":
			p.Network++
		case v.Status == "Completed":
			p.Well++
		}
	}
	for _, debt := range debts {
		row(debt.Peer).Debt = &debt
	}
	out := make([]*peerRow, 0, len(by))
	for _, p := range by {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *peerRow) int {
		return cmp.Or(cmp.Compare(bit(b.Debt != nil), bit(a.Debt != nil)), cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Peer, b.Peer))
	})
	return out, nil
}

// sum adds two amounts; what is no amount adds nothing.
func sum(a, b string) string {
	x, err := big.FromString(a)
	if err != nil {
		return b
	}
	y, err := big.FromString(b)
	if err != nil {
		return a
	}
	return big.Add(x, y).String()
}

type piecesPage struct {
	frame
	Rows  []api.Piece
	Total int
	Bytes uint64
	Next  string
	Ask   *api.Ask
	GiB   string // what a GiB costs
}

func (d *Dashboard) pieces(w http.ResponseWriter, r *http.Request, s *session) error {
	list, err := d.cfg.API.Pieces(r.Context())
	if err != nil {
		return err
	}
	t := table{columns: []string{"root", "piece_cid", "bytes", "blocks", "state", "missing", "path"}, values: list}
	for _, v := range list {
		t.rows = append(t.rows, []string{v.Root, v.PieceCID, strconv.FormatUint(v.Bytes, 10), strconv.FormatUint(v.Blocks, 10), v.State, strconv.FormatUint(v.Missing, 10), v.Path})
	}
	if t.sent(w, r) {
		return nil
	}
	p := piecesPage{Total: len(list)}
	for _, v := range list {
		p.Bytes += v.Bytes
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	from = max(0, min(from, len(list)))
	p.Rows = list[from:min(len(list), from+rowsPerPage)]
	if from+rowsPerPage < len(list) {
		p.Next = "from=" + strconv.Itoa(from+rowsPerPage)
	}
	if p.Ask, p.GiB, err = d.askAndGiB(r); err != nil {
		return err
	}
	if p.frame, err = d.frameOf(r, s, "pieces", "Pieces"); err != nil {
		return err
	}
	d.render(w, "pieces", p)
	return nil
}

// askAndGiB is what is asked, and what a GiB costs with it in attoFIL.
func (d *Dashboard) askAndGiB(r *http.Request) (*api.Ask, string, error) {
	a, err := d.cfg.API.Ask(r.Context())
	if err != nil {
		return nil, "", err
	}
	price, err := big.FromString(a.PricePerByte)
	if err != nil {
		return nil, "", err
	}
	return a, sum(big.Mul(price, big.NewInt(1<<30)).String(), a.UnsealPrice), nil
}

type settingsPage struct {
	frame
	Ask     *api.Ask
	GiB     string
	Limits  []api.Limit
	Config  []api.ConfigKey
	Version *api.Version
}

func (d *Dashboard) settings(w http.ResponseWriter, r *http.Request, s *session) error {
	var p settingsPage
	var err error
	if p.Limits, err = d.cfg.API.Limits(r.Context()); err != nil {
		return err
	}
	if (table{values: p.Limits}).sent(w, r) {
		return nil
	}
	if p.Ask, p.GiB, err = d.askAndGiB(r); err != nil {
		return err
	}
	if p.Config, err = d.cfg.API.ConfigShow(r.Context()); err != nil {
		return err
	}
	if p.Version, err = d.cfg.API.Version(r.Context()); err != nil {
		return err
	}
	if p.frame, err = d.frameOf(r, s, "settings", "Settings"); err != nil {
		return err
	}
	d.render(w, "settings", p)
	return nil
}

// setAsk changes what is asked. A price is attoFIL a byte, or an amount for so many bytes, such as 0.01FIL/GiB.
func (d *Dashboard) setAsk(w http.ResponseWriter, r *http.Request, s *session) error {
	a, err := d.cfg.API.Ask(r.Context())
	if err != nil {
		return err
	}
	next := *a
	price := strings.TrimSpace(r.PostForm.Get("price"))
	if _, err := big.FromString(price); err == nil {
		next.PricePerByte = price
	} else if p, err := money.ParsePrice(price); err != nil {
		s.note("The ask is as it was: " + err.Error())
		http.Redirect(w, r, "/settings", http.StatusSeeOther)
		return nil
	} else {
		per, _ := p.PerByte()
		next.PricePerByte = per.Units.String()
	}
	if n, err := strconv.ParseUint(r.PostForm.Get("interval"), 10, 64); err == nil {
		next.PaymentInterval = n
	}
	_, err = d.cfg.API.SetAsk(r.Context(), next)
	s.noteOutcome("the ask", "set to "+next.PricePerByte+" attoFIL a byte", err)
	http.Redirect(w, r, "/settings", http.StatusSeeOther)
	return nil
}

func (d *Dashboard) reload(w http.ResponseWriter, r *http.Request, s *session) error {
	change, err := d.cfg.API.ConfigReload(r.Context())
	if err == nil && len(change.Restart) > 0 {
		s.note("Reloaded. These wait for the next start: " + strings.Join(change.Restart, ", "))
	} else {
		s.noteOutcome("the configuration", "reloaded", err)
	}
	http.Redirect(w, r, "/settings", http.StatusSeeOther)
	return nil
}

// search goes to what a text names: a deal, an order, a channel, a peer.
func (d *Dashboard) search(w http.ResponseWriter, r *http.Request, s *session) error {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	if p, err := d.findDeal(r.Context(), q); err == nil && (p.Deal != nil || p.Order != nil) {
		http.Redirect(w, r, "/deals/"+url.PathEscape(q), http.StatusSeeOther)
		return nil
	}
	list, err := d.allDeals(r.Context())
	if err != nil {
		return err
	}
	p := dealsPage{Rows: nil}
	for _, v := range list {
		if q != "" && (v.Peer == q || v.Root == q) && len(p.Rows) < rowsPerPage {
			p.Rows = append(p.Rows, v)
		}
	}
	p.Total = len(p.Rows)
	if p.frame, err = d.frameOf(r, s, "deals", "Search"); err != nil {
		return err
	}
	p.Query = q
	d.render(w, "deals", p)
	return nil
}
