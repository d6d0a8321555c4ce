package evmtest

import (
	"math/big"
	"time"

	"github.com/cartage-dev/cartage/paych/evm"
)

// Payer signs what a client signs.
type Payer struct {
	Chain *Chain
	Key   *evm.Key
	salt  int64
}

// Channel is the configuration of a channel to whom an offer names.
func (p *Payer) Channel(receiver, authorizer evm.Address, delay uint64, salt byte) evm.ChannelConfig {
	return evm.ChannelConfig{Payer: p.Key.Address(), PayerAuthorizer: p.Key.Address(), Receiver: receiver, ReceiverAuthorizer: authorizer, Token: p.Chain.Token.Token, WithdrawDelay: delay, Salt: evm.Hash{31: salt}}
}

// Voucher signs the most that may be claimed.
func (p *Payer) Voucher(c evm.ChannelConfig, maximum int64) evm.Voucher {
	id := p.Chain.Domain().ChannelID(c)
	digest, err := p.Chain.Domain().VoucherDigest(id, big.NewInt(maximum))
	if err != nil {
		panic(err)
	}
	return evm.Voucher{Channel: id, Maximum: big.NewInt(maximum), Signature: p.Key.Sign(digest)}
}

// Deposit signs an authorization for a channel.
func (p *Payer) Deposit(c evm.ChannelConfig, amount int64) *evm.Deposit {
	p.salt++
	d := &evm.Deposit{Amount: big.NewInt(amount), ValidBefore: uint64(p.Chain.Now().Add(10 * time.Minute).Unix()), Salt: big.NewInt(p.salt)}
	nonce, err := evm.DepositNonce(p.Chain.Domain().ChannelID(c), d.Salt)
	if err != nil {
		panic(err)
	}
	digest, err := p.Chain.Token.AuthorizationDigest(evm.Authorization{From: c.Payer, To: evm.Collector(), Value: d.Amount, ValidBefore: d.ValidBefore, Nonce: nonce})
	if err != nil {
		panic(err)
	}
	d.Signature = p.Key.Sign(digest)
	return d
}
