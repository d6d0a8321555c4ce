package evmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/cartage-dev/cartage/paych/evm"
)

// transaction is a call that somebody signed.
type transaction struct {
	hash  evm.Hash
	from  evm.Address
	nonce uint64
	to    evm.Address
	data  []byte
}

const configType = "(address,address,address,address,address,uint40,bytes32)"

// functions are the calls that change something, by name.
func functions() map[string]string {
	return map[string]string{
		"deposit": "deposit(" + configType + ",uint128,address,bytes)", "claim": "claimWithSignature(((" + configType + ",uint128),bytes,uint128)[],bytes)",
		"settle": "settle(address,address)", "refund": "refundWithSignature(" + configType + ",uint128,uint256,bytes)",
		"initiateWithdraw": "initiateWithdraw(" + configType + ",uint128)", "finalizeWithdraw": "finalizeWithdraw(" + configType + ")",
	}
}

func selector(signature string) []byte {
	h := evm.Keccak([]byte(signature))
	return h[:4]
}

// functionOf is the name of a call.
func functionOf(data []byte) string {
	for name, signature := range functions() {
		if bytes.HasPrefix(data, selector(signature)) {
			return name
		}
	}
	return ""
}

// mine carries a transaction out.
func (c *Chain) mine(t transaction) {
	err := c.execute(t.from, t.to, t.data, false)
	c.receipts[t.hash] = err == nil
	c.height++
	if err == nil {
		c.sent[functionOf(t.data)]++
	}
}

// execute carries a call out; dry only says whether it would be.
func (c *Chain) execute(from, to evm.Address, data []byte, dry bool) (err error) {
	defer func() {
		if r := recover(); r != nil { // a slice that the arguments do not have
			err = revert(fmt.Sprint(r))
		}
	}()
	if to != evm.Settlement() {
		return revert("no such contract")
	}
	a := arguments(data[min(4, len(data)):])
	switch functionOf(data) {
	case "deposit":
		cfg, err := evm.DecodeConfig(a.words(0, 7))
		if err != nil {
			return err
		}
		if evm.Address(a.words(8, 1)[12:]) != evm.Collector() {
			return revert("another collector")
		}
		d := arguments(a.bytes(9))
		return c.deposit(cfg, evm.Deposit{Amount: a.number(7), ValidAfter: d.number(0).Uint64(), ValidBefore: d.number(1).Uint64(), Salt: d.number(2), Signature: d.bytes(3)}, dry)
	case "claim":
		return c.claim(a.claims(), a.bytes(1), dry)
	case "settle":
		c.settle(evm.Address(a.words(0, 1)[12:]), evm.Address(a.words(1, 1)[12:]), dry)
		return nil
	case "refund":
		cfg, err := evm.DecodeConfig(a.words(0, 7))
		if err != nil {
			return err
		}
		return c.refund(cfg, a.number(7), a.number(8), a.bytes(9), dry)
	case "initiateWithdraw", "finalizeWithdraw":
		return c.withdrawal(from, a, functionOf(data), dry)
	}
	return revert("no such function")
}

func (c *Chain) withdrawal(from evm.Address, a arguments, function string, dry bool) error {
	cfg, err := evm.DecodeConfig(a.words(0, 7))
	if err != nil {
		return err
	}
	if from != cfg.Payer && from != cfg.PayerAuthorizer {
		return revert("not the payer")
	}
	if dry {
		return nil
	}
	ch := c.channel(c.Domain().ChannelID(cfg))
	if function == "initiateWithdraw" {
		ch.Withdraw, ch.Since = a.number(7), c.now
		return nil
	}
	if ch.Since.IsZero() || uint64(c.now.Sub(ch.Since).Seconds()) < cfg.WithdrawDelay {
		return revert("WithdrawDelayNotElapsed")
	}
	c.payBack(cfg, ch, ch.Withdraw)
	ch.Withdraw, ch.Since = new(big.Int), time.Time{}
	return nil
}

// arguments are words, behind which are the bytes that they point to.
type arguments []byte

func (a arguments) words(at, n int) []byte        { return a[32*at : 32*(at+n)] }
func (a arguments) number(at int) *big.Int        { return new(big.Int).SetBytes(a.words(at, 1)) }
func (a arguments) behind(at int) arguments       { return a[a.number(at).Uint64():] }
func (a arguments) bytes(at int) []byte           { return sized(a.behind(at)) }
func sized(a arguments) []byte                    { return a[32 : 32+a.number(0).Uint64()] }
func hashOf(b []byte) (h evm.Hash)                { copy(h[:], b); return h }
func addressOf(word []byte) (address evm.Address) { copy(address[:], word[12:]); return address }

