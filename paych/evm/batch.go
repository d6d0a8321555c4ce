package evm

import "math/big"

// Settlement is the contract of the scheme, at the same address on every chain.
func Settlement() Address {
	return Address{0x40, 0x20, 0x07, 0x4e, 0x9d, 0xf2, 0xce, 0x1d, 0xee, 0x5a, 0x9c, 0x1b, 0x5c, 0x3f, 0x54, 0x1d, 0x02, 0xa1, 0x00, 0x03}
}

// Collector takes deposits by the authorization of a token, at the same address on every chain.
func Collector() Address {
	return Address{0x40, 0x20, 0x80, 0x60, 0x89, 0x47, 0x0a, 0x89, 0x82, 0x6c, 0xb9, 0xfb, 0x1f, 0x40, 0x59, 0x15, 0x0b, 0x55, 0x00, 0x04}
}

// ChannelConfig fixes a channel: who pays whom in what, who signs, and how long a withdrawal takes.
type ChannelConfig struct {
	Payer, PayerAuthorizer       Address
	Receiver, ReceiverAuthorizer Address
	Token                        Address
	WithdrawDelay                uint64 // seconds, below 2^40
	Salt                         Hash
}

// ClaimEntry is a voucher in a claim: its maximum, and how much of it is claimed in all.
type ClaimEntry struct {
	Channel      Hash
	Maximum      *big.Int
	TotalClaimed *big.Int
}

// Domain is the settlement contract on a chain.
type Domain struct {
	ChainID  uint64
	Contract Address
}

func (d Domain) typed() typedDomain {
	return typedDomain{settlementName, settlementVersion, d.ChainID, d.Contract}
}

// ChannelID is the id of a channel.
func (d Domain) ChannelID(c ChannelConfig) Hash {
	return d.typed().digest(structHash(typeChannel, wordOfAddress(c.Payer), wordOfAddress(c.PayerAuthorizer), wordOfAddress(c.Receiver), wordOfAddress(c.ReceiverAuthorizer),
		wordOfAddress(c.Token), wordOfUint(c.WithdrawDelay), c.Salt))
}

// VoucherDigest is what a payer signs: the most that may be claimed from a channel in all.
func (d Domain) VoucherDigest(channel Hash, maximum *big.Int) (Hash, error) {
	m, err := wordOf(maximum, 128)
	return d.typed().digest(structHash(typeVoucher, channel, m)), err
}

// ClaimDigest is what the authorizer of the receiver signs to claim a batch.
func (d Domain) ClaimDigest(claims []ClaimEntry) (Hash, error) {
	var list []byte
	for _, c := range claims {
		m, err := wordOf(c.Maximum, 128)
		if err != nil {
			return Hash{}, err
		}
		t, err := wordOf(c.TotalClaimed, 128)
		if err != nil {
			return Hash{}, err
		}
		entry := structHash(typeClaimEntry, c.Channel, m, t)
		list = append(list, entry[:]...)
	}
	return d.typed().digest(structHash(typeClaimBatch, Keccak(list))), nil
}

// RefundDigest is what the authorizer of the receiver signs to give an amount back.
func (d Domain) RefundDigest(channel Hash, nonce, amount *big.Int) (Hash, error) {
	n, err := wordOf(nonce, 256)
	if err != nil {
		return Hash{}, err
	}
	a, err := wordOf(amount, 128)
	return d.typed().digest(structHash(typeRefund, channel, n, a)), err
}

// TokenDomain is a token that knows authorizations.
type TokenDomain struct {
	Name, Version string
	ChainID       uint64
	Token         Address
}

// Authorization lets somebody take tokens once, within a time.
type Authorization struct {
	From, To                Address
	Value                   *big.Int
	ValidAfter, ValidBefore uint64 // Unix seconds
	Nonce                   Hash
}

// AuthorizationDigest is what the owner of tokens signs.
func (d TokenDomain) AuthorizationDigest(a Authorization) (Hash, error) {
	v, err := wordOf(a.Value, 256)
	return typedDomain{d.Name, d.Version, d.ChainID, d.Token}.digest(structHash(typeAuthorization, wordOfAddress(a.From), wordOfAddress(a.To), v, wordOfUint(a.ValidAfter),
		wordOfUint(a.ValidBefore), a.Nonce)), err
}

// DepositNonce is the nonce of the authorization of a deposit into a channel.
func DepositNonce(channel Hash, salt *big.Int) (Hash, error) {
	s, err := wordOf(salt, 256)
	return Keccak(channel[:], s[:]), err
}
