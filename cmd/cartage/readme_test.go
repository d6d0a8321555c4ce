package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// reader follows a chapter of the README in one folder: it types what stands there, and puts what was printed in the place of the words in
// capitals.
type reader struct {
	t     *testing.T
	ctx   context.Context
	dir   string
	words map[string]string
}

// printed are the words in capitals, by how a line that prints one begins.
var printed = map[string]*regexp.Regexp{
	"URL":     regexp.MustCompile(`^url +(\S+)$`),
	"FILE":    regexp.MustCompile(`^token file +(\S+)$`),
	"ADDRESS": regexp.MustCompile(`^address +(\S+/p2p/\S+)$`),
	"ROOT":    regexp.MustCompile(`^root +(\S+)$`),
}

func (r *reader) hear(line string) {
	for word, is := range printed {
		if m := is.FindStringSubmatch(line); m != nil {
			r.words[word] = m[1]
		}
	}
}

func (r *reader) command(line string) *exec.Cmd {
	line, _, _ = strings.Cut(line, " #")
	for word, value := range r.words {
		line = regexp.MustCompile(`\b`+word+`\b`).ReplaceAllLiteralString(line, value)
	}
	c := exec.CommandContext(r.ctx, "sh", "-c", "exec "+line)
	c.Dir = r.dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "TMPDIR=" + r.dir}
	return c
}

// types runs a line to its end.
func (r *reader) types(line string) {
	out, err := r.command(line).CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", line, out)
	for l := range strings.Lines(string(out)) {
		r.hear(strings.TrimRight(l, "\n"))
	}
}

// leavesRunning runs a line that is left running, until it says that it is ready.
func (r *reader) leavesRunning(line string) {
	c := r.command(line)
	out, err := c.StdoutPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, c.Start())
	r.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		require.NoError(r.t, c.Wait(), line)
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		r.hear(lines.Text())
		if strings.HasPrefix(lines.Text(), "ready") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	r.t.Fatal("it is not ready: " + line)
}

// TestReadme follows the chapter that sells and buys by hand, word for word, with its file of 200 MiB.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("200 MiB")
	}
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, chapter, ok := strings.Cut(string(text), "\n## Sell and buy by hand\n")
	require.True(t, ok)
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	_, block, ok := strings.Cut(chapter, "```console\n")
	require.True(t, ok)
	block, _, _ = strings.Cut(block, "```")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	t.Cleanup(cancel)
	r := &reader{t, ctx, t.TempDir(), map[string]string{}}
	typed := 0
	for line := range strings.Lines(block) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !ok {
			continue
		}
		typed++
		if strings.HasSuffix(line, "leave it running") {
			r.leavesRunning(line)
		} else {
			r.types(line)
		}
	}
	require.Greater(t, typed, 12)
	require.Len(t, r.words, len(printed), "each word in capitals was printed")
}
