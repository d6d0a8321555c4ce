//go:build linux || darwin || freebsd

package blob

import "golang.org/x/sys/unix"

// Free tells how many bytes an unprivileged user can still write into the file system of dir, and which file system that
// is; ok is false where the host does not say.
func Free(dir string) (bytes uint64, id [2]int32, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, id, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), s.Fsid.Val, true
}

// Total is the size in bytes of the file system of dir; ok is false where the host does not say.
func Total(dir string) (bytes uint64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Blocks * uint64(s.Bsize), true
}
