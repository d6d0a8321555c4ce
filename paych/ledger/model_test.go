package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/store"
	pay "github.com/cartage-dev/cartage/paych"
)

// modelChannel is a payment channel as the model knows it: plain numbers.
type modelChannel struct {
	addr            address.Address
	from, to        int
	balance, toSend int64
	settlingAt      int64
	collected       bool
	lanes           map[uint64][2]int64 // redeemed, nonce
}

// model does what the rules say with maps and integers; the ledger must agree after every step.
type model struct {
	l        *Ledger
	keys     []*pay.Key
	balances []int64
	seqs     []uint64
	channels []*modelChannel
	minted   int64
	wall     int64 // the clock, which may go back
	epoch    int64 // I7: the highest it ever was
	applied  uint64
}

const modelDelay = 5

func newModel(t *rapid.T, keys []*pay.Key, op *pay.Key) *model {
	kv, err := store.OpenMemoryKV()
	require.NoError(t, err)
	m := &model{keys: keys, balances: make([]int64, len(keys)), seqs: make([]uint64, len(keys))}
	m.l = &Ledger{kv: kv, operator: op, faucet: map[address.Address]time.Time{}, net: network{
		ID: make([]byte, 32), Schema: schema, Epoch: uint64(time.Second), SettleDelay: modelDelay, Operator: op.Address,
	}}
	m.l.clock.now = func() time.Time { return time.Unix(m.wall, 0) }
	for i := range keys {
		m.mint(t, i, 1000)
	}
	return m
}

// apply puts a signed transaction through the ledger as the writer does, without the socket.
func (m *model) apply(t *rapid.T, key *pay.Key, x *Tx) (*ReceiptInfo, error) {
	require.NoError(t, x.Sign(key))
	data, err := x.Encode()
	require.NoError(t, err)
	decoded, err := DecodeTx(data)
	require.NoError(t, err)
	require.NoError(t, decoded.verify())
	c, err := txCid(data)
	require.NoError(t, err)
	s := &submission{decoded, data, c, make(chan error, 1)}
	m.l.apply([]*submission{s})
	if err := <-s.done; err != nil {
		return nil, err
	}
	return service{l: m.l}.Receipt(t.Context(), c)
}

func (m *model) tx(i int, kind Kind, to address.Address, value int64, params []byte) *Tx {
	id := uuid.New()
	return &Tx{Network: m.l.net.ID, From: m.keys[i].Address, Seq: m.seqs[i], ValidUntil: uint64(m.epoch) + 10, Kind: kind, To: to,
		Value: big.NewInt(value), Params: params, Intent: id[:]}
}

func (m *model) mint(t *rapid.T, to int, value int64) {
	id := uuid.New()
	x := &Tx{Network: m.l.net.ID, From: m.l.operator.Address, Seq: uint64(to), ValidUntil: uint64(m.epoch) + 10, Kind: KindMint,
		To: m.keys[to].Address, Value: big.NewInt(value), Intent: id[:]}
	r, err := m.apply(t, m.l.operator, x)
	require.NoError(t, err)
	require.Zero(t, r.ExitCode)
	m.balances[to] += value
	m.minted += value
	m.applied++
}

// run sends a transaction of account i and compares the outcome with what the model says.
func (m *model) run(t *rapid.T, i int, kind Kind, to address.Address, value int64, params []byte, works bool) *ReceiptInfo {
	r, err := m.apply(t, m.keys[i], m.tx(i, kind, to, value, params))
	require.NoError(t, err)
	require.Equal(t, works, r.ExitCode == 0, "kind %d: %s", kind, r.Message)
	m.seqs[i]++
	m.applied++
	return r
}

func (m *model) channel(t *rapid.T) *modelChannel {
	return m.channels[rapid.IntRange(0, len(m.channels)-1).Draw(t, "channel")]
}

