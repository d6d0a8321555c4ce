package stream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/shared"
)

// scene is a peer that prefers streams, and a host that speaks the protocol by hand.
type scene struct {
	t      *testing.T
	ctx    context.Context
	peer   *testutil.Peer
	foe    host.Host
	source *testutil.MemStore // what is traded
	root   cid.Cid
	total  uint64
	order  []cid.Cid
	ended  chan dt.ChannelState
}

const leaves = 8

func newScene(t *testing.T, r dt.Revalidator, serve func(w *scene, s network.Stream)) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	w := &scene{t: t, ctx: ctx, source: testutil.NewMemStore(), ended: make(chan dt.ChannelState, 16)}
	var err error
	w.root, w.total, err = w.source.BuildDAG(leaves, 100, 3)
	require.NoError(t, err)
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		w.order = append(w.order, c)
		return w.source.Get(c)
	})
	require.NoError(t, carstore.WalkSelector(&ls, w.root, shared.AllSelector(), nil))
	cfg := testutil.PeerConfig{Stream: true, Host: []libp2p.Option{libp2p.ResourceManager(&network.NullResourceManager{})}, Prepare: func(m dt.Manager) {
		require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
		require.NoError(t, m.RegisterVoucherResultType(testutil.NewFakeDTType("")))
		if r != nil {
			require.NoError(t, m.RegisterRevalidator(testutil.NewFakeDTType(""), r))
		}
		m.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
			if e.Code == dt.CleanupComplete || e.Code == dt.ReceiveDataError {
				w.ended <- s
			}
		})
	}}
	if serve == nil {
		cfg.Store = w.source
	}
	w.peer, err = cfg.Start(ctx)
	require.NoError(t, err)
	w.foe, err = libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, w.peer.Close(context.Background()))
		require.NoError(t, w.foe.Close())
	})
	if serve != nil {
		w.foe.SetStreamHandler(stream.ProtocolID, func(s network.Stream) {
			defer s.Reset()
			serve(w, s)
			_ = s.CloseWrite()
			_, _ = io.Copy(io.Discard, s)
		})
	}
	require.NoError(t, w.foe.Connect(ctx, peer.AddrInfo{ID: w.peer.Host.ID(), Addrs: w.peer.Host.Addrs()}))
	if serve != nil {
		require.Eventually(t, func() bool {
			known, err := w.peer.Host.Peerstore().SupportsProtocols(w.foe.ID(), stream.ProtocolID)
			return err == nil && len(known) > 0
		}, 10*time.Second, time.Millisecond)
	}
	return w
}

func (w *scene) section(i int) []byte {
	data, err := w.source.Get(w.order[i])
	require.NoError(w.t, err)
	return append(stream.Section(nil, w.order[i], len(data)), data...)
}

func (w *scene) sections(from, to int) (out []byte) {
	for i := from; i < to; i++ {
		out = append(out, w.section(i)...)
	}
	return out
}

// accept reads the question and answers that all is well.
func (w *scene) accept(s network.Stream) {
	_, m, err := stream.ReadAsk(s)
	if err != nil {
		return
	}
	resp, err := message.NewResponse(m.TransferID(), true, false, dt.EmptyTypeIdentifier, nil)
	if err == nil {
		err = w.send(s, resp)
	}
	_ = err
}

func (w *scene) send(s network.Stream, m dt.Message) error {
	out, err := stream.MessageFrame(m)
	if err == nil {
		_, err = s.Write(out)
	}
	return err
}

