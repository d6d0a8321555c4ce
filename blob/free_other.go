//go:build !(linux || darwin || freebsd)

package blob

// Free tells how many bytes can still be written; this host does not say.
func Free(string) (bytes uint64, id [2]int32, ok bool) { return 0, id, false }

// Total is the size of a file system; this host does not say.
func Total(string) (bytes uint64, ok bool) { return 0, false }
