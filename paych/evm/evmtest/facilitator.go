package evmtest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"

	"github.com/cartage-dev/cartage/paych/evm"
)

// Facilitator is a double of a facilitator over the double of a chain.
type Facilitator struct {
	Chain *Chain
	Token string // that requests must have; empty: none
}

// claimOf is a claim as facilitators take it.
type claimOf struct {
	Voucher struct {
		Channel evm.ChannelConfig `json:"channel"`
		Maximum string            `json:"maxClaimableAmount"`
	} `json:"voucher"`
	Signature    string `json:"signature"`
	TotalClaimed string `json:"totalClaimed"`
}

// order is the payload of a request.
type order struct {
	Type            string            `json:"type"`
	Config          evm.ChannelConfig `json:"channelConfig"`
	Claims          []claimOf         `json:"claims"`
	ClaimSignature  string            `json:"claimAuthorizerSignature"`
	RefundSignature string            `json:"refundAuthorizerSignature"`
	RefundNonce     string            `json:"refundNonce"`
	Amount          string            `json:"amount"`
	Receiver        evm.Address       `json:"receiver"`
	Token           evm.Address       `json:"token"`
}

type envelope struct {
	Version int `json:"x402Version"`
	Payment struct {
		Payload json.RawMessage `json:"payload"`
	} `json:"paymentPayload"`
	Requirements struct {
		Scheme, Network string
	} `json:"paymentRequirements"`
}

