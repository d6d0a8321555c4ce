package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadyIsTold: a service manager hears when the daemon is ready and when it stops, and whoever waits for the file finds the peer id in it.
func TestReadyIsTold(t *testing.T) {
	dir, err := os.MkdirTemp("", "ready") // a short path: the socket's must fit into its address
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(time.Minute)))
	hears := func() string {
		b := make([]byte, 256)
		n, err := socket.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	home, ready := filepath.Join(dir, "home"), filepath.Join(dir, "ready")
	cartage := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, "cartage", append([]string{"--home", home}, args...)...)
		c.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket.LocalAddr().String())
		return c
	}
	out, err := cartage("init", "--yes").CombinedOutput()
	require.NoError(t, err, string(out))
	daemon := cartage("daemon", "--ready-file", ready)
	require.NoError(t, daemon.Start())
	require.Equal(t, "READY=1", hears())
	text, err := os.ReadFile(ready)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), "12D3"), "%q", text)
	require.NoError(t, daemon.Process.Signal(syscall.SIGTERM))
	require.Equal(t, "STOPPING=1", hears())
	require.NoError(t, daemon.Wait())
	require.NoFileExists(t, ready)
}
