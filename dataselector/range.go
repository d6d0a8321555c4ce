package dataselector

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Range is a part of the bytes of a file: from the first to the last, both included. A negative number counts from the end: -1 is the last
// byte, so that {0, -1} is the whole file and {-1024, -1} its last KiB.
type Range struct{ First, Last int64 }

// rangeHint says how a range is written.
const rangeHint = "Say FIRST:LAST, both included, as in 0:1023; * or nothing for the end; negative numbers count from the end, as in -1024:*."

// ParseRange reads FIRST:LAST. LAST may be * or left out for the end, FIRST left out for the beginning; negative numbers count from the end.
func ParseRange(text string) (*Range, error) {
	first, last, ok := strings.Cut(text, ":")
	if !ok || first == "" && last == "" {
		return nil, reason.Usage.Errorf("%q is no range of bytes", text).WithHint(rangeHint)
	}
	r := Range{0, -1}
	var err error
	if first != "" {
		r.First, err = parsePosition(first)
	}
	if err == nil && last != "*" && last != "" {
		r.Last, err = parsePosition(last)
	}
	if err == nil {
		err = r.checkRange()
	}
	if err != nil {
		return nil, reason.Usage.Errorf("%q is no range of bytes: %w", text, err).WithHint(rangeHint)
	}
	return &r, nil
}

func parsePosition(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("no file has a byte %s: the largest number is %d", text, int64(math.MaxInt64))
	case err != nil || strings.HasPrefix(text, "+"):
		return 0, fmt.Errorf("%q is no number", text)
	}
	return n, nil
}

// checkRange refuses what is no range of any file.
func (r Range) checkRange() error {
	if (r.First < 0) == (r.Last < 0) && r.First > r.Last {
		return fmt.Errorf("byte %d comes after byte %d", r.First, r.Last)
	}
	return nil
}

// String is the form that ParseRange reads.
func (r Range) String() string {
	if r.Last == -1 {
		return fmt.Sprintf("%d:*", r.First)
	}
	return fmt.Sprintf("%d:%d", r.First, r.Last)
}

// sliceBounds is the range as a selector has it: the end is not included, and as a negative number counts from the end of the file.
func (r Range) sliceBounds() (from, to int64) {
	if r.Last == -1 || r.Last == math.MaxInt64 {
		return r.First, math.MaxInt64
	}
	return r.First, r.Last + 1
}

// Within is where a range begins in a file of so many bytes, and how many bytes it has there. A range that ends behind the file ends with it, one
// that begins before the file begins with it; one that has none of its bytes is refused with reason.RangeOutside. Of an empty file only the
// ranges to the end can be had, which are empty.
func (r Range) Within(size int64) (first, n int64, err error) {
	first, last := r.First, min(r.Last, size-1)
	if first < 0 {
		first = max(0, size+first)
	}
	if r.Last < 0 {
		last = size + r.Last
	}
	if size == 0 && first == 0 && r.Last == -1 {
		return 0, 0, nil
	}
	if first >= size || last < first {
		return 0, 0, reason.RangeOutside.Errorf("the bytes %s lie outside the file, which has %d", r, size).WithHint("Its bytes are 0 to " + strconv.FormatInt(size-1, 10) + ".")
	}
	return first, last - first + 1, nil
}
