package askstore_test

import (
	"bytes"
	"testing"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
)

var latest = datastore.NewKey("latest")

func priced(n int64) *rm.Ask {
	return &rm.Ask{PricePerByte: abi.NewTokenAmount(n), UnsealPrice: abi.NewTokenAmount(7), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 3}
}

func encoded(t *testing.T, tuple bool, a *rm.Ask) []byte {
	var b bytes.Buffer
	if tuple {
		require.NoError(t, rm.WriteTuple(&b, a))
	} else {
		require.NoError(t, a.MarshalCBOR(&b))
	}
	return b.Bytes()
}

// TestAskOfOthers: an ask that the reference stored, below its version or before there were versions, is the ask. What does not decode is an error and
// never the default price.
func TestAskOfOthers(t *testing.T) {
	for name, at := range map[string]struct {
		key   datastore.Key
		tuple bool
	}{"version 1": {datastore.NewKey("/1/latest"), false}, "version 0": {latest, true}} {
		t.Run(name, func(t *testing.T) {
			ds := dssync.MutexWrap(datastore.NewMapDatastore())
			require.NoError(t, ds.Put(t.Context(), at.key, []byte("damaged")))
			_, err := askstore.NewAskStore(ds, latest)
			require.ErrorContains(t, err, at.key.String())
			require.NoError(t, ds.Put(t.Context(), at.key, encoded(t, at.tuple, priced(5))))
			s, err := askstore.NewAskStore(ds, latest)
			require.NoError(t, err)
			require.Equal(t, priced(5), s.GetAsk())
			require.NoError(t, s.SetAsk(priced(9)))
			s, err = askstore.NewAskStore(ds, latest)
			require.NoError(t, err)
			require.Equal(t, priced(9), s.GetAsk())
		})
	}
}

// TestAskBounds: a bad ask is refused and the old one stays; the default is stored once.
func TestAskBounds(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	s, err := askstore.NewAskStore(ds, latest)
	require.NoError(t, err)
	require.Equal(t, rm.DefaultPricePerByte, s.GetAsk().PricePerByte)
	require.NoError(t, s.SetAsk(priced(5)))
	for name, change := range map[string]func(*rm.Ask){
		"price":    func(a *rm.Ask) { a.PricePerByte = abi.NewTokenAmount(-1) },
		"too much": func(a *rm.Ask) { a.UnsealPrice = big.Lsh(big.NewInt(1), 96) },
		"none":     func(a *rm.Ask) { a.PricePerByte = abi.TokenAmount{} },
		"interval": func(a *rm.Ask) { a.PaymentInterval = 0 },
		"increase": func(a *rm.Ask) { a.PaymentIntervalIncrease = askstore.MaxInterval + 1 },
	} {
		bad := priced(1)
		change(bad)
		require.Error(t, s.SetAsk(bad), name)
		require.Equal(t, priced(5), s.GetAsk(), name)
	}
	require.Error(t, s.SetAsk(nil))
	got := s.GetAsk()
	got.PaymentInterval = 1
	require.Equal(t, priced(5), s.GetAsk(), "what is returned is a copy")
}
