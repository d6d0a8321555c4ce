package lotus_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/filecoin-project/go-state-types/big"

	pay "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/lotus"
)

// FuzzAnswers: whatever a node answers, every call ends, with an error or a value, and nothing panics.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{`null`, `{}`, `"f01000"`, `{"Cids":[{"/":"bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4"}],"Height":5,"Blocks":[]}`,
		`{"Balance":"100","Code":{"/":"bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4"},"State":{"From":"f01001","To":"f01002","ToSend":"0","SettlingAt":0,"MinSettleHeight":0,"LaneStates":{"/":"bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4"}}}`,
		`{"Message":{"/":"bafkqaaa"},"Receipt":{"ExitCode":0,"Return":"gkMA0glVAncFdlXJMWdwlG3wJZXbuKP2YhLL","GasUsed":9},"Height":10101}`, `{"paymentchannel":{"/":"bafkqaaa"}}`, `"gkMA"`, `29`, `-1`, `[]`} {
		f.Add([]byte(seed))
	}
	var answer []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req struct {
			ID json.RawMessage `json:"id"`
		}
		_ = json.Unmarshal(body, &req)
		_, _ = w.Write(append(append(append([]byte(`{"jsonrpc":"2.0","id":`), req.ID...), `,"result":`...), append(answer, '}')...))
	}))
	f.Cleanup(srv.Close)
	c, stop, err := lotus.Dial(f.Context(), lotus.Config{URL: srv.URL, CallTime: time.Second, MaxAge: -1, Rest: time.Nanosecond})
	require.NoError(f, err)
	f.Cleanup(stop)
	ch, err := address.NewActorAddress([]byte("channel"))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		answer = data
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, _, _ = c.Head(ctx)
		if info, err := c.Channel(ctx, ch); err == nil {
			require.NotNil(t, info.Lanes)
		}
		_, _ = c.Balance(ctx, ch)
		_, _ = c.Submit(ctx, pay.Op{Kind: pay.OpCreate, From: ch, To: ch, Value: big.NewInt(1), Intent: uuid.New()})
		_, _ = c.Wait(ctx, cid.NewCidV1(cid.Raw, []byte{0x12, 0x01, 0x00}))
	})
}
