package evm

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Scheme is the name of the scheme in offers.
const Scheme = "batch-settlement"

// Types of payloads.
const (
	TypeVoucher = "voucher"
	TypeDeposit = "deposit"
	TypeRefund  = "refund"
	TypeClaim   = "claim"
	TypeSettle  = "settle"
)

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) (err error) {
	*h, err = ParseHash(string(text))
	return err
}

// Voucher is what a payer has signed: the most that may be claimed from a channel in all.
type Voucher struct {
	Channel   Hash
	Maximum   *big.Int
	Signature []byte
}

// Deposit is an authorization of a token that pays into a channel.
type Deposit struct {
	Amount                  *big.Int
	ValidAfter, ValidBefore uint64 // Unix seconds
	Salt                    *big.Int
	Signature               []byte
}

// Payload is what a payment of the scheme holds.
type Payload struct {
	Type    string
	Config  ChannelConfig
	Voucher Voucher
	Deposit *Deposit // of a deposit
	Amount  *big.Int // of a refund; nil: all that is left
}

// configJSON is a configuration in JSON.
type configJSON struct {
	Payer              Address `json:"payer"`
	PayerAuthorizer    Address `json:"payerAuthorizer"`
	Receiver           Address `json:"receiver"`
	ReceiverAuthorizer Address `json:"receiverAuthorizer"`
	Token              Address `json:"token"`
	WithdrawDelay      uint64  `json:"withdrawDelay"`
	Salt               Hash    `json:"salt"`
}

// MarshalJSON implements json.Marshaler.
func (c ChannelConfig) MarshalJSON() ([]byte, error) { return json.Marshal(configJSON(c)) }

// UnmarshalJSON implements json.Unmarshaler.
func (c *ChannelConfig) UnmarshalJSON(data []byte) error {
	var in configJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	if in.WithdrawDelay>>40 != 0 {
		return fmt.Errorf("withdrawDelay %d is no number of 40 bits", in.WithdrawDelay)
	}
	*c = ChannelConfig(in)
	return nil
}

type voucherJSON struct {
	Channel   Hash   `json:"channelId"`
	Maximum   string `json:"maxClaimableAmount"`
	Signature string `json:"signature"`
}

type authorizationJSON struct {
	ValidAfter  string `json:"validAfter"`
	ValidBefore string `json:"validBefore"`
	Salt        string `json:"salt"`
	Signature   string `json:"signature"`
}

type depositJSON struct {
	Amount        string `json:"amount"`
	Authorization struct {
		ERC3009 *authorizationJSON `json:"erc3009Authorization,omitempty"`
	} `json:"authorization"`
}

type payloadJSON struct {
	Type    string         `json:"type"`
	Config  *ChannelConfig `json:"channelConfig"`
	Voucher *voucherJSON   `json:"voucher"`
	Deposit *depositJSON   `json:"deposit,omitempty"`
	Amount  *string        `json:"amount,omitempty"`
}

// Errors of payloads, by what is malformed.
var (
	ErrPayloadType    = errors.New("the type of the payload is not voucher, deposit or refund")
	ErrVoucherPayload = errors.New("the voucher is malformed")
	ErrDepositPayload = errors.New("the deposit is malformed")
	ErrRefundPayload  = errors.New("the refund is malformed")
	// ErrNoERC3009 means that a deposit is not paid by an authorization of the token itself.
	ErrNoERC3009 = errors.New("the deposit has no erc3009Authorization")
)

// MarshalJSON implements json.Marshaler.
func (v Voucher) MarshalJSON() ([]byte, error) { return json.Marshal(v.text()) }

func (v Voucher) text() *voucherJSON {
	return &voucherJSON{v.Channel, v.Maximum.String(), "0x" + hex.EncodeToString(v.Signature)}
}

