// Command release makes what a version is published as, into one folder: static binaries for three systems on two architectures, archives with
// licenses, manual pages and completions, a software bill of materials for each binary, Debian packages, container images, and the sums of all.
//
// The same commit, version and SOURCE_DATE_EPOCH give the same bytes. Nothing is uploaded and no container engine is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// target is a system and an architecture.
type target struct{ system, arch string }

func (t target) String() string { return t.system + "_" + t.arch }

func (t target) binaryName() string {
	if t.system == "windows" {
		return "cartage.exe"
	}
	return "cartage"
}

// release is one version, being made.
type release struct {
	version string    // as it is published, with its v
	source  string    // folder of the main module
	out     string    // folder that receives the files
	work    string    // temporary folder
	time    time.Time // of every file inside an archive
	sign    string    // command that is called with the file of the sums
	targets []target
	binary  map[target]string // path of each that was built
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

var versionForm = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func run(ctx context.Context) error {
	r := &release{binary: map[target]string{}}
	var list string
	flag.StringVar(&r.version, "version", "", "version, for example v0.2.0")
	flag.StringVar(&r.source, "source", "../..", "folder of the main module")
	flag.StringVar(&r.out, "out", "dist", "folder that receives the files; what is in it stays")
	flag.StringVar(&r.sign, "sign", os.Getenv("SIGN"), "command that is called with the path of SHA256SUMS")
	flag.StringVar(&list, "targets", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64", "systems and architectures")
	flag.Parse()
	if !versionForm.MatchString(r.version) {
		return fmt.Errorf("version %q has not the form v0.2.0: give -version", r.version)
	}
	for t := range strings.SplitSeq(list, ",") {
		system, arch, ok := strings.Cut(t, "/")
		if !ok {
			return fmt.Errorf("target %q has not the form linux/amd64", t)
		}
		r.targets = append(r.targets, target{system, arch})
	}
	var err error
	if r.time, err = sourceDate(ctx, r.source); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "cartage-release-"); err != nil {
		return err
	}
	return errors.Join(r.make(ctx), os.RemoveAll(r.work))
}

// sourceDate is SOURCE_DATE_EPOCH, or the date of the commit.
func sourceDate(ctx context.Context, source string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("no date of the commit (set SOURCE_DATE_EPOCH): %w", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func (r *release) make(ctx context.Context) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	extras, err := r.describe(ctx)
	if err != nil {
		return err
	}
	var made []string
	for _, t := range r.targets {
		files, err := r.makeTarget(ctx, t, extras)
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		for _, f := range files {
			fmt.Println(f)
		}
		made = append(made, files...)
	}
	return r.writeSums(ctx, made)
}

// makeTarget makes all files of one system and architecture.
func (r *release) makeTarget(ctx context.Context, t target, extras []entry) ([]string, error) {
	binary, err := r.build(ctx, t)
	if err != nil {
		return nil, err
	}
	archive, err := r.archive(t, append([]entry{{name: t.binaryName(), path: binary, mode: 0o755}}, extras...))
	if err != nil {
		return nil, err
	}
	bill, err := r.billOfMaterials(ctx, t, binary)
	if err != nil {
		return nil, err
	}
	files := []string{archive, bill}
	if t.system != "linux" {
		return files, nil
	}
	image, err := r.image(t, binary)
	if err != nil {
		return nil, err
	}
	pkg, err := r.debianPackage(t, binary, extras)
	if err != nil {
		return nil, err
	}
	return append(files, image, pkg), nil
}

// build compiles the command: without cgo, so that it is static where the system allows it.
func (r *release) build(ctx context.Context, t target) (string, error) {
	out := filepath.Join(r.work, t.String(), t.binaryName())
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+r.version, "-o", out, "./cmd/cartage")
	c.Dir = r.source
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.system, "GOARCH="+t.arch, "GOAMD64=v1", "GOFLAGS="+os.Getenv("GOFLAGS"))
	c.Stderr = os.Stderr
	r.binary[t] = out
	return out, c.Run()
}

// billOfMaterials lists the modules of a binary in CycloneDX.
func (r *release) billOfMaterials(ctx context.Context, t target, binary string) (string, error) {
	name := r.file(t.String() + ".sbom.json")
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, "go", "tool", "cyclonedx-gomod", "bin", "-json", "-noserial", "-notimestamp", "-version", r.version, "-output", abs, binary)
	c.Stderr = os.Stderr
	return name, c.Run()
}

// file is the path of a published file.
func (r *release) file(end string) string {
	return filepath.Join(r.out, "cartage_"+strings.TrimPrefix(r.version, "v")+"_"+end)
}
