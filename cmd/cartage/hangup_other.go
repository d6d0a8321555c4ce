//go:build !unix

package main

import "os"

// hangups are the signals to read the configuration again; this system has none.
func hangups() (<-chan os.Signal, func()) {
	c := make(chan os.Signal)
	return c, func() { close(c) }
}
