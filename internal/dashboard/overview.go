package dashboard

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
)

type overviewPage struct {
	frame
	Moving []dealRow
	Ended  []dealRow
	Earned chart
	Needs  []api.Check
	Strip  []api.Check
}

// always are the checks that the first page shows when they are well, too.
var always = []string{"reach", "ledger", "settle", "disk"}

// shownDeals is how many deals of a kind the first page has.
const shownDeals = 8

func (d *Dashboard) overview(w http.ResponseWriter, r *http.Request, s *session) error {
	p, err := d.overviewOf(r, s)
	if err != nil {
		return err
	}
	d.render(w, "overview", p)
	return nil
}

func (d *Dashboard) overviewOf(r *http.Request, s *session) (p overviewPage, err error) {
	if p.frame, err = d.frameOf(r, s, "overview", "Overview"); err != nil {
		return p, err
	}
	p.Live = true
	for _, c := range p.Status.Checks {
		if c.State == "bad" || c.State == "warn" {
			p.Needs = append(p.Needs, c)
		}
		if c.State != "ok" || slices.Contains(always, c.ID) {
			p.Strip = append(p.Strip, c)
		}
	}
	list, err := d.allDeals(r.Context())
	if err != nil {
		return p, err
	}
	for _, v := range list {
		switch {
		case v.Open && len(p.Moving) < shownDeals:
			p.Moving = append(p.Moving, v)
		case !v.Open && !v.IsOrder && len(p.Ended) < shownDeals:
			p.Ended = append(p.Ended, v)
		}
	}
	e, err := d.cfg.API.Earnings(r.Context())
	if err != nil {
		return p, err
	}
	p.Earned = earnedChart(e.Days, d.cfg.Now())
	return p, nil
}

// chart is a row of bars, and what a table shows of it.
type chart struct {
	Bars []bar
	Max  string
	Any  bool
}

type bar struct {
	Label, Value string
	X, Y, Height float64
}

// chartDays and chartHeight are the size of a chart, in days and units of its picture.
const (
	chartDays   = 30
	chartHeight = 150.0
	barWidth    = 20.0
)

// earnedChart is what each of the last days has brought.
func earnedChart(days []api.EarnedDay, now time.Time) (c chart) {
	by := map[string]float64{}
	text := map[string]string{}
	most, largest := 0.0, "0"
	for _, day := range days {
		n, err := big.FromString(day.Vouchered)
		if err != nil {
			continue
		}
		v := new(big.Int)
		*v = n
		f, _ := v.Float64()
		by[day.Date], text[day.Date] = f, day.Vouchered
		if day.Date > now.UTC().AddDate(0, 0, -chartDays).Format(time.DateOnly) && f > most {
			most, largest = f, day.Vouchered
		}
	}
	for i := range chartDays {
		date := now.UTC().AddDate(0, 0, i-chartDays+1).Format(time.DateOnly)
		b := bar{Label: date, Value: "0", X: float64(i) * barWidth}
		if v := by[date]; v > 0 && most > 0 {
			b.Value, b.Height, c.Any = text[date], math.Max(1, math.Round(v/most*chartHeight)), true
		}
		b.Y = chartHeight - b.Height
		c.Bars = append(c.Bars, b)
	}
	c.Max = largest
	return c
}

// livePeriod is how often the changing parts of a page are sent.
const livePeriod = time.Second

// live sends the changing parts of the first page as server-sent events: each is the id of an element, a line feed, and its content.
func (d *Dashboard) live(w http.ResponseWriter, r *http.Request, s *session) error {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	ticks := time.NewTicker(livePeriod)
	defer ticks.Stop()
	last := map[string]string{}
	for {
		p, err := d.overviewOf(r, s)
		if err != nil {
			return nil
		}
		for _, part := range []string{"strip", "needs", "tiles", "moving", "ended"} {
			var b strings.Builder
			if err := d.pages["pages/overview.html"].ExecuteTemplate(&b, part, p); err != nil {
				return nil
			}
			text := strings.Join(strings.Fields(b.String()), " ")
			if last[part] == text {
				continue
			}
			last[part] = text
			if _, err := fmt.Fprintf(w, "event: part\ndata: %s\ndata: %s\n\n", part, text); err != nil {
				return nil
			}
		}
		if control.Flush() != nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-ticks.C:
		}
	}
}