// TestHostileSender: whatever a sender sends, nothing but the right blocks in their order is stored and counted.
func TestHostileSender(t *testing.T) {
	for name, tc := range map[string]struct {
		send   func(w *scene) []byte
		says   string
		blocks int // that count
		cut    bool
	}{
		"a wrong block": {func(w *scene) []byte {
			data, err := w.source.Get(w.order[1])
			require.NoError(w.t, err)
			bad := append([]byte("X"), data[1:]...)
			return stream.BlocksFrame(append(w.section(0), append(stream.Section(nil, w.order[1], len(bad)), bad...)...))
		}, "data failed verification", 1, false},
		"T51 the right block out of order": {func(w *scene) []byte {
			return stream.BlocksFrame(append(w.section(0), w.section(2)...))
		}, "another block than the one that follows", 1, false},
		"T53 S39 a block twice": {func(w *scene) []byte {
			return stream.BlocksFrame(append(w.section(0), w.section(0)...))
		}, "another block than the one that follows", 1, false},
		"T52 one block more": {func(w *scene) []byte {
			return stream.BlocksFrame(append(w.sections(0, len(w.order)), w.section(0)...))
		}, "more than were asked for", leaves + 1, false},
		"an end too early": {func(w *scene) []byte {
			return append(stream.BlocksFrame(w.sections(0, 3)), stream.EndFrame(stream.Ended, "")...)
		}, "ended before everything was sent", 3, false},
		"a block that it does not have": {func(w *scene) []byte {
			return append(stream.BlocksFrame(w.sections(0, 3)), stream.EndFrame(stream.Missing, w.order[3].String())...)
		}, "misses a block", 3, false},
		"a huge frame":             {func(w *scene) []byte { return stream.RawFrame(3, 1<<31, nil) }, "the limit is", 0, false},
		"a frame of unknown kind":  {func(w *scene) []byte { return stream.RawFrame(77, 0, nil) }, "unknown kind 77", 0, false},
		"an empty frame of blocks": {func(w *scene) []byte { return stream.BlocksFrame(nil) }, "an empty frame", 0, false},
		"a huge section": {func(w *scene) []byte {
			return stream.BlocksFrame([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1})
		}, "a section of", 0, false},
		"a section longer than its frame": {func(w *scene) []byte {
			return stream.BlocksFrame(w.section(0)[:20])
		}, "a section of", 0, false},
		"a section shorter than its CID": {func(w *scene) []byte {
			return stream.BlocksFrame([]byte{3, 1, 2, 3})
		}, "a section of 3 bytes", 0, false},
		"a message that does not decode": {func(w *scene) []byte { return stream.RawFrame(2, 3, []byte{1, 2, 3}) }, "stream failed to complete", 0, false},
		"a question":                     {func(w *scene) []byte { return stream.RawFrame(1, 1, []byte{0}) }, "frame of kind 1", 0, false},
		"a frame cut short":              {func(w *scene) []byte { return stream.RawFrame(3, 1000, w.sections(0, 2)) }, "", 2, true},
		"nothing more":                   {func(w *scene) []byte { return stream.BlocksFrame(w.sections(0, 4)) }, "", 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newScene(t, nil, func(w *scene, s network.Stream) {
				w.accept(s)
				_, _ = s.Write(tc.send(w))
			})
			chid, err := w.peer.Manager.OpenPullDataChannel(w.ctx, w.foe.ID(), testutil.NewFakeDTType("v"), w.root, shared.AllSelector())
			require.NoError(t, err)
			select {
			case <-w.ended:
			case <-w.ctx.Done():
				t.Fatal("the recipient waits for ever")
			}
			s, err := w.peer.Manager.ChannelState(w.ctx, chid)
			require.NoError(t, err)
			require.Contains(t, s.Message(), tc.says)
			if tc.cut {
				require.NotEqual(t, dt.Failed, s.Status(), "a restart may go on")
			} else {
				require.Equal(t, dt.Failed, s.Status())
			}
			var due uint64
			for _, c := range w.order[:tc.blocks] {
				data, err := w.source.Get(c)
				require.NoError(t, err)
				due += uint64(len(data))
			}
			require.Equal(t, due, s.Received(), "what is counted")
			require.Equal(t, tc.blocks, w.peer.Store.Len(), "what is stored")
		})
	}
}

// ask opens a stream to the peer and asks.
func (w *scene) ask(m dt.Message, has int64) (network.Stream, *bufio.Reader) {
	s, err := w.foe.NewStream(w.ctx, w.peer.Host.ID(), stream.ProtocolID)
	require.NoError(w.t, err)
	out, err := stream.AskFrame(w.root, shared.AllSelector(), has, m)
	require.NoError(w.t, err)
	_, err = s.Write(out)
	require.NoError(w.t, err)
	return s, bufio.NewReader(s)
}

func (w *scene) request(id dt.TransferID, restart bool) dt.Message {
	m, err := message.NewRequest(id, restart, true, "FakeDTType", testutil.NewFakeDTType("v"), w.root, shared.AllSelector())
	require.NoError(w.t, err)
	return m
}

// drain reads what a peer sends until it stops for a while, and returns the bytes of the blocks' sections.
func drain(s network.Stream, in *bufio.Reader) (sections int, ended bool) {
	return read(s, in, 300*time.Millisecond)
}

// read reads what a peer sends until its end, or until it stops for so long.
func read(s network.Stream, in *bufio.Reader, quiet time.Duration) (sections int, ended bool) {
	for !ended {
		_ = s.SetReadDeadline(time.Now().Add(quiet))
		k, body, err := stream.ReadFrame(in)
		if err != nil {
			return sections, ended
		}
		switch k {
		case 3:
			sections += len(body)
		case 4:
			ended = true
		}
	}
	return sections, ended
}

