package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// treeSize is the bytes of a file, or of all files below a folder.
func treeSize(path string) (n int64, err error) {
	err = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil {
			n += st.Size()
		}
		return err
	})
	return n, err
}

// sameTree tells whether two files or folders have the same names and bytes.
func sameTree(a, b string) (bool, error) {
	na, err := treeNames(a)
	if err != nil {
		return false, err
	}
	nb, err := treeNames(b)
	if err != nil || len(na) != len(nb) {
		return false, err
	}
	for i, name := range na {
		if name != nb[i] {
			return false, nil
		}
		same, err := sameFile(filepath.Join(a, name), filepath.Join(b, name))
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func treeNames(root string) (out []string, err error) {
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		out = append(out, rel)
		return err
	})
	return out, err
}

func sameFile(a, b string) (bool, error) {
	sa, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	sb, err := os.Stat(b)
	if err != nil || sa.IsDir() != sb.IsDir() {
		return false, err
	}
	if sa.IsDir() {
		return true, nil
	}
	if sa.Size() != sb.Size() {
		return false, nil
	}
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(fa, ba)
		m, _ := io.ReadFull(fb, bb)
		if n != m || !bytes.Equal(ba[:n], bb[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}
