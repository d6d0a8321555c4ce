package dashboard

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/internal/ui"
	"github.com/cartage-dev/cartage/money"
)

// functions are the words of the pages.
func (d *Dashboard) functions() template.FuncMap {
	return template.FuncMap{
		"amount": amount, "segment": url.PathEscape, "size": sizeOf, "short": ui.Short, "text": ui.Text, "since": d.since, "rate": func(perSecond float64) string { return sizeOf(uint64(perSecond)) + "/s" },
		"mark": mark, "list": func(v ...string) []string { return v }, "unknown": unknownOr, "share": share, "lasting": func(seconds float64) string { return ui.Lasting(time.Duration(seconds * float64(time.Second))) },
	}
}

// amount is an amount of attoFIL for people.
func amount(atto string) string {
	n, err := big.FromString(atto)
	if err != nil {
		return "unknown"
	}
	return money.AttoFIL(n).Table()
}

// sizeOf is a number of bytes for people.
func sizeOf(n uint64) string {
	const unit = 1 << 10
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, name := float64(n), ""
	for _, name = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v /= unit; v < unit {
			break
		}
	}
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f %s", v, name)
	case v < 100:
		return fmt.Sprintf("%.1f %s", v, name)
	}
	return fmt.Sprintf("%.0f %s", v, name)
}

// since is how long ago a time was, or its date.
func (d *Dashboard) since(text string) string {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return ""
	}
	if age := d.cfg.Now().Sub(at); age < 48*time.Hour {
		return ui.Lasting(max(age, 0)) + " ago"
	}
	return at.UTC().Format(time.DateOnly)
}

// mark is the sign of a state, which stands beside its word.
func mark(state string) string {
	switch state {
	case "ok":
		return "✓"
	case "warn":
		return "▲"
	case "bad":
		return "✕"
	}
	return "?"
}

// unknownOr is a value, or that it is not known and why.
func unknownOr(why map[string]string, field, value string) string {
	if reason, is := why[field]; is {
		if reason == "unknown" {
			return "unknown"
		}
		return "unknown (" + reason + ")"
	}
	return value
}

// share is a part in hundredths.
func share(part, whole int) string {
	if whole == 0 {
		return "none"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// table is a list that is also given as JSON and CSV.
type table struct {
	columns []string
	rows    [][]string
	values  any // for JSON
}

// sent writes the list in the format that was asked for, if one was.
func (t table) sent(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Query().Get("format") {
	case "json":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(t.values)
	case "csv":
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		out := csv.NewWriter(w)
		_ = out.Write(t.columns)
		for _, row := range t.rows {
			for i, cell := range row {
				row[i] = plainCell(cell)
			}
			_ = out.Write(row)
		}
		out.Flush()
	default:
		return false
	}
	return true
}

// plainCell keeps a spreadsheet from taking a text of a peer for a formula.
func plainCell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
