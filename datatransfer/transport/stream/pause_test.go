package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// listener is an events handler that does what a test says, and notes how it ended.
type listener struct {
	port.PlainHandler
	mu       sync.Mutex
	received int
	queued   int
	ends     []error
	cut      []error
	lost     []dt.Message
	requests []dt.Request
	onData   func(n int) error
	onQueue  func(n int) (dt.Message, error)
	decide   func(dt.Request) error
	taken    []dt.ChannelID
}

// newListener makes one whose further methods are those of a published handler.
func newListener() *listener {
	l := &listener{}
	l.EventsHandler = l
	return l
}

func (l *listener) OnChannelOpened(dt.ChannelID) error { return nil }
func (l *listener) OnTransferQueued(dt.ChannelID)      {}
func (l *listener) OnContextAugment(dt.ChannelID) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context { return ctx }
}
func (l *listener) OnDataSent(dt.ChannelID, ipld.Link, uint64, int64, bool) error { return nil }
func (l *listener) OnSendDataError(dt.ChannelID, error) error                     { return nil }
func (l *listener) OnResponseReceived(dt.ChannelID, dt.Response) error            { return nil }

func (l *listener) OnReceiveDataError(_ dt.ChannelID, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = append(l.cut, err)
	return nil
}

func (l *listener) OnDataReceived(dt.ChannelID, ipld.Link, uint64, int64, bool) error {
	l.mu.Lock()
	l.received++
	n := l.received
	l.mu.Unlock()
	if l.onData == nil {
		return nil
	}
	return l.onData(n)
}

func (l *listener) OnDataQueued(dt.ChannelID, ipld.Link, uint64, int64, bool) (dt.Message, error) {
	l.mu.Lock()
	l.queued++
	n := l.queued
	l.mu.Unlock()
	if l.onQueue == nil {
		return nil, nil
	}
	return l.onQueue(n)
}

func (l *listener) OnRequestReceived(_ dt.ChannelID, r dt.Request) (dt.Response, error) {
	l.mu.Lock()
	l.requests = append(l.requests, r)
	decide := l.decide
	l.mu.Unlock()
	if decide == nil {
		return nil, nil
	}
	return nil, decide(r)
}

func (l *listener) AdoptForSending(chid dt.ChannelID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = append(l.taken, chid)
	return nil
}

func (l *listener) OnChannelCompleted(_ dt.ChannelID, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, err)
	return nil
}

func (l *listener) Undelivered(_ dt.ChannelID, m dt.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = append(l.lost, m)
	return true
}

func (l *listener) state() (received int, ends []error, cut []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.received, l.ends, l.cut
}

// link is two transports with listeners on a net of pure virtual time: a receives from b.
type link struct {
	t      *testing.T
	a, b   *stream.Transport
	la, lb *listener
	chid   dt.ChannelID
	root   ipld.Link
	msg    dt.Message
	store  *testutil.MemStore
	have   *testutil.MemStore
	from   host.Host
	to     host.Host
}

func onLink(t *testing.T, f func(l *link)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := mocknet.New()
		ha, err := net.GenPeer()
		require.NoError(t, err)
		hb, err := net.GenPeer()
		require.NoError(t, err)
		require.NoError(t, net.LinkAll())
		_, err = net.ConnectPeers(ha.ID(), hb.ID())
		require.NoError(t, err)
		l := &link{t: t, la: newListener(), lb: newListener(), store: testutil.NewMemStore(), have: testutil.NewMemStore(), from: hb, to: ha}
		root, _, err := l.store.BuildDAG(leaves, 100, 3)
		require.NoError(t, err)
		l.root = cidlink.Link{Cid: root}
		l.a, l.b = stream.New(ha, l.have.LinkSystem()), stream.New(hb, l.store.LinkSystem())
		require.NoError(t, l.a.SetEventHandler(l.la))
		require.NoError(t, l.b.SetEventHandler(l.lb))
		l.chid = dt.ChannelID{Initiator: ha.ID(), Responder: hb.ID(), ID: 1}
		l.msg, err = message.NewRequest(1, false, true, "FakeDTType", testutil.NewFakeDTType("v"), root, shared.AllSelector())
		require.NoError(t, err)
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			require.NoError(t, errors.Join(l.a.Shutdown(ctx), l.b.Shutdown(ctx), net.Close()))
		}()
		f(l)
	})
}

func (l *link) open() {
	l.t.Helper()
	require.NoError(l.t, l.a.OpenChannel(l.t.Context(), l.from.ID(), l.chid, l.root, shared.AllSelector(), nil, l.msg))
}

// completed checks that all blocks came, each once, and that the transfer ended well on both sides.
func (l *link) completed() {
	l.t.Helper()
	synctest.Wait()
	received, ends, cut := l.la.state()
	require.Empty(l.t, cut)
	require.Equal(l.t, []error{nil}, ends)
	require.Equal(l.t, leaves+1, received)
	require.Equal(l.t, leaves+1, l.have.Len())
	_, ends, _ = l.lb.state()
	require.NotEmpty(l.t, ends) // once more if it had sent everything before a pause reached it
	for _, err := range ends {
		require.NoError(l.t, err)
	}
}

func update(paused bool) dt.Message { return message.UpdateRequest(1, paused) }

