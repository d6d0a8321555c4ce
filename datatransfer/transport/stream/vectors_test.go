package stream

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/shared"
)

// vector is one frame and what is in it.
type vector struct {
	Name  string `json:"name"`
	Frame string `json:"frame"`
}

// TestVectors: the frames of docs/protocol/stream.md, byte for byte. UPDATE_VECTORS=1 writes them anew.
func TestVectors(t *testing.T) {
	data := []byte("block")
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(data)
	require.NoError(t, err)
	pause := message.UpdateRequest(7, true)
	q := question{root: c, selector: shared.AllSelector(), has: 3, msg: pause}
	ask, err := q.marshal()
	require.NoError(t, err)
	q.held = true
	held, err := q.marshal()
	require.NoError(t, err)
	said, err := messageFrame(pause)
	require.NoError(t, err)
	frames := []vector{
		{"ask: everything below " + c.String() + " from position 3, with the update request of transfer 7 that says paused", hex.EncodeToString(frame(kindAsk, ask))},
		{"the same ask with flag 1", hex.EncodeToString(frame(kindAsk, held))},
		{"message: that update request", hex.EncodeToString(said)},
		{"blocks: one section, the raw block with the bytes \"block\"", hex.EncodeToString(frame(kindBlocks, append(section(nil, c, len(data)), data...)))},
		{"end: everything was sent", hex.EncodeToString(endFrame(ended, ""))},
		{"end: that block is missing", hex.EncodeToString(endFrame(missing, c.String()))},
		{"stop", hex.EncodeToString(frame(kindStop, nil))},
	}
	const file = "testdata/vectors.json"
	if os.Getenv("UPDATE_VECTORS") != "" {
		out, err := json.MarshalIndent(frames, "", " ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, append(out, '\n'), 0o644))
	}
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var want []vector
	require.NoError(t, json.Unmarshal(raw, &want))
	require.Equal(t, want, frames)

	body, err := hex.DecodeString(want[0].Frame)
	require.NoError(t, err)
	k, size, err := readHeader(bytes.NewReader(body))
	require.NoError(t, err)
	require.Equal(t, kindAsk, k)
	var got question
	require.NoError(t, got.unmarshal(body[headerSize:headerSize+size]))
	require.Equal(t, c, got.root)
	require.EqualValues(t, 3, got.has)
	require.True(t, shared.SameNode(shared.AllSelector(), got.selector))
	require.True(t, got.msg.IsUpdate())
}
