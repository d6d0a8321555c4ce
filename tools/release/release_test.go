package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// source makes a module that stands for ours: it has the files that a release takes, and a command that prints what ours prints.
func source(t *testing.T) string {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("go.mod", "module example.com/stand-in\n\ngo 1.26\n")
	for _, name := range []string{"LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"} {
		write(name, name+"\n")
	}
	write("cmd/cartage/main.go", `package main

import ("fmt"; "os"; "path/filepath")

var version = "dev"

func main() {
	switch os.Args[1] {
	case "man":
		_ = os.MkdirAll(os.Args[2], 0o755)
		_ = os.WriteFile(filepath.Join(os.Args[2], "cartage.1"), []byte(".TH cartage 1\n"), 0o644)
	case "completion":
		fmt.Println("#", os.Args[2])
	case "version":
		fmt.Println(version)
	}
}
`)
	check(t, os.CopyFS(filepath.Join(dir, "packaging"), os.DirFS("../../packaging")))
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func makeRelease(t *testing.T, source string) string {
	r := &release{version: "v1.2.3", source: source, out: t.TempDir(), work: t.TempDir(), time: time.Unix(1_700_000_000, 0).UTC(), binary: map[target]string{},
		targets: []target{{"linux", "amd64"}, {"windows", "arm64"}}}
	check(t, r.make(t.Context()))
	return r.out
}

// TestReleaseIsTheSameTwice: the same source and date give the same bytes, and the sums say which.
func TestReleaseIsTheSameTwice(t *testing.T) {
	src := source(t)
	first, second := makeRelease(t, src), makeRelease(t, src)
	want := []string{"SHA256SUMS", "cartage_1.2.3_amd64.deb", "cartage_1.2.3_linux_amd64.sbom.json", "cartage_1.2.3_linux_amd64.tar.gz",
		"cartage_1.2.3_oci_amd64.tar", "cartage_1.2.3_windows_arm64.sbom.json", "cartage_1.2.3_windows_arm64.zip"}
	list, err := os.ReadDir(first)
	check(t, err)
	if len(list) != len(want) {
		t.Fatalf("%d files, want %d: %v", len(list), len(want), list)
	}
	sums, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	check(t, err)
	for _, name := range want {
		a, err := os.ReadFile(filepath.Join(first, name))
		check(t, err)
		b, err := os.ReadFile(filepath.Join(second, name))
		check(t, err)
		if string(a) != string(b) {
			t.Errorf("%s differs", name)
		}
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(a), name); name != "SHA256SUMS" && !strings.Contains(string(sums), line) {
			t.Errorf("SHA256SUMS has not %q", line)
		}
	}
}

// TestArchivesHoldTheCommand: each archive has a command of its version that runs, licenses, manual page and completions.
func TestArchivesHoldTheCommand(t *testing.T) {
	out := makeRelease(t, source(t))
	f, err := os.Open(filepath.Join(out, "cartage_1.2.3_linux_amd64.tar.gz"))
	check(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	check(t, err)
	root := t.TempDir()
	unpack(t, z, root)
	folder := filepath.Join(root, "cartage_1.2.3_linux_amd64")
	printed, err := exec.Command(filepath.Join(folder, "cartage"), "version").Output()
	check(t, err)
	if string(printed) != "v1.2.3\n" {
		t.Errorf("version prints %q", printed)
	}
	for _, name := range []string{"LICENSE-MIT", "man/cartage.1", "completions/_cartage", "completions/cartage.ps1"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Error(err)
		}
	}
	zr, err := zip.OpenReader(filepath.Join(out, "cartage_1.2.3_windows_arm64.zip"))
	check(t, err)
	defer zr.Close()
	if _, err := fs.Stat(zr, "cartage_1.2.3_windows_arm64/cartage.exe"); err != nil {
		t.Error(err)
	}
}

// TestImageRunsAlone: what the image unpacks to has everything that the command needs, and its user owns its home.
func TestImageRunsAlone(t *testing.T) {
	out := makeRelease(t, source(t))
	f, err := os.Open(filepath.Join(out, "cartage_1.2.3_oci_amd64.tar"))
	check(t, err)
	defer f.Close()
	outer := t.TempDir()
	unpack(t, f, outer)
	layers, err := filepath.Glob(filepath.Join(outer, "*.tar.gz"))
	check(t, err)
	if len(layers) != 1 {
		t.Fatalf("%d layers", len(layers))
	}
	l, err := os.Open(layers[0])
	check(t, err)
	defer l.Close()
	z, err := gzip.NewReader(l)
	check(t, err)
	root := t.TempDir()
	owners := unpack(t, z, root)
	if owners["home/cartage/"] != imageUser {
		t.Errorf("the home belongs to %d", owners["home/cartage/"])
	}
	if data, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")); err != nil || !strings.Contains(string(data), "BEGIN CERTIFICATE") {
		t.Errorf("no certificate authorities: %v", err)
	}
	printed, err := exec.Command(filepath.Join(root, "usr/bin/cartage"), "version").Output()
	check(t, err)
	if string(printed) != "v1.2.3\n" {
		t.Errorf("version prints %q", printed)
	}
}

// unpack writes the files of a tar archive below root and says who owns each.
func unpack(t *testing.T, r io.Reader, root string) map[string]int {
	owners := map[string]int{}
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return owners
		}
		check(t, err)
		owners[h.Name] = h.Uid
		path := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			check(t, os.MkdirAll(path, 0o755))
			continue
		}
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		data, err := io.ReadAll(archive)
		check(t, err)
		check(t, os.WriteFile(path, data, os.FileMode(h.Mode)))
	}
}
