package evm

import (
	"encoding/binary"
	"fmt"
	"math/big"
)

// configType is ChannelConfig as signatures of functions name it.
const configType = "(address,address,address,address,address,uint40,bytes32)"

// Signatures of the functions that are called.
const (
	sigDeposit     = "deposit(" + configType + ",uint128,address,bytes)"
	sigClaim       = "claimWithSignature(((" + configType + ",uint128),bytes,uint128)[],bytes)"
	sigSettle      = "settle(address,address)"
	sigRefund      = "refundWithSignature(" + configType + ",uint128,uint256,bytes)"
	sigWithdraw    = "initiateWithdraw(" + configType + ",uint128)"
	sigFinalize    = "finalizeWithdraw(" + configType + ")"
	sigChannels    = "channels(bytes32)"
	sigPending     = "pendingWithdrawals(bytes32)"
	sigNonce       = "refundNonce(bytes32)"
	sigReceivers   = "receivers(address,address)"
	sigAuthorized  = "authorizationState(address,bytes32)"
	sigBalanceOf   = "balanceOf(address)"
	selectorLength = 4
	wordLength     = 32
)

// call is a function with words as arguments.
func call(signature string, words ...Hash) []byte {
	h := Keccak([]byte(signature))
	return appendWords(h[:selectorLength:selectorLength], words...)
}

func appendWords(to []byte, words ...Hash) []byte {
	for i := range words {
		to = append(to, words[i][:]...)
	}
	return to
}

// appendBytes appends a byte string: its length, and its bytes padded to words.
func appendBytes(to, b []byte) []byte {
	to = appendWords(to, wordOfUint(uint64(len(b))))
	to = append(to, b...)
	return append(to, make([]byte, -len(b)&(wordLength-1))...)
}

// words are the members of a configuration.
func (c ChannelConfig) words() []Hash {
	return []Hash{wordOfAddress(c.Payer), wordOfAddress(c.PayerAuthorizer), wordOfAddress(c.Receiver), wordOfAddress(c.ReceiverAuthorizer), wordOfAddress(c.Token), wordOfUint(c.WithdrawDelay), c.Salt}
}

// configLength is the length of an encoded configuration.
const configLength = 7 * wordLength

// Encode is the configuration as seven words.
func (c ChannelConfig) Encode() []byte { return appendWords(nil, c.words()...) }

// DecodeConfig reads seven words.
func DecodeConfig(data []byte) (c ChannelConfig, err error) {
	if len(data) != configLength {
		return c, fmt.Errorf("a channel configuration has %d bytes, not %d", configLength, len(data))
	}
	r := wordReader{data: data}
	for _, a := range []*Address{&c.Payer, &c.PayerAuthorizer, &c.Receiver, &c.ReceiverAuthorizer, &c.Token} {
		*a = r.address()
	}
	c.WithdrawDelay, c.Salt = r.uint(40), r.word()
	return c, r.err
}

// PackDeposit is a deposit by an authorization of the token.
func PackDeposit(c ChannelConfig, d Deposit) ([]byte, error) {
	amount, err := wordOf(d.Amount, 128)
	if err != nil {
		return nil, err
	}
	salt, err := wordOf(d.Salt, 256)
	if err != nil {
		return nil, err
	}
	data := appendBytes(appendWords(nil, wordOfUint(d.ValidAfter), wordOfUint(d.ValidBefore), salt, wordOfUint(4*wordLength)), d.Signature)
	return appendBytes(call(sigDeposit, append(c.words(), amount, wordOfAddress(Collector()), wordOfUint(10*wordLength))...), data), nil
}

// Claim is a voucher, and how much of it is claimed in all.
type Claim struct {
	Config       ChannelConfig
	Maximum      *big.Int
	Signature    []byte
	TotalClaimed *big.Int
}

// Entries are claims as the authorizer signs them.
func (d Domain) Entries(claims []Claim) []ClaimEntry {
	out := make([]ClaimEntry, len(claims))
	for i, c := range claims {
		out[i] = ClaimEntry{d.ChannelID(c.Config), c.Maximum, c.TotalClaimed}
	}
	return out
}

