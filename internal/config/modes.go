package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cartage-dev/cartage/internal/reason"
)

// secrets are what a home holds that nobody else may read: files, and folders of files. A home of a node has some, one of a ledger others.
var secrets = [...]string{"token", "libp2p.key", "wallet", "operator", "tls.key"}

// CheckPrivate refuses a home whose folder or whose secrets others can read or write: whoever can has the keys, and may have them still when
// the mode is changed. A system without modes has nothing to check.
func (h Home) CheckPrivate() error {
	if runtime.GOOS == "windows" {
		return nil
	}
	if err := closed(h.Dir, "chmod 700 %s"); err != nil {
		return err
	}
	for _, name := range secrets {
		err := filepath.WalkDir(h.Path(name), func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir():
				return closed(path, "chmod 700 %s")
			default:
				return closed(path, "chmod 600 %s")
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// closed refuses what others than its owner can read or write.
func closed(path, mend string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return reason.FilePermission.Errorf("%s can be read or written by others (mode %o): it holds keys, or a token that spends", path, st.Mode().Perm()).
		WithHint("Close it: " + fmt.Sprintf(mend, path) + ". If somebody may have read it, make a new one.")
}

// CheckNotWritable refuses a secret outside of a home that others can write: they could put their own in its place. Who may read it is the
// choice of who put it there, for example of a container.
func CheckNotWritable(path string) error {
	st, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" || st.Mode().Perm()&0o022 == 0 {
		return err
	}
	return reason.FilePermission.Errorf("%s can be written by others (mode %o)", path, st.Mode().Perm()).WithHint("Close it: chmod 600 " + path + ".")
}
