package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/ui"
	"github.com/cartage-dev/cartage/money"
)

func printJSON(w io.Writer, v any) error { return ui.JSON(w, v) }

// say prints lines for people: what is in the arguments cannot act on their terminal.
func say(format string, args ...any) { ui.Printf(os.Stdout, format, args...) }

// note is say beside the answer: progress, warnings, results of what has no other.
func note(format string, args ...any) { ui.Printf(os.Stderr, format, args...) }

// show prints one object: JSON, or lines of a name and a value.
func (c *cli) show(v any, rows [][2]string) error {
	if c.json {
		return printJSON(os.Stdout, v)
	}
	t := ui.Table{}
	for _, r := range rows {
		t.Rows = append(t.Rows, []string{r[0], r[1]})
	}
	return t.Write(os.Stdout)
}

// table prints a list: one JSON object a line, or columns.
func table[T any](c *cli, list []T, header []string, row func(T) []string, empty string) error {
	return colouredTable(c, list, header, row, nil, empty)
}

// colouredTable is table with colours at a terminal.
func colouredTable[T any](c *cli, list []T, header []string, row func(T) []string, colour func(int, string) string, empty string) error {
	if c.json {
		for _, v := range list {
			if err := printJSON(os.Stdout, v); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		note("%s\n", empty)
		return nil
	}
	t := ui.Table{Header: header, Fit: c.columns()}
	if isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "" {
		t.Colour = colour
	}
	for _, v := range list {
		t.Rows = append(t.Rows, row(v))
	}
	return t.Write(os.Stdout)
}

// defaultColumns is how wide a terminal is taken to be that does not say.
const defaultColumns = 80

// columns is how wide a table may be: as the terminal, or as $COLUMNS says; a file or a pipe takes all of it, 0.
func (c *cli) columns() int {
	if c.wide {
		return 0
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if !isTerminal(os.Stdout) {
		return 0
	}
	if n, ok := ui.Width(os.Stdout); ok {
		return n
	}
	return defaultColumns
}

func (c *cli) logger() *slog.Logger {
	if !c.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// logTo is what writes the log of a daemon.
func logTo(w io.Writer, c config.Log, level *slog.LevelVar) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// size prints bytes for people.
func size(n uint64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// parseSize reads 1048576, 1MiB, 4KiB, 2GiB.
func parseSize(s string) (uint64, error) {
	for suffix, shift := range map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40} {
		if num, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(num), 10, 64)
			if err != nil || n > (1<<63)>>shift {
				return 0, api.Errorf(api.CodeUsage, "Write it as 1048576, 64KiB, 1MiB or 2GiB.", "%q is not a size", s)
			}
			return n << shift, nil
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, api.Errorf(api.CodeUsage, "Write it as 1048576, 64KiB, 1MiB or 2GiB.", "%q is not a size", s)
	}
	return n, nil
}

// parseAmount reads an integer of attoFIL, or a decimal with FIL or nanoFIL, and returns attoFIL.
func parseAmount(s string) (string, error) {
	a, err := money.Parse(s)
	if err != nil {
		return "", api.Errorf(api.CodeUsage, "Write it as 1000 (attoFIL), 0.5FIL or 20nanoFIL.", "%w", err)
	}
	return a.Units.String(), nil
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
