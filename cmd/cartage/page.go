package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
)

// page is a part of a list.
type page struct {
	limit  int
	cursor string
}

func (p *page) declare(cmd *cobra.Command) {
	cmd.Flags().IntVar(&p.limit, "limit", 50, "show at most so many rows; 0 is all of them")
	cmd.Flags().StringVar(&p.cursor, "cursor", "", "go on behind the row with this id, as the last line of the page before says")
}

// showPage shows the rows of a page, and says on the error output how many there are and how to go on.
func showPage[T any](rows []T, p *page, id func(T) string, show func([]T) error) error {
	if p.limit < 0 {
		return api.Errorf(api.CodeUsage, "", "--limit %d is negative", p.limit)
	}
	all, from := len(rows), 0
	if p.cursor != "" {
		at := slices.IndexFunc(rows, func(v T) bool { return id(v) == p.cursor })
		if at < 0 {
			return api.Errorf(api.CodeNotFound, "Begin again without --cursor.", "no row of the list is %q any more", p.cursor)
		}
		from = at + 1
	}
	end := all
	if p.limit > 0 {
		end = min(all, from+p.limit)
	}
	if err := show(rows[from:end]); err != nil {
		return err
	}
	if end < all {
		note("%d of %d. More: --cursor %s\n", end-from, all, id(rows[end-1]))
	}
	return nil
}
