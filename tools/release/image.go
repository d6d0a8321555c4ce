package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// user of the image: nobody's number of a system, so that a volume's owner is the same everywhere.
const imageUser = 65532

// image writes a container image of one layer as an archive that container engines load: the static binary, the list of certificate authorities,
// and a home for a volume. No engine is needed to make it.
func (r *release) image(t target, binary string) (string, error) {
	layer, err := r.imageLayer(binary)
	if err != nil {
		return "", err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return "", err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = t.arch, t.system
	file.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", imageUser, imageUser), WorkingDir: imageHome,
		Entrypoint: []string{"/usr/bin/cartage"}, Cmd: []string{"daemon"},
		Volumes: map[string]struct{}{imageHome: {}},
		Env: []string{"PATH=/usr/bin", "CARTAGE_HOME=" + imageHome, "CARTAGE_NETWORK_LISTEN=/ip4/0.0.0.0/tcp/7110",
			"CARTAGE_NETWORK_OPS=0.0.0.0:7112"},
		ExposedPorts: map[string]struct{}{"7110/tcp": {}, "7112/tcp": {}},
		Labels:       map[string]string{"org.opencontainers.image.title": "cartage", "org.opencontainers.image.version": r.version},
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return "", err
	}
	if img, err = mutate.CreatedAt(img, v1.Time{Time: r.time}); err != nil {
		return "", err
	}
	tag, err := name.NewTag("cartage:" + r.version)
	if err != nil {
		return "", err
	}
	out := r.file("oci_" + t.arch + ".tar")
	return out, tarball.WriteToFile(out, tag, img)
}

const imageHome = "/home/cartage"

// imageLayer is the only layer, as a tar archive.
func (r *release) imageLayer(binary string) ([]byte, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	authorities, err := certificateAuthorities()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []struct {
		tar.Header
		data []byte
	}{
		{folderHeader("etc/", 0o755, 0), nil}, {folderHeader("etc/ssl/", 0o755, 0), nil}, {folderHeader("etc/ssl/certs/", 0o755, 0), nil},
		{fileHeader("etc/ssl/certs/ca-certificates.crt", 0o644, authorities), authorities},
		{fileHeader("etc/passwd", 0o644, passwd), passwd},
		{folderHeader("home/", 0o755, 0), nil}, {folderHeader("home/cartage/", 0o700, imageUser), nil}, {folderHeader("tmp/", 0o1777, 0), nil},
		{folderHeader("usr/", 0o755, 0), nil}, {folderHeader("usr/bin/", 0o755, 0), nil},
		{fileHeader("usr/bin/cartage", 0o755, program), program},
	} {
		h.ModTime = r.time
		if err := w.WriteHeader(&h.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(h.data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

var passwd = fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\ncartage:x:%d:%d:cartage:%s:/sbin/nologin\n", imageUser, imageUser, imageHome)

func folderHeader(name string, mode int64, owner int) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: owner, Gid: owner, Format: tar.FormatUSTAR}
}

func fileHeader(name string, mode int64, data []byte) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), Format: tar.FormatUSTAR}
}

// certificateAuthorities is the list of the machine that makes the release, or the file that SSL_CERT_FILE names.
func certificateAuthorities() ([]byte, error) {
	list := []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"}
	for _, f := range list {
		if f == "" {
			continue
		}
		if data, err := os.ReadFile(filepath.Clean(f)); err == nil {
			return data, nil
		}
	}
	return nil, fmt.Errorf("no list of certificate authorities in %v: set SSL_CERT_FILE", list[1:])
}
