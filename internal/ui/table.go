package ui

import (
	"bufio"
	"io"
	"strings"

	"github.com/rivo/uniseg"
)

// Table is rows of cells under a header; a row may have fewer cells than the header, which may be left out.
type Table struct {
	Header []string
	Rows   [][]string
	// Fit is how many cells of a terminal a row may take; 0 is no bound. Ids are shortened first, then the widest columns are cut, and at last the
	// columns at the end are left out.
	Fit int
	// Colour is the number of the terminal colour of a cell, or empty; nil for none at all.
	Colour func(column int, cell string) string
}

// Widths in cells of a terminal.
const (
	widest = 512 // of a column: what is longer is cut
	gap    = 2   // between columns
)

// Write writes the table. Every cell goes through Text, so that a row is a line whatever is in it; an empty one is a hyphen if there is a header.
func (t Table) Write(w io.Writer) error {
	rows := make([][]string, 0, len(t.Rows)+1)
	if t.Header != nil {
		rows = append(rows, t.Header)
	}
	for _, r := range t.Rows {
		cells := make([]string, len(r))
		for i, c := range r {
			if cells[i] = cutTo(Text(c), widest); c == "" && t.Header != nil {
				cells[i] = "-"
			}
		}
		rows = append(rows, cells)
	}
	widths := fitRows(rows, t.Fit)
	out := bufio.NewWriter(w)
	for n, r := range rows {
		for i, c := range r {
			pad := widths[i] + gap - uniseg.StringWidth(c)
			if t.Colour != nil && (n > 0 || t.Header == nil) {
				if code := t.Colour(i, c); code != "" {
					c = "\x1b[" + code + "m" + c + "\x1b[0m"
				}
			}
			_, _ = out.WriteString(c) // the error stays until Flush
			if i < len(r)-1 {
				_, _ = out.WriteString(strings.Repeat(" ", pad))
			}
		}
		_ = out.WriteByte('\n')
	}
	return out.Flush()
}

// cutTo cuts a text to so many cells; what was cut ends with an ellipsis.
func cutTo(s string, cells int) string {
	if len(s) <= cells || uniseg.StringWidth(s) <= cells {
		return s
	}
	var b strings.Builder
	at, state := 0, -1
	for s != "" {
		var cluster string
		var width int
		cluster, s, width, state = uniseg.FirstGraphemeClusterInString(s, state)
		if at += width; at >= cells {
			break
		}
		b.WriteString(cluster)
	}
	return b.String() + "…"
}

// columnWidths are the widths of the columns.
func columnWidths(rows [][]string) (widths []int) {
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], uniseg.StringWidth(c))
		}
	}
	return widths
}

// leastColumn is how narrow a column may be cut.
const leastColumn = 7

// fitRows makes rows fit into so many cells, and returns the widths of their columns.
func fitRows(rows [][]string, cells int) []int {
	widths := columnWidths(rows)
	if cells <= 0 || rowWidth(widths) <= cells {
		return widths
	}
	for _, r := range rows {
		for i, c := range r {
			if isID(c) {
				r[i] = Short(c)
			}
		}
	}
	widths = columnWidths(rows)
	for rowWidth(widths) > cells {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= leastColumn {
			break
		}
		widths[widest] = max(leastColumn, widths[widest]-(rowWidth(widths)-cells))
	}
	for rowWidth(widths) > cells && len(widths) > 1 {
		widths = widths[:len(widths)-1]
	}
	for n, r := range rows {
		rows[n] = r[:min(len(r), len(widths))]
		for i, c := range rows[n] {
			rows[n][i] = cutTo(c, widths[i])
		}
	}
	return columnWidths(rows)
}

func rowWidth(widths []int) int {
	sum := -gap
	for _, w := range widths {
		sum += w + gap
	}
	return max(sum, 0)
}

// longID is from how many characters on a word is one that is told by its ends.
const longID = 24

// isID reports whether a cell is a CID, a peer or an address.
func isID(s string) bool {
	if len(s) < longID {
		return false
	}
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '/':
		default:
			return false
		}
	}
	return true
}