// ServeHTTP implements http.Handler.
func (f *Facilitator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.Token != "" && r.Header.Get("Authorization") != "Bearer "+f.Token {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	f.Chain.mu.Lock()
	away := f.Chain.away
	f.Chain.mu.Unlock()
	if away {
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	if r.URL.Path == "/supported" {
		_ = json.NewEncoder(w).Encode(map[string]any{"kinds": []any{map[string]any{"x402Version": 2, "scheme": evm.Scheme, "network": f.Chain.Network()}}, "extensions": []string{}, "signers": map[string]any{}})
		return
	}
	var in envelope
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Version != 2 || in.Requirements.Scheme != evm.Scheme || in.Requirements.Network != f.Chain.Network() {
		http.Error(w, fmt.Sprintf("bad request: %v", err), http.StatusBadRequest)
		return
	}
	var out any
	if r.URL.Path == "/verify" {
		out = f.verify(in.Payment.Payload)
	} else {
		out = f.settle(in.Payment.Payload)
		if f.Chain.drops() {
			http.Error(w, "the answer is lost", http.StatusBadGateway)
			return
		}
	}
	_ = json.NewEncoder(w).Encode(out)
}

// state is what a facilitator says of a channel.
func (f *Facilitator) state(id evm.Hash) map[string]any {
	ch := f.Chain.channel(id)
	since := int64(0)
	if !ch.Since.IsZero() {
		since = ch.Since.Unix()
	}
	return map[string]any{"channelId": id, "balance": ch.Balance.String(), "totalClaimed": ch.Claimed.String(), "withdrawRequestedAt": since, "refundNonce": ch.Nonce.String()}
}

func invalid(code string) map[string]any {
	return map[string]any{"isValid": false, "invalidReason": "invalid_batch_settlement_evm_" + code}
}

func (f *Facilitator) verify(data []byte) any {
	f.Chain.mu.Lock()
	defer f.Chain.mu.Unlock()
	var p evm.Payload
	if err := json.Unmarshal(data, &p); err != nil {
		return invalid("payload_type")
	}
	ch := f.Chain.channel(p.Voucher.Channel)
	below := p.Voucher.Maximum.Cmp(ch.Claimed)
	switch {
	case f.Chain.Domain().VerifyVoucher(p.Config, p.Voucher) != nil:
		return invalid("voucher_signature")
	case p.Type == evm.TypeDeposit:
		if f.Chain.balance(p.Config.Payer).Cmp(p.Deposit.Amount) < 0 {
			return invalid("insufficient_balance")
		}
		if f.Chain.deposit(p.Config, *p.Deposit, true) != nil {
			return invalid("deposit_simulation_failed")
		}
	case ch.Balance.Sign() == 0:
		return invalid("channel_not_found")
	case p.Voucher.Maximum.Cmp(ch.Balance) > 0:
		return invalid("cumulative_exceeds_balance")
	case below < 0 || below == 0 && p.Type == evm.TypeVoucher:
		return invalid("cumulative_below_claimed")
	}
	return map[string]any{"isValid": true, "payer": p.Config.Payer, "extra": f.state(p.Voucher.Channel)}
}

func (f *Facilitator) settle(data []byte) any {
	f.Chain.mu.Lock()
	defer f.Chain.mu.Unlock()
	var in order
	if err := json.Unmarshal(data, &in); err != nil {
		return f.failed("payload_type", err)
	}
	out := map[string]any{"success": true, "transaction": fmt.Sprintf("0x%064x", f.Chain.height), "network": f.Chain.Network(), "amount": in.Amount}
	switch in.Type {
	case evm.TypeDeposit:
		var p evm.Payload
		err := json.Unmarshal(data, &p)
		if err == nil {
			err = f.Chain.deposit(p.Config, *p.Deposit, false)
		}
		if err != nil {
			return f.failed("deposit_simulation_failed", err)
		}
		out["amount"], out["extra"] = p.Deposit.Amount.String(), map[string]any{"channelState": f.state(p.Voucher.Channel)}
	case evm.TypeClaim:
		if err := f.Chain.claim(claims(in.Claims), unhex(in.ClaimSignature), false); err != nil {
			return f.failed("claim_simulation_failed", err)
		}
	case evm.TypeSettle:
		t := f.Chain.totals(pair{in.Receiver, in.Token})
		if t.claimed.Cmp(t.settled) <= 0 {
			return f.failed("nothing_to_settle", errors.New("nothing to settle for receiver and token"))
		}
		f.Chain.settle(in.Receiver, in.Token, false)
	case evm.TypeRefund:
		if err := f.refund(in); err != nil {
			return f.failed("refund_simulation_failed", err)
		}
		out["extra"] = map[string]any{"channelState": f.state(f.Chain.Domain().ChannelID(in.Config))}
	default:
		return f.failed("payload_type", errors.New(in.Type))
	}
	f.Chain.height++
	f.Chain.sent[in.Type]++
	return out
}

// refund claims and refunds, both or neither.
func (f *Facilitator) refund(in order) error {
	amount, _ := new(big.Int).SetString(in.Amount, 10)
	nonce, _ := new(big.Int).SetString(in.RefundNonce, 10)
	signature, err := hex.DecodeString(in.RefundSignature[2:])
	if err != nil {
		return err
	}
	if err := f.Chain.refund(in.Config, amount, nonce, signature, true); err != nil {
		return err
	}
	if len(in.Claims) > 0 {
		if err := f.Chain.claim(claims(in.Claims), unhex(in.ClaimSignature), false); err != nil {
			return err
		}
	}
	return f.Chain.refund(in.Config, amount, nonce, signature, false)
}

func claims(in []claimOf) (out []evm.Claim) {
	for _, c := range in {
		maximum, _ := new(big.Int).SetString(c.Voucher.Maximum, 10)
		claimed, _ := new(big.Int).SetString(c.TotalClaimed, 10)
		out = append(out, evm.Claim{Config: c.Voucher.Channel, Maximum: maximum, Signature: unhex(c.Signature), TotalClaimed: claimed})
	}
	return out
}

func (f *Facilitator) failed(code string, err error) map[string]any {
	return map[string]any{"success": false, "errorReason": "invalid_batch_settlement_evm_" + code, "errorMessage": err.Error(), "transaction": "", "network": f.Chain.Network()}
}
