package dashboard

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
)

// rowsPerPage is how many rows a list has on a page.
const rowsPerPage = 50

// dealRow is a deal or an order in the list.
type dealRow struct {
	ID, Role, Peer, Root, State, Why, Blame string
	Bytes                                   uint64
	Owed, Vouchered                         string
	Open                                    bool
	IsOrder                                 bool
}

type dealsPage struct {
	frame
	Rows        []dealRow
	Total       int
	Next        string // the query of the next page
	Role, State string
	Peer        string
	Self        string // the query of this page, without a format
}

// allDeals are the orders and the deals of both sides, the newest first.
func (d *Dashboard) allDeals(ctx context.Context) (out []dealRow, err error) {
	orders, err := d.cfg.API.Orders(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range orders {
		out = append(out, dealRow{ID: o.ID, Role: "order", Peer: o.Provider, Root: o.Root, State: o.State, Why: o.Reason, Blame: o.Blame, Bytes: o.Bytes, Owed: o.Spent, Vouchered: o.Spent,
			Open: o.State == "running" || o.State == "waiting" || o.State == "parked", IsOrder: true})
	}
	deals, err := d.cfg.API.Deals(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range deals {
		out = append(out, rowOf(v))
	}
	slices.SortStableFunc(out, func(a, b dealRow) int {
		if a.Open != b.Open {
			return cmp.Compare(bit(b.Open), bit(a.Open))
		}
		return cmp.Compare(number(b.ID), number(a.ID))
	})
	return out, nil
}

func rowOf(v api.Deal) dealRow {
	return dealRow{ID: v.ID, Role: v.Role, Peer: v.Peer, Root: v.Root, State: v.Status, Why: v.Reason, Blame: v.Blame, Bytes: v.Bytes, Owed: v.Owed, Vouchered: v.Vouchered, Open: !v.Final}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// number is the number of an id such as c31 or pPEER/1041.
func number(id string) uint64 {
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		id = id[i+1:]
	}
	n, _ := strconv.ParseUint(strings.TrimLeft(id, "abcdefghijklmnopqrstuvwxyz"), 10, 64)
	return n
}

func (d *Dashboard) deals(w http.ResponseWriter, r *http.Request, s *session) error {
	list, err := d.allDeals(r.Context())
	if err != nil {
		return err
	}
	q := r.URL.Query()
	p := dealsPage{Role: q.Get("role"), State: q.Get("state"), Peer: q.Get("peer")}
	list = slices.DeleteFunc(list, func(v dealRow) bool {
		return p.Role != "" && v.Role != p.Role || p.State == "open" && !v.Open || p.State == "ended" && v.Open || p.State == "parked" && v.State != "parked" ||
			p.State == "failed" && (v.Open || v.Blame == "") || p.Peer != "" && v.Peer != p.Peer
	})
	t := table{columns: []string{"id", "role", "peer", "root", "state", "reason", "fault", "bytes", "owed", "vouchered"}, values: list}
	for _, v := range list {
		t.rows = append(t.rows, []string{v.ID, v.Role, v.Peer, v.Root, v.State, v.Why, v.Blame, strconv.FormatUint(v.Bytes, 10), v.Owed, v.Vouchered})
	}
	if t.sent(w, r) {
		return nil
	}
	p.Total = len(list)
	from := 0
	if i := slices.IndexFunc(list, func(v dealRow) bool { return v.ID == q.Get("after") }); i >= 0 {
		from = i + 1
	}
	p.Rows = list[from:min(len(list), from+rowsPerPage)]
	q.Del("format")
	p.Self = q.Encode()
	if from+rowsPerPage < len(list) {
		next := url.Values{}
		for k, v := range q {
			next[k] = v
		}
		next.Set("after", list[from+rowsPerPage-1].ID)
		p.Next = next.Encode()
	}
	if p.frame, err = d.frameOf(r, s, "deals", "Deals"); err != nil {
		return err
	}
	d.render(w, "deals", p)
	return nil
}

type dealPage struct {
	frame
	Deal  *api.Deal
	Order *api.Order
	Deals []dealRow // of the order
	Can   []string  // what can be done with it
}

// findDeal is a deal or an order by its id.
func (d *Dashboard) findDeal(ctx context.Context, id string) (p dealPage, err error) {
	orders, err := d.cfg.API.Orders(ctx)
	if err != nil {
		return p, err
	}
	deals, err := d.cfg.API.Deals(ctx)
	if err != nil {
		return p, err
	}
	for _, o := range orders {
		if o.ID != id {
			continue
		}
		p.Order = &o
		for _, v := range deals {
			if slices.Contains(o.Deals, v.ID) {
				p.Deals = append(p.Deals, rowOf(v))
			}
		}
		switch o.State {
		case "running", "waiting":
			p.Can = []string{"park", "cancel"}
		case "parked":
			p.Can = []string{"resume", "cancel"}
		}
		return p, nil
	}
	for _, v := range deals {
		if v.ID == id {
			p.Deal = &v
			if !v.Final {
				p.Can = []string{"cancel"}
			}
			return p, nil
		}
	}
	return p, reason.IDUnknown.Errorf("no deal or order %q", id)
}

func (d *Dashboard) deal(w http.ResponseWriter, r *http.Request, s *session) error {
	p, err := d.findDeal(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	switch {
	case r.URL.Query().Get("format") == "json" && p.Order != nil:
		table{values: p.Order}.sent(w, r)
		return nil
	case r.URL.Query().Get("format") == "json":
		table{values: p.Deal}.sent(w, r)
		return nil
	}
	if p.frame, err = d.frameOf(r, s, "deals", r.PathValue("id")); err != nil {
		return err
	}
	d.render(w, "deal", p)
	return nil
}

func (d *Dashboard) changeDeal(w http.ResponseWriter, r *http.Request, s *session) error {
	id, action := r.PathValue("id"), r.PathValue("action")
	if past[action] == "" {
		http.NotFound(w, r)
		return nil
	}
	p, err := d.findDeal(r.Context(), id)
	if err != nil {
		return err
	}
	if p.Deal != nil && !s.guest.Admin { // a deal of either side; an order is of who pays
		return errNotPermitted
	}
	if !slices.Contains(p.Can, action) {
		s.note(id + " cannot be " + past[action] + ": it has changed meanwhile.")
		http.Redirect(w, r, "/deals/"+url.PathEscape(id), http.StatusSeeOther)
		return nil
	}
	switch {
	case p.Deal != nil:
		err = d.cfg.API.CancelDeal(r.Context(), id)
	case action == "park":
		_, err = d.cfg.API.OrderPark(r.Context(), id)
	case action == "resume":
		_, err = d.cfg.API.OrderResume(r.Context(), api.OrderResume{ID: id, Budget: strings.TrimSpace(r.PostForm.Get("budget"))})
	default:
		_, err = d.cfg.API.OrderCancel(r.Context(), id)
	}
	s.noteOutcome(id, past[action], err)
	http.Redirect(w, r, "/deals/"+url.PathEscape(id), http.StatusSeeOther)
	return nil
}

// past is what somebody did.
var past = map[string]string{"park": "parked", "resume": "resumed", "cancel": "cancelled"}

// noteOutcome keeps for the next page what an action did to something.
func (s *session) noteOutcome(what, outcome string, err error) {
	if err != nil {
		s.note(what + " was not " + outcome + ": " + err.Error())
		return
	}
	s.note(what + " was " + outcome + ".")
}
