package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cartage-dev/cartage/internal/node"
)

// tellReady tells who started the daemon that it is ready: the service manager of $NOTIFY_SOCKET, and whoever waits for a file.
func tellReady(ctx context.Context, n *node.Opened, readyFile string) error {
	if readyFile != "" {
		info, err := n.API().Info(ctx)
		if err != nil {
			return err
		}
		tmp := readyFile + ".tmp"
		if err := os.WriteFile(tmp, []byte(info.PeerID+"\n"), 0o600); err != nil {
			return err
		}
		if err := os.Rename(tmp, readyFile); err != nil {
			return err
		}
	}
	_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
}

// tellStopping takes it back.
func tellStopping(readyFile string) error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyStopping)
	if readyFile == "" {
		return err
	}
	if gone := os.Remove(readyFile); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
