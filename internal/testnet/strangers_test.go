package testnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/paych"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// eavesdropper is a host whose words are written down, by protocol.
type eavesdropper struct {
	host.Host
	mu   sync.Mutex
	said map[protocol.ID][]byte
}

// SetStreamHandler implements host.Host.
func (e *eavesdropper) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	e.Host.SetStreamHandler(id, func(s network.Stream) { h(&overheard{Stream: s, by: e, id: id}) })
}

// NewStream implements host.Host.
func (e *eavesdropper) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := e.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &overheard{Stream: s, by: e, id: ids[0]}, nil
}

// says reports whether some words were said on any protocol.
func (e *eavesdropper) says(words string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, said := range e.said {
		if bytes.Contains(said, []byte(words)) {
			return true
		}
	}
	return false
}

type overheard struct {
	network.Stream
	by *eavesdropper
	id protocol.ID
}

// Write implements io.Writer.
func (o *overheard) Write(b []byte) (int, error) {
	o.by.mu.Lock()
	o.by.said[o.id] = append(o.by.said[o.id], b...)
	o.by.mu.Unlock()
	return o.Stream.Write(b)
}

// brokenChain is a chain that is away while away is set, and says where it would be.
type brokenChain struct {
	paych.Chain
	away *atomic.Bool
}

// secretURL stands for the address of a ledger.
const secretURL = "http://ledger.internal:4711"

func (c brokenChain) broken() error {
	if c.away.Load() {
		return fmt.Errorf("Post %q: dial tcp 10.9.8.7:4711: connect: connection refused", secretURL)
	}
	return nil
}

// Head implements paych.Head.
func (c brokenChain) Head(ctx context.Context) ([]byte, abi.ChainEpoch, error) {
	if err := c.broken(); err != nil {
		return nil, 0, err
	}
	return c.Chain.Head(ctx)
}

// Channel implements paych.Reader.
func (c brokenChain) Channel(ctx context.Context, ch address.Address) (*paych.ChannelInfo, error) {
	if err := c.broken(); err != nil {
		return nil, err
	}
	return c.Chain.Channel(ctx, ch)
}

// brokenPieces are pieces whose store fails in the ways that are set.
type brokenPieces struct {
	retrievalimpl.PieceSource
	find, acquire, read *atomic.Bool
	acquired            *atomic.Pointer[func()]
}

// secretPath stands for a file of the host.
const secretPath = "/srv/secret-home/pieces/7.car"

var errSecret = &fs.PathError{Op: "open", Path: secretPath, Err: errors.New("no such file or directory")}

// Find implements retrievalimpl.PieceSource.
func (p brokenPieces) Find(ctx context.Context, payload cid.Cid, piece *cid.Cid) (retrievalimpl.Found, error) {
	if p.find.Load() {
		return retrievalimpl.Found{}, errSecret
	}
	return p.PieceSource.Find(ctx, payload, piece)
}

// Acquire implements retrievalimpl.PieceSource.
func (p brokenPieces) Acquire(ctx context.Context, piece cid.Cid) (retrievalimpl.Reader, error) {
	if p.acquire.Load() {
		return nil, errSecret
	}
	if f := p.acquired.Load(); f != nil {
		(*f)()
	}
	r, err := p.PieceSource.Acquire(ctx, piece)
	return brokenReader{r, p.read}, err
}

type brokenReader struct {
	retrievalimpl.Reader
	broken *atomic.Bool
}

// Get implements retrievalimpl.Reader.
func (r brokenReader) Get(c cid.Cid) ([]byte, error) {
	if r.broken.Load() {
		return nil, errSecret
	}
	return r.Reader.Get(c)
}

// lockedBuffer takes a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.b.Bytes())
}

var reference = regexp.MustCompile(`reference ([A-Z2-7]{8})`)