// MarshalJSON implements json.Marshaler.
func (p Payload) MarshalJSON() ([]byte, error) {
	out := payloadJSON{Type: p.Type, Config: &p.Config, Voucher: p.Voucher.text()}
	if d := p.Deposit; d != nil {
		out.Deposit = &depositJSON{Amount: d.Amount.String()}
		salt, err := wordOf(d.Salt, 256)
		if err != nil {
			return nil, err
		}
		out.Deposit.Authorization.ERC3009 = &authorizationJSON{fmt.Sprint(d.ValidAfter), fmt.Sprint(d.ValidBefore), salt.String(), "0x" + hex.EncodeToString(d.Signature)}
	}
	if p.Amount != nil {
		text := p.Amount.String()
		out.Amount = &text
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler. An error wraps one of those of payloads.
func (p *Payload) UnmarshalJSON(data []byte) error {
	var in payloadJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("%w: %w", ErrVoucherPayload, err)
	}
	fault, known := map[string]error{TypeVoucher: ErrVoucherPayload, TypeDeposit: ErrDepositPayload, TypeRefund: ErrRefundPayload}[in.Type]
	if !known {
		return ErrPayloadType
	}
	if in.Config == nil || in.Voucher == nil {
		return fmt.Errorf("%w: channelConfig or voucher is missing", fault)
	}
	*p = Payload{Type: in.Type, Config: *in.Config, Voucher: Voucher{Channel: in.Voucher.Channel}}
	r := textReader{}
	p.Voucher.Maximum, p.Voucher.Signature = r.amount("maxClaimableAmount", in.Voucher.Maximum), r.bytes("signature", in.Voucher.Signature)
	if in.Type == TypeRefund && in.Amount != nil {
		p.Amount = r.amount("amount", *in.Amount)
	}
	if r.err == nil && in.Type == TypeDeposit {
		return p.readDeposit(in.Deposit)
	}
	if r.err != nil {
		return fmt.Errorf("%w: %w", fault, r.err)
	}
	return nil
}

func (p *Payload) readDeposit(in *depositJSON) error {
	if in == nil {
		return fmt.Errorf("%w: it is missing", ErrDepositPayload)
	}
	a := in.Authorization.ERC3009
	if a == nil {
		return ErrNoERC3009
	}
	r := textReader{}
	p.Deposit = &Deposit{Amount: r.amount("amount", in.Amount), ValidAfter: r.time("validAfter", a.ValidAfter), ValidBefore: r.time("validBefore", a.ValidBefore), Salt: r.salt(a.Salt), Signature: r.bytes("signature", a.Signature)}
	if r.err != nil {
		return fmt.Errorf("%w: %w", ErrDepositPayload, r.err)
	}
	return nil
}

// textReader reads strings strictly, and remembers the first that is not what it should be.
type textReader struct{ err error }

func (r *textReader) fail(name, text string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s is %.90q", name, text)
	}
}

// number reads decimal digits of a number of at most so many bits.
func (r *textReader) number(name, text string, bits int) *big.Int {
	v := new(big.Int)
	ok := text != "" && len(text) <= 78 && (len(text) == 1 || text[0] != '0') && strings.Trim(text, "0123456789") == ""
	if ok {
		v, ok = v.SetString(text, 10)
	}
	if !ok || v.BitLen() > bits {
		r.fail(name, text)
		return new(big.Int)
	}
	return v
}

func (r *textReader) amount(name, text string) *big.Int { return r.number(name, text, 128) }

func (r *textReader) time(name, text string) uint64 { return r.number(name, text, 63).Uint64() }

// salt is 0x and 64 digits, or decimal.
func (r *textReader) salt(text string) *big.Int {
	if strings.HasPrefix(text, "0x") {
		h, err := ParseHash(text)
		if err != nil {
			r.fail("salt", text)
		}
		return new(big.Int).SetBytes(h[:])
	}
	return r.number("salt", text, 256)
}

// bytes reads a signature: 0x and hexadecimal digits.
func (r *textReader) bytes(name, text string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || !strings.HasPrefix(text, "0x") || len(b) != SignatureSize {
		r.fail(name, text)
	}
	return b
}