// TestHostileRecipient: a recipient that does not pay gets one interval and a block, however it asks.
func TestHostileRecipient(t *testing.T) {
	const interval = 250
	perBlock := 100 + 38 // a leaf with its CID and length
	t.Run("T24 T26 asks again and again", func(t *testing.T) {
		w := newScene(t, &testutil.Meter{Every: interval}, nil)
		s, in := w.ask(w.request(1, false), 0)
		first, ended := drain(s, in)
		require.False(t, ended)
		for range 3 {
			s, in = w.ask(w.request(1, true), int64(4))
			more, ended := drain(s, in)
			require.False(t, ended)
			require.LessOrEqual(t, more, perBlock, "nothing new without a payment")
		}
		require.Less(t, first, len(w.sections(0, len(w.order))))
		state, err := w.peer.Manager.ChannelState(w.ctx, dt.ChannelID{Initiator: w.foe.ID(), Responder: w.peer.Host.ID(), ID: 1})
		require.NoError(t, err)
		require.Less(t, state.Queued(), uint64(interval)+uint64(len(w.section(0)))+100)
	})
	t.Run("T25 claims to have what it has not", func(t *testing.T) {
		w := newScene(t, &testutil.Meter{Every: interval}, nil)
		s, in := w.ask(w.request(1, false), 1<<40)
		got, ended := read(s, in, 10*time.Second)
		require.Zero(t, got)
		require.True(t, ended, "everything that it says it has is not sent")
		got, _ = drain(s, in)
		require.Zero(t, got)
		chid := dt.ChannelID{Initiator: w.foe.ID(), Responder: w.peer.Host.ID(), ID: 1}
		state, err := w.peer.Manager.ChannelState(w.ctx, chid)
		require.NoError(t, err)
		require.Zero(t, state.Queued())
	})
	for name, bad := range map[string][]byte{
		"blocks": stream.BlocksFrame([]byte{1, 2}), "a huge frame": stream.RawFrame(2, 1<<30, nil), "no frame": {9, 9, 9, 9, 9}, "an end": stream.EndFrame(stream.Ended, ""),
	} {
		t.Run("says "+name+" while it is served", func(t *testing.T) {
			w := newScene(t, &testutil.Meter{Every: interval}, nil)
			s, in := w.ask(w.request(1, false), 0)
			drain(s, in)
			_, err := s.Write(bad)
			require.NoError(t, err)
			_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
			for err == nil {
				_, _, err = stream.ReadFrame(in)
			}
			require.ErrorIs(t, err, network.ErrReset)
		})
	}
	t.Run("another root than that of its request", func(t *testing.T) {
		w := newScene(t, nil, nil)
		m := w.request(1, false)
		w.root = w.order[1]
		s, in := w.ask(m, 0)
		got, ended := read(s, in, 10*time.Second)
		require.Zero(t, got)
		require.True(t, ended)
		got, _ = drain(s, in)
		require.Zero(t, got)
	})
	t.Run("too many streams", func(t *testing.T) {
		w := newScene(t, nil, nil)
		var refused atomic.Int64
		var over atomic.Bool
		var wg sync.WaitGroup
		var open []network.Stream
		for range 1024 + 3 {
			s, err := w.foe.NewStream(w.ctx, w.peer.Host.ID(), stream.ProtocolID)
			require.NoError(t, err)
			_, err = s.Write([]byte{1}) // the question never comes
			require.NoError(t, err)
			open = append(open, s)
			wg.Go(func() {
				if _, err := s.Read(make([]byte, 1)); errors.Is(err, network.ErrReset) && !over.Load() {
					refused.Add(1)
				}
			})
		}
		require.Eventually(t, func() bool { return refused.Load() >= 3 }, 20*time.Second, 5*time.Millisecond)
		time.Sleep(100 * time.Millisecond) // others might be refused too
		over.Store(true)
		for _, s := range open {
			_ = s.Reset()
		}
		wg.Wait()
		require.EqualValues(t, 3, refused.Load())
	})
}

// TestSlowSender: a frame that has begun has to come within its time, one byte after the other or not at all.
func TestSlowSender(t *testing.T) {
	for name, bytes := range map[string]int{"one byte after the other": 500, "nothing after the head": 5} {
		t.Run(name, func(t *testing.T) {
			w := newScene(t, nil, func(w *scene, s network.Stream) {
				if _, _, err := stream.ReadAsk(s); err != nil {
					return
				}
				for _, b := range stream.RawFrame(3, 1<<19, w.sections(0, len(w.order)))[:bytes] {
					if _, err := s.Write([]byte{b}); err != nil || !lifecycle.Sleep(w.ctx, 20*time.Millisecond) {
						return
					}
				}
				<-w.ctx.Done()
			})
			l := newListener()
			store := testutil.NewMemStore()
			h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics())
			require.NoError(t, err)
			defer h.Close()
			require.NoError(t, h.Connect(w.ctx, peer.AddrInfo{ID: w.foe.ID(), Addrs: w.foe.Addrs()}))
			tr := stream.New(h, store.LinkSystem(), stream.FrameTimeout(200*time.Millisecond))
			require.NoError(t, tr.SetEventHandler(l))
			defer func() { require.NoError(t, tr.Shutdown(context.Background())) }()
			chid := dt.ChannelID{Initiator: h.ID(), Responder: w.foe.ID(), ID: 1}
			require.NoError(t, tr.OpenChannel(w.ctx, w.foe.ID(), chid, cidlink.Link{Cid: w.root}, shared.AllSelector(), nil, w.request(1, false)))
			require.Eventually(t, func() bool {
				_, _, cut := l.state()
				return len(cut) == 1
			}, 10*time.Second, 5*time.Millisecond)
			require.Zero(t, store.Len())
		})
	}
}
