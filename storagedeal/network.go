package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/shared"
)

// Protocols of storage deals, newest first. Deals of 1.1.1 may have labels that are no text; 1.0.1 writes arrays.
const (
	DealProtocol111   protocol.ID = "/fil/storage/mk/1.1.1"
	DealProtocol110   protocol.ID = "/fil/storage/mk/1.1.0"
	DealProtocol101   protocol.ID = "/fil/storage/mk/1.0.1"
	AskProtocol110    protocol.ID = "/fil/storage/ask/1.1.0"
	AskProtocol101    protocol.ID = "/fil/storage/ask/1.0.1"
	StatusProtocol110 protocol.ID = "/fil/storage/status/1.1.0"
	StatusProtocol101 protocol.ID = "/fil/storage/status/1.0.1"
)

func formOfProtocol(p protocol.ID) form {
	return form(p == DealProtocol101 || p == AskProtocol101 || p == StatusProtocol101)
}

// ErrUnreachable means that no stream to a provider could be opened.
var ErrUnreachable = errors.New("provider is not reachable")

// Timeouts bound the steps of a question to a provider (R-T5). Zero values are the defaults.
type Timeouts struct {
	Open  time.Duration // all attempts to open a stream; 60 s
	Write time.Duration // 30 s
	Read  time.Duration // 60 s
}

func (t Timeouts) orDefaults() Timeouts {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Open, time.Minute)
	set(&t.Write, 30*time.Second)
	set(&t.Read, time.Minute)
	return t
}

// dialTime bounds one attempt to reach a provider: a dial to one that has just started again may hang.
const dialTime = 5 * time.Second

// openStream opens a stream for the newest protocol that the peer speaks.
func openStream(ctx context.Context, h host.Host, to peer.AddrInfo, t Timeouts, protocols ...protocol.ID) (network.Stream, error) {
	if to.ID == "" {
		return nil, errors.New("the chain view has no peer of the provider")
	}
	ctx, cancel := context.WithTimeout(ctx, t.Open)
	defer cancel()
	if len(to.Addrs) > 0 && h.Network().Connectedness(to.ID) != network.Connected {
		h.Peerstore().AddAddrs(to.ID, to.Addrs, 10*time.Minute)
	}
	retry := shared.RetryStream{Min: time.Second, Max: 5 * time.Minute, Attempts: 15, Factor: 1.5, OpenTimeout: dialTime, StopIfForeign: true}
	s, err := retry.Open(ctx, h, to.ID, protocols...)
	if err != nil {
		return nil, fmt.Errorf("%w: open a stream to %s: %w", ErrUnreachable, to.ID, err)
	}
	return s, nil
}

// askPeer writes one message and reads the one that answers it. The stream is closed or reset when it returns.
func askPeer(ctx context.Context, s network.Stream, t Timeouts, question, answer message) (err error) {
	defer func() {
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	f := formOfProtocol(s.Protocol())
	if err := sendMessage(s, t.Write, question, f); err != nil {
		return err
	}
	if err := receiveMessage(s, t.Read, answer, f); err != nil {
		return fmt.Errorf("read the answer: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

func sendMessage(s network.Stream, limit time.Duration, m message, f form) error {
	data, err := encodeMessage(m, f)
	if err != nil {
		return err
	}
	if err := s.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := s.Write(data); err != nil {
		return fmt.Errorf("write %T: %w", m, err)
	}
	return nil
}

func receiveMessage(s network.Stream, limit time.Duration, m message, f form) error {
	if err := s.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	data, err := wire.ReadRaw(s, MaxMessage, maxDepth)
	if err != nil {
		return err
	}
	return decodeMessage(data, m, f)
}
