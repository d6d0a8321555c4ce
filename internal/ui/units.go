package ui

import (
	"fmt"
	"time"
)

// Lasting is a duration for people: its two largest units.
func Lasting(d time.Duration) string {
	type unit struct {
		name string
		of   time.Duration
	}
	units := []unit{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.of {
			continue
		}
		whole := d / u.of
		if i+1 < len(units) {
			if rest := (d % u.of) / units[i+1].of; rest > 0 && whole < 10 {
				return fmt.Sprintf("%d %s %d %s", whole, u.name, rest, units[i+1].name)
			}
		}
		return fmt.Sprintf("%d %s", whole, u.name)
	}
	return "0 s"
}

// shownEnds is how much of each end of an id is shown.
const shownEnds = 4

// Short is a CID, a peer or an address in a table: its two ends.
func Short(id string) string {
	if len(id) <= 2*shownEnds+1 || !plain(id) {
		return id
	}
	return id[:shownEnds] + "…" + id[len(id)-shownEnds:]
}
