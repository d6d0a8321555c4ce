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
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], uniseg.StringWidth(c))
		}
	}
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
