package network_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/network"
)

func encoded(t *testing.T, m dt.Message) []byte {
	var b bytes.Buffer
	require.NoError(t, m.ToNet(&b))
	return b.Bytes()
}

// TestChecklist13 is number 13 of the checklist: two messages on one stream are taken, sixteen too, the seventeenth is refused,
// and a peer that writes slowly is cut off.
func TestChecklist13(t *testing.T) {
	a, b := hosts(t)
	to := network.NewFromLibp2pHost(b, network.ReceiveParameters(16, 300*time.Millisecond))
	in := newInbox()
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	one := encoded(t, message.CancelResponse(7))
	for _, tc := range []struct {
		name      string
		n, taken  int
		wantReset bool
	}{{"two", 2, 2, false}, {"sixteen", 16, 16, false}, {"seventeen", 17, 16, true}} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := a.NewStream(t.Context(), b.ID(), dt.ProtocolDataTransfer1_2)
			require.NoError(t, err)
			if _, err = s.Write(bytes.Repeat(one, tc.n)); !tc.wantReset {
				require.NoError(t, err)
			}
			if err := s.CloseWrite(); !tc.wantReset { // the reset may come first
				require.NoError(t, err)
			}
			_, err = io.ReadAll(s)
			require.Equal(t, tc.wantReset, err != nil, "%v", err)
			require.Len(t, in.wait(t, tc.taken), tc.taken)
			in.mu.Lock()
			in.got = nil
			in.mu.Unlock()
		})
	}
	t.Run("slow", func(t *testing.T) {
		s, err := a.NewStream(t.Context(), b.ID(), dt.ProtocolDataTransfer1_2)
		require.NoError(t, err)
		_, err = s.Write(one[:3]) // and nothing more
		require.NoError(t, err)
		_, err = io.ReadAll(s) // ends when the other side has had enough
		require.Error(t, err)
	})
	t.Run("R18", func(t *testing.T) {
		in := newInbox()
		other := network.NewFromLibp2pHost(b, network.DataTransferProtocols([]protocol.ID{"/other/1.0.0"}))
		other.SetDelegate(in)
		defer other.SetDelegate(nil)
		s, err := a.NewStream(t.Context(), b.ID(), "/other/1.0.0")
		if err == nil { // the reset may come before the end of the negotiation
			_, _ = s.Write(one)
			_, err = io.ReadAll(s)
		}
		require.Error(t, err)
		require.NotContains(t, in.got, "response")
	})
}

// TestR13Stop: what is being received ends with the delegate, although the sender neither goes on nor closes.
func TestR13Stop(t *testing.T) {
	a, b := hosts(t)
	to := network.NewFromLibp2pHost(b)
	to.SetDelegate(newInbox())
	s, err := a.NewStream(t.Context(), b.ID(), dt.ProtocolDataTransfer1_2)
	require.NoError(t, err)
	_, err = s.Write(encoded(t, message.CancelResponse(7))[:3])
	require.NoError(t, err)
	time.AfterFunc(50*time.Millisecond, func() { to.SetDelegate(nil) })
	begin := time.Now()
	_, err = io.ReadAll(s)
	require.Error(t, err)
	require.Less(t, time.Since(begin), 10*time.Second)
}
