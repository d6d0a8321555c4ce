package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
)

// entry is a file inside an archive or a package.
type entry struct {
	name string // with slashes
	path string
	mode os.FileMode
}

// describe makes what a binary is delivered with: licenses, README, manual pages and completions, which the command prints itself.
func (r *release) describe(ctx context.Context) ([]entry, error) {
	out := []entry{}
	for _, name := range []string{"LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"} {
		out = append(out, entry{name: name, path: filepath.Join(r.source, name), mode: 0o644})
	}
	binary, err := r.build(ctx, target{runtime.GOOS, runtime.GOARCH})
	if err != nil {
		return nil, err
	}
	pages := filepath.Join(r.work, "man")
	printer := exec.CommandContext(ctx, binary, "man", pages)
	printer.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.time.Unix(), 10))
	printer.Stderr = os.Stderr
	if err := printer.Run(); err != nil {
		return nil, fmt.Errorf("manual pages: %w", err)
	}
	list, err := os.ReadDir(pages)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		out = append(out, entry{name: "man/" + f.Name(), path: filepath.Join(pages, f.Name()), mode: 0o644})
	}
	for shell, name := range map[string]string{"bash": "cartage.bash", "zsh": "_cartage", "fish": "cartage.fish", "powershell": "cartage.ps1"} {
		text, err := exec.CommandContext(ctx, binary, "completion", shell).Output()
		if err != nil {
			return nil, fmt.Errorf("completion of %s: %w", shell, err)
		}
		file := filepath.Join(r.work, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return nil, err
		}
		out = append(out, entry{name: "completions/" + name, path: file, mode: 0o644})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out, nil
}

// archive packs a binary and what belongs to it.
func (r *release) archive(t target, entries []entry) (string, error) {
	folder := "cartage_" + strings.TrimPrefix(r.version, "v") + "_" + t.String()
	if t.system == "windows" {
		name := r.file(t.String() + ".zip")
		return name, writeFile(name, func(w io.Writer) error { return r.writeZip(w, folder, entries) })
	}
	name := r.file(t.String() + ".tar.gz")
	return name, writeFile(name, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		return errors.Join(r.writeTar(z, folder, entries), z.Close())
	})
}

func writeFile(name string, fill func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

func (r *release) writeTar(w io.Writer, folder string, entries []entry) error {
	out := tar.NewWriter(w)
	for _, e := range entries {
		data, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: folder + "/" + e.name, Mode: int64(e.mode), Size: int64(len(data)), ModTime: r.time, Format: tar.FormatUSTAR}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return out.Close()
}

func (r *release) writeZip(w io.Writer, folder string, entries []entry) error {
	out := zip.NewWriter(w)
	for _, e := range entries {
		data, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: folder + "/" + e.name, Method: zip.Deflate, Modified: r.time}
		h.SetMode(e.mode)
		f, err := out.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return out.Close()
}

// writeSums writes the sums of all files, in the form of sha256sum, and has them signed.
func (r *release) writeSums(ctx context.Context, files []string) error {
	sort.Strings(files)
	var b strings.Builder
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), filepath.Base(name))
	}
	sums := filepath.Join(r.out, "SHA256SUMS")
	if err := os.WriteFile(sums, []byte(b.String()), 0o644); err != nil {
		return err
	}
	fmt.Println(sums)
	if r.sign == "" {
		return nil
	}
	c := exec.CommandContext(ctx, r.sign, sums)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("signing with %s: %w", r.sign, err)
	}
	return nil
}