// TestLongPause: a sender may be silent for as long as it likes.
func TestLongPause(t *testing.T) {
	onLink(t, func(l *link) {
		l.lb.onQueue = func(n int) (dt.Message, error) {
			if n == 3 {
				return nil, dt.ErrPause
			}
			return nil, nil
		}
		l.open()
		time.Sleep(3 * time.Hour)
		received, ends, cut := l.la.state()
		require.Equal(t, 3, received)
		require.Empty(t, ends)
		require.Empty(t, cut)
		require.NoError(t, l.b.ResumeChannel(t.Context(), nil, l.chid))
		l.completed()
	})
}

// TestCrossedResume: a resume that comes while a pause is decided on ends it, on either side.
func TestCrossedResume(t *testing.T) {
	t.Run("of the sender", func(t *testing.T) {
		onLink(t, func(l *link) {
			l.lb.onQueue = func(n int) (dt.Message, error) {
				if n == 3 {
					require.NoError(t, l.b.ResumeChannel(t.Context(), nil, l.chid))
					return nil, dt.ErrPause
				}
				return nil, nil
			}
			l.open()
			l.completed()
		})
	})
	t.Run("of the recipient", func(t *testing.T) {
		onLink(t, func(l *link) {
			l.la.onData = func(n int) error {
				if n == 3 {
					require.Error(t, l.a.ResumeChannel(t.Context(), update(false), l.chid), "the message goes another way")
					return dt.ErrPause
				}
				return nil
			}
			l.open()
			l.completed()
		})
	})
}

// TestRecipientPauses: a recipient that pauses at a block goes on from there, and a second resume takes nothing from the first.
func TestRecipientPauses(t *testing.T) {
	onLink(t, func(l *link) {
		l.la.onData = func(n int) error {
			if n == 3 {
				return dt.ErrPause
			}
			return nil
		}
		l.open()
		synctest.Wait()
		received, ends, _ := l.la.state()
		require.Equal(t, 3, received)
		require.Empty(t, ends)
		require.NoError(t, l.a.ResumeChannel(t.Context(), update(false), l.chid))
		require.Error(t, l.a.ResumeChannel(t.Context(), nil, l.chid))
		l.completed()
		require.Len(t, l.lb.requests, 2)
		require.True(t, l.lb.requests[1].IsUpdate())
	})
}

// TestSenderStartedAgain: a sender that does not know a channel any more takes it up when the recipient goes on; one that knows it does
// not.
func TestSenderStartedAgain(t *testing.T) {
	for name, forgets := range map[string]bool{"forgot": true, "knows": false} {
		t.Run(name, func(t *testing.T) {
			onLink(t, func(l *link) {
				l.la.onData = func(n int) error {
					if n == 3 {
						return dt.ErrPause
					}
					return nil
				}
				l.open()
				synctest.Wait()
				if forgets {
					l.b.CleanupChannel(l.chid)
				}
				require.NoError(t, l.a.ResumeChannel(t.Context(), update(false), l.chid))
				l.completed()
				if forgets {
					require.Equal(t, []dt.ChannelID{l.chid}, l.lb.taken)
				} else {
					require.Empty(t, l.lb.taken)
				}
			})
		})
	}
}

// TestPauseBeforeTheQuestion: a recipient that pauses before it has asked still proposes when it goes on.
func TestPauseBeforeTheQuestion(t *testing.T) {
	onLink(t, func(l *link) {
		data, err := l.store.Get(l.root.(cidlink.Link).Cid)
		require.NoError(t, err)
		ls := l.have.LinkSystem()
		w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{})
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
		require.NoError(t, commit(l.root)) // the root is here: the handler hears of it before anything is asked
		l.la.onData = func(n int) error {
			if n == 1 {
				return dt.ErrPause
			}
			return nil
		}
		l.open()
		synctest.Wait()
		require.Empty(t, l.lb.requests)
		require.NoError(t, l.a.ResumeChannel(t.Context(), update(false), l.chid))
		synctest.Wait()
		require.Len(t, l.lb.requests, 1)
		require.True(t, l.lb.requests[0].IsNew())
		_, ends, _ := l.la.state()
		require.Equal(t, []error{nil}, ends)
		require.Len(t, l.la.lost, 1, "the resume goes another way")
	})
}

// TestWishesWhileDeciding: the last wish of the application while a question is decided on counts.
func TestWishesWhileDeciding(t *testing.T) {
	for name, tc := range map[string]struct {
		wishes []bool // true is a resume
		answer error
		flows  bool
	}{
		"paused and resumed": {[]bool{true}, dt.ErrPause, true},
		"paused":             {nil, dt.ErrPause, false},
		"running and paused": {[]bool{false}, nil, false},
		"resume, then pause": {[]bool{true, false}, dt.ErrPause, false},
		"pause, then resume": {[]bool{false, true}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			onLink(t, func(l *link) {
				l.lb.decide = func(dt.Request) error {
					for _, resume := range tc.wishes {
						if resume {
							require.NoError(t, l.b.ResumeChannel(t.Context(), nil, l.chid))
						} else {
							require.NoError(t, l.b.PauseChannel(t.Context(), l.chid))
						}
					}
					return tc.answer
				}
				l.open()
				synctest.Wait()
				received, _, _ := l.la.state()
				if !tc.flows {
					require.Zero(t, received)
					require.NoError(t, l.b.ResumeChannel(t.Context(), nil, l.chid))
				}
				l.completed()
			})
		})
	}
}
