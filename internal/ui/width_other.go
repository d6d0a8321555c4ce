//go:build !(linux || darwin || freebsd)

package ui

import "os"

// Width is how many cells a line of a terminal has; this host does not say.
func Width(*os.File) (cells int, ok bool) { return 0, false }