// claims reads the list of claims at the first argument.
func (a arguments) claims() (out []evm.Claim) {
	list := a.behind(0)
	rows := list[32:]
	for i := range int(list.number(0).Uint64()) {
		row := rows.behind(i)
		cfg, err := evm.DecodeConfig(row.words(0, 7))
		if err != nil {
			panic(err)
		}
		out = append(out, evm.Claim{Config: cfg, Maximum: row.number(7), Signature: row.bytes(8), TotalClaimed: row.number(9)})
	}
	return out
}

// view answers a call that reads.
func (c *Chain) view(to evm.Address, data []byte) ([]byte, error) {
	is := func(signature string) bool { return bytes.HasPrefix(data, selector(signature)) }
	a := arguments(data[min(4, len(data)):])
	number := func(list ...*big.Int) (out []byte) {
		for _, n := range list {
			out = append(out, n.FillBytes(make([]byte, 32))...)
		}
		return out
	}
	switch {
	case is("channels(bytes32)"):
		ch := c.channel(hashOf(a))
		return number(ch.Balance, ch.Claimed), nil
	case is("pendingWithdrawals(bytes32)"):
		ch := c.channel(hashOf(a))
		since := new(big.Int)
		if !ch.Since.IsZero() {
			since.SetInt64(ch.Since.Unix())
		}
		return number(ch.Withdraw, since), nil
	case is("refundNonce(bytes32)"):
		return number(c.channel(hashOf(a)).Nonce), nil
	case is("receivers(address,address)"):
		t := c.totals(pair{addressOf(a.words(0, 1)), addressOf(a.words(1, 1))})
		return number(t.claimed, t.settled), nil
	case is("authorizationState(address,bytes32)"):
		payer, nonce := addressOf(a.words(0, 1)), hashOf(a.words(1, 1))
		if c.used[evm.Keccak(payer[:], nonce[:])] {
			return number(big.NewInt(1)), nil
		}
		return number(new(big.Int)), nil
	case is("balanceOf(address)"):
		return number(c.balance(addressOf(a.words(0, 1)))), nil
	}
	return nil, c.execute(evm.Address{}, to, data, true)
}

// parseTransaction reads a signed transaction of EIP-1559.
func parseTransaction(raw []byte) (transaction, error) {
	t := transaction{hash: evm.Keccak(raw)}
	if len(raw) == 0 || raw[0] != 2 {
		return t, errors.New("no transaction of EIP-1559")
	}
	list, rest, err := rlpItem(raw[1:])
	if err != nil || len(rest) > 0 {
		return t, errors.New("no RLP")
	}
	var fields, whole [][]byte
	for at := list; len(at) > 0; {
		item, next, err := rlpItem(at)
		if err != nil {
			return t, err
		}
		fields, whole, at = append(fields, item), append(whole, at[:len(at)-len(next)]), next
	}
	if len(fields) != 12 {
		return t, errors.New("no twelve fields")
	}
	unsigned := bytes.Join(whole[:9], nil)
	head := []byte{2, 0xf9, 0, 0}
	switch n := len(unsigned); {
	case n <= 55:
		head = []byte{2, 0xc0 + byte(n)}
	case n < 256:
		head = []byte{2, 0xf8, byte(n)}
	default:
		binary.BigEndian.PutUint16(head[2:], uint16(n))
	}
	signature := make([]byte, 65)
	copy(signature[32-len(fields[10]):32], fields[10])
	copy(signature[64-len(fields[11]):64], fields[11])
	signature[64] = 27 + byte(new(big.Int).SetBytes(fields[9]).Uint64())
	t.from, err = evm.Recover(evm.Keccak(head, unsigned), signature)
	t.nonce, t.data = new(big.Int).SetBytes(fields[1]).Uint64(), fields[7]
	copy(t.to[:], fields[5])
	return t, err
}

// rlpItem is the first item, and what follows it.
func rlpItem(b []byte) (item, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, errors.New("RLP ends")
	}
	p, head, n := b[0], 1, 0
	base := byte(0x80)
	if p >= 0xc0 {
		base = 0xc0
	}
	switch {
	case p < 0x80:
		return b[:1], b[1:], nil
	case p-base <= 55:
		n = int(p - base)
	default:
		head += int(p - base - 55)
		n = int(new(big.Int).SetBytes(b[1:head]).Int64())
	}
	if len(b) < head+n {
		return nil, nil, errors.New("RLP ends")
	}
	return b[head : head+n], b[head+n:], nil
}
