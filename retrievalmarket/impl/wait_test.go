package retrievalimpl_test

import "time"

// How long a test waits for what happens on a machine's own goroutine, and how often it looks.
const (
	waitFor = 10 * time.Second
	tick    = time.Millisecond
)
