package main

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // the format
	"github.com/goreleaser/nfpm/v2/files"
)

// debianPackage writes the package: the command, its unit, manual pages and completions. Installing it enables nothing; an upgrade restarts a unit
// that runs; purging leaves the keys and says where they are.
func (r *release) debianPackage(t target, binary string, extras []entry) (string, error) {
	packaging := filepath.Join(r.source, "packaging")
	contents := files.Contents{
		r.packaged(binary, "/usr/bin/cartage", 0o755),
		r.packaged(filepath.Join(packaging, "cartage.service"), "/usr/lib/systemd/system/cartage.service", 0o644),
		r.packaged(filepath.Join(packaging, "cartage.sysusers"), "/usr/lib/sysusers.d/cartage.conf", 0o644),
	}
	for _, e := range extras {
		source, dest, err := r.placeInPackage(e)
		if err != nil {
			return "", err
		}
		if dest != "" {
			contents = append(contents, r.packaged(source, dest, 0o644))
		}
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "cartage", Arch: t.arch, Platform: "linux", Version: strings.TrimPrefix(r.version, "v"), Release: "1",
		Section: "net", Priority: "optional", Maintainer: "Cartage <cartage@localhost>", License: "Apache-2.0 OR MIT",
		Description: "Paid retrieval of content-addressed data\n Sells files and CAR archives block by block against small signed vouchers, and buys them.",
		MTime:       r.time,
		Overridables: nfpm.Overridables{
			Contents: contents, Recommends: []string{"ca-certificates"}, Suggests: []string{"man-db"},
			Scripts: nfpm.Scripts{
				PostInstall: filepath.Join(packaging, "postinst"), PreRemove: filepath.Join(packaging, "prerm"), PostRemove: filepath.Join(packaging, "postrm"),
			},
		},
	})
	if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
		return "", err
	}
	p, err := nfpm.Get("deb")
	if err != nil {
		return "", err
	}
	name := r.file(t.arch + ".deb")
	return name, writeFile(name, func(w io.Writer) error { return p.Package(info, w) })
}

func (r *release) packaged(source, dest string, mode os.FileMode) *files.Content {
	return &files.Content{Source: source, Destination: dest, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: r.time}}
}

// placeInPackage says where a file of the archives lies in the package; nowhere: "".
func (r *release) placeInPackage(e entry) (source, dest string, err error) {
	name := path.Base(e.name)
	switch {
	case strings.HasPrefix(e.name, "man/"):
		source, err = r.compressed(e.path)
		return source, "/usr/share/man/man1/" + name + ".gz", err
	case name == "cartage.bash":
		return e.path, "/usr/share/bash-completion/completions/cartage", nil
	case name == "_cartage":
		return e.path, "/usr/share/zsh/vendor-completions/_cartage", nil
	case name == "cartage.fish":
		return e.path, "/usr/share/fish/vendor_completions.d/cartage.fish", nil
	case strings.HasPrefix(e.name, "completions/"):
		return "", "", nil
	}
	return e.path, "/usr/share/doc/cartage/" + name, nil
}

// compressed is the file as gzip, as manual pages are installed.
func (r *release) compressed(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	out := name + ".gz"
	return out, writeFile(out, func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		_, err = z.Write(data)
		return errors.Join(err, z.Close())
	})
}