// TestStrangersLearnNothing: whatever fails at a provider, on no protocol does it say a path, an address or an error of its machine; what it says
// has a reference under which its own log has the cause.
func TestStrangersLearnNothing(t *testing.T) {
	w := newWorld(t, 3<<20, paid)
	require.NoError(t, w.provider.Stop(w.ctx))
	var e *eavesdropper
	var away, find, acquire, read atomic.Bool
	var acquired atomic.Pointer[func()]
	var log lockedBuffer
	w.provider.WrapHost = func(h host.Host) host.Host {
		e = &eavesdropper{Host: h, said: map[protocol.ID][]byte{}}
		return e
	}
	w.provider.WrapChain = func(c paych.Chain) paych.Chain { return brokenChain{c, &away} }
	w.provider.WrapPieces = func(p retrievalimpl.PieceSource) retrievalimpl.PieceSource {
		return brokenPieces{p, &find, &acquire, &read, &acquired}
	}
	w.provider.Log = slog.New(slog.NewTextHandler(&log, nil))
	require.NoError(t, w.provider.Start(w.ctx, nil))
	require.NoError(t, w.client.Start(w.ctx, nil))
	for name, set := range map[string]*atomic.Bool{"chain": &away, "find": &find, "acquire": &acquire, "read": &read} {
		for _, transport := range []string{api.TransportGraphsync, api.TransportStream} {
			set.Store(true)
			_, _ = w.client.API().Find(w.ctx, w.root, []string{w.provider.Address()})
			req := w.request()
			req.Transport, req.Output = transport, ""
			ctx, cancel := context.WithCancel(w.ctx)
			r, err := w.client.Retrieve(ctx, req)
			cancel()
			require.True(t, err != nil || !r.OK, "%s over %s", name, transport)
			set.Store(false)
		}
	}
	// The chain goes away in the middle of a deal, whose payments cannot be looked at then.
	lost := func() { away.Store(true) }
	acquired.Store(&lost)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = w.client.Retrieve(ctx, w.request())
	}()
	require.Eventually(t, func() bool { return e.says("cannot check payments") }, 15*time.Second, 10*time.Millisecond)
	cancel()
	<-ended
	e.mu.Lock()
	defer e.mu.Unlock()
	require.GreaterOrEqual(t, len(e.said), 4, "queries, transfers and both ways of data")
	told := 0
	for id, words := range e.said {
		for _, secret := range []string{secretPath, secretURL, "10.9.8.7", "secret-home", "no such file", "connection refused", "dial tcp", "context canceled", filepath.Dir(w.file), ".car", "goroutine"} {
			require.NotContains(t, string(words), secret, "%s", id)
		}
		for _, ref := range reference.FindAllSubmatch(words, -1) {
			told++
			require.Contains(t, string(log.bytes()), "reference="+string(ref[1]), "%s", id)
		}
	}
	require.GreaterOrEqual(t, told, 4, "a query about each of chain and pieces, twice")
	require.Contains(t, string(log.bytes()), secretPath)
}

// TestStorageRefusalsTellNothing: the same for proposals of storage deals: the filter command and the file of the chain are this side's.
func TestStorageRefusalsTellNothing(t *testing.T) {
	d := newStoring(t)
	var log lockedBuffer
	var e *eavesdropper
	d.provider.WrapHost = func(h host.Host) host.Host {
		e = &eavesdropper{Host: h, said: map[protocol.ID][]byte{}}
		return e
	}
	d.provider.Log = slog.New(slog.NewTextHandler(&log, nil))
	filter := "/srv/secret-home/filter.sh"
	d.provider.Config.Storage.Filter = []string{filter}
	require.NoError(t, d.provider.Start(d.ctx, nil))
	require.NoError(t, d.client.Start(d.ctx, nil))
	_, err := d.start()
	require.ErrorContains(t, err, "the filter of storage deals failed")
	require.NoError(t, os.WriteFile(d.provider.Config.Storage.ChainView, []byte("{"), 0o600))
	_, _ = d.start()
	e.mu.Lock()
	defer e.mu.Unlock()
	told := 0
	for id, words := range e.said {
		for _, secret := range []string{filter, "secret-home", "fork/exec", "no such file", filepath.Dir(d.provider.Config.Storage.ChainView)} {
			require.NotContains(t, string(words), secret, "%s", id)
		}
		for _, ref := range reference.FindAllSubmatch(words, -1) {
			told++
			require.Contains(t, string(log.bytes()), "reference="+string(ref[1]), "%s", id)
		}
	}
	require.NotZero(t, told)
	require.Contains(t, string(log.bytes()), filter)
}
