// Package lifecycle is how work begins, repeats and ends: groups of goroutines and calls that end together, pauses that end with a context,
// and attempts with growing pauses between them.
package lifecycle
