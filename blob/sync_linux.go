package blob

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncFilesystem syncs the file system that a folder is on; done is false where the host cannot.
func syncFilesystem(dir string) (done bool, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return true, err
	}
	err = unix.Syncfs(int(d.Fd()))
	if errors.Is(err, unix.ENOSYS) {
		return false, d.Close()
	}
	return true, errors.Join(err, d.Close())
}