// PackClaim claims a batch with the signature of the authorizer of its receiver.
func PackClaim(claims []Claim, signature []byte) ([]byte, error) {
	var rows []byte
	heads := make([]Hash, 0, len(claims))
	for _, c := range claims {
		heads = append(heads, wordOfUint(uint64(len(claims)*wordLength+len(rows))))
		maximum, err := wordOf(c.Maximum, 128)
		if err != nil {
			return nil, err
		}
		total, err := wordOf(c.TotalClaimed, 128)
		if err != nil {
			return nil, err
		}
		rows = appendBytes(appendWords(rows, append(c.Config.words(), maximum, wordOfUint(10*wordLength), total)...), c.Signature)
	}
	list := append(appendWords(nil, append([]Hash{wordOfUint(uint64(len(claims)))}, heads...)...), rows...)
	out := append(call(sigClaim, wordOfUint(2*wordLength), wordOfUint(uint64(2*wordLength+len(list)))), list...)
	return appendBytes(out, signature), nil
}

// PackSettle sends what was claimed for a receiver to it.
func PackSettle(receiver, token Address) []byte {
	return call(sigSettle, wordOfAddress(receiver), wordOfAddress(token))
}

// PackRefund gives an amount back with the signature of the authorizer of the receiver.
func PackRefund(c ChannelConfig, amount, nonce *big.Int, signature []byte) ([]byte, error) {
	a, err := wordOf(amount, 128)
	if err != nil {
		return nil, err
	}
	n, err := wordOf(nonce, 256)
	return appendBytes(call(sigRefund, append(c.words(), a, n, wordOfUint(10*wordLength))...), signature), err
}

// PackWithdraw begins a withdrawal of the payer.
func PackWithdraw(c ChannelConfig, amount *big.Int) ([]byte, error) {
	a, err := wordOf(amount, 128)
	return call(sigWithdraw, append(c.words(), a)...), err
}

// PackFinalize ends a withdrawal whose delay is over.
func PackFinalize(c ChannelConfig) []byte { return call(sigFinalize, c.words()...) }

// Calls that read.

// PackChannels asks for balance and claimed total of a channel.
func PackChannels(id Hash) []byte { return call(sigChannels, id) }

// PackPending asks for the withdrawal of a channel.
func PackPending(id Hash) []byte { return call(sigPending, id) }

// PackRefundNonce asks for the nonce of the next refund.
func PackRefundNonce(id Hash) []byte { return call(sigNonce, id) }

// PackReceivers asks what was claimed and settled for a receiver.
func PackReceivers(receiver, token Address) []byte {
	return call(sigReceivers, wordOfAddress(receiver), wordOfAddress(token))
}

// PackAuthorizationState asks whether an authorization of a token was used.
func PackAuthorizationState(from Address, nonce Hash) []byte {
	return call(sigAuthorized, wordOfAddress(from), nonce)
}

// PackBalanceOf asks for the tokens of an account.
func PackBalanceOf(a Address) []byte { return call(sigBalanceOf, wordOfAddress(a)) }

// UnpackUints reads numbers, one a word; what follows is an error.
func UnpackUints(data []byte, n int) ([]*big.Int, error) {
	if len(data) != n*wordLength {
		return nil, fmt.Errorf("the answer has %d bytes, not %d", len(data), n*wordLength)
	}
	out := make([]*big.Int, n)
	for i := range out {
		out[i] = new(big.Int).SetBytes(data[i*wordLength : (i+1)*wordLength])
	}
	return out, nil
}

// wordReader reads words, and remembers the first that is not what it should be.
type wordReader struct {
	data []byte
	err  error
}

func (r *wordReader) word() (w Hash) {
	if len(r.data) < wordLength {
		r.err = fmt.Errorf("%d bytes are missing", wordLength-len(r.data))
		return w
	}
	copy(w[:], r.data)
	r.data = r.data[wordLength:]
	return w
}

func (r *wordReader) address() (a Address) {
	w := r.word()
	copy(a[:], w[12:])
	if wordOfAddress(a) != w {
		r.err = fmt.Errorf("%s is no address", w)
	}
	return a
}

func (r *wordReader) uint(bits int) uint64 {
	w := r.word()
	n := binary.BigEndian.Uint64(w[24:])
	if wordOfUint(n) != w || n>>bits != 0 {
		r.err = fmt.Errorf("%s is no number of %d bits", w, bits)
	}
	return n
}
