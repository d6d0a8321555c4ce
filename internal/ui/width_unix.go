//go:build linux || darwin || freebsd

package ui

import (
	"os"

	"golang.org/x/sys/unix"
)

// Width is how many cells a line of the terminal f has; ok is false if it does not say.
func Width(f *os.File) (cells int, ok bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 0, false
	}
	return int(size.Col), true
}