func (m *model) actions() map[string]func(*rapid.T) {
	account := rapid.IntRange(0, len(m.keys)-1)
	some := func(f func(*rapid.T)) func(*rapid.T) {
		return func(t *rapid.T) {
			if len(m.channels) == 0 {
				t.Skip("no channel yet")
			}
			f(t)
		}
	}
	return map[string]func(*rapid.T){
		"transfer": func(t *rapid.T) {
			i, j, v := account.Draw(t, "from"), account.Draw(t, "to"), rapid.Int64Range(0, 1500).Draw(t, "value")
			works := m.balances[i] >= v
			m.run(t, i, KindTransfer, m.keys[j].Address, v, nil, works)
			if works {
				m.balances[i] -= v
				m.balances[j] += v
			}
		},
		"create": func(t *rapid.T) {
			i, j, v := account.Draw(t, "from"), account.Draw(t, "to"), rapid.Int64Range(0, 600).Draw(t, "value")
			works := m.balances[i] >= v && v >= minDeposit
			r := m.run(t, i, KindCreate, m.keys[j].Address, v, nil, works)
			if works {
				for _, c := range m.channels {
					require.NotEqual(t, c.addr, r.Channel, "I6: an address is never given again")
				}
				m.balances[i] -= v
				m.channels = append(m.channels, &modelChannel{addr: r.Channel, from: i, to: j, balance: v, lanes: map[uint64][2]int64{}})
			}
		},
		"add funds": some(func(t *rapid.T) {
			c, i, v := m.channel(t), account.Draw(t, "from"), rapid.Int64Range(0, 300).Draw(t, "value")
			works := m.balances[i] >= v && !c.collected
			m.run(t, i, KindAddFunds, c.addr, v, nil, works)
			if works {
				m.balances[i] -= v
				c.balance += v
			}
		}),
		"redeem": some(m.redeem),
		"settle": some(func(t *rapid.T) {
			c, i := m.channel(t), account.Draw(t, "by")
			works := !c.collected && c.settlingAt == 0 && (i == c.from || i == c.to)
			m.run(t, i, KindSettle, c.addr, 0, nil, works)
			if works {
				c.settlingAt = m.epoch + modelDelay
			}
		}),
		"collect": some(func(t *rapid.T) {
			c, i := m.channel(t), account.Draw(t, "by")
			works := !c.collected && c.settlingAt != 0 && m.epoch >= c.settlingAt && (i == c.from || i == c.to)
			m.run(t, i, KindCollect, c.addr, 0, nil, works)
			if works { // I9
				m.balances[c.to] += c.toSend
				m.balances[c.from] += c.balance - c.toSend
				c.balance, c.collected = 0, true
			}
		}),
		"time passes": func(t *rapid.T) {
			m.wall += rapid.Int64Range(-2, 4).Draw(t, "epochs")
			m.epoch = max(m.epoch, m.wall)
		},
		"": m.check,
	}
}

func (m *model) redeem(t *rapid.T) {
	c, lane := m.channel(t), rapid.Uint64Range(0, 3).Draw(t, "lane")
	nonce, amount := rapid.Int64Range(0, 12).Draw(t, "nonce"), rapid.Int64Range(0, 700).Draw(t, "amount")
	by := rapid.SampledFrom([]int{c.to, c.to, c.to, c.from, 0}).Draw(t, "by")
	v := &paych.SignedVoucher{ChannelAddr: c.addr, Lane: lane, Nonce: uint64(nonce), Amount: big.NewInt(amount), Merges: []paych.Merge{}}
	require.NoError(t, pay.SignVoucher(m.keys[c.from], v))
	p := redeemParams{paych.UpdateChannelStateParams{Sv: *v}}
	params, err := p.encode()
	require.NoError(t, err)
	old, known := c.lanes[lane]
	next := c.toSend + amount - old[0]
	works := !c.collected && (by == c.to || by == c.from && c.from == c.to) && (c.settlingAt == 0 || m.epoch < c.settlingAt) &&
		(!known || old[1] < nonce) && next >= 0 && next <= c.balance
	m.run(t, by, KindRedeem, c.addr, 0, params, works)
	if works {
		c.lanes[lane], c.toSend = [2]int64{amount, nonce}, next
	}
}

// check compares everything: the invariants I1 to I7, I9 and I10.
func (m *model) check(t *rapid.T) {
	meta, err := newView(m.l.kv).meta()
	require.NoError(t, err)
	require.EqualValues(t, m.epoch, m.l.epoch(meta))
	require.Equal(t, m.applied, meta.Position)
	a, err := m.l.Audit()
	require.NoError(t, err)
	require.True(t, a.Conserved, "I1")
	require.EqualValues(t, m.minted, a.Minted.Int64())
	for i, k := range m.keys {
		acc, err := service{l: m.l}.Account(t.Context(), k.Address)
		require.NoError(t, err)
		require.Equal(t, m.balances[i], acc.Balance.Int64())
		require.Equal(t, m.seqs[i], acc.Seq, "I4")
	}
	for _, c := range m.channels {
		info, err := service{l: m.l}.Channel(t.Context(), c.addr)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(c.balance, c.toSend, c.settlingAt, c.collected), fmt.Sprint(info.Balance, info.ToSend, info.SettlingAt, info.Collected))
		require.Len(t, info.Lanes, len(c.lanes))
		sum := int64(0)
		for _, ln := range info.Lanes {
			require.Equal(t, c.lanes[ln.Lane], [2]int64{ln.Redeemed.Int64(), int64(ln.Nonce)})
			sum += ln.Redeemed.Int64()
		}
		require.Equal(t, c.toSend, sum, "I10")
		require.True(t, c.collected || c.toSend >= 0 && c.toSend <= c.balance, "I2")
	}
}

// TestModel drives the ledger and the model with the same random transactions, valid and not.
func TestModel(t *testing.T) {
	keys := []*pay.Key{newKey(t), newKey(t), newKey(t)}
	op := newKey(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, keys, op)
		defer m.l.kv.Close()
		t.Repeat(m.actions())
		require.NoError(t, m.l.Verify())
	})
}
