package relay

import (
	"encoding/hex"
	"encoding/json"

	"github.com/cartage-dev/cartage/paych/evm"
)

// claimJSON is a claim as facilitators take it.
type claimJSON struct {
	Voucher struct {
		Channel evm.ChannelConfig `json:"channel"`
		Maximum string            `json:"maxClaimableAmount"`
	} `json:"voucher"`
	Signature    string `json:"signature"`
	TotalClaimed string `json:"totalClaimed"`
}

func claimsJSON(claims []evm.Claim) []claimJSON {
	out := make([]claimJSON, len(claims))
	for i, c := range claims {
		out[i].Voucher.Channel, out[i].Voucher.Maximum = c.Config, c.Maximum.String()
		out[i].Signature, out[i].TotalClaimed = hexOf(c.Signature), c.TotalClaimed.String()
	}
	return out
}

func hexOf(b []byte) string { return "0x" + hex.EncodeToString(b) }

// claimOrder has a batch claimed.
type claimOrder struct {
	Type      string      `json:"type"`
	Claims    []claimJSON `json:"claims"`
	Signature string      `json:"claimAuthorizerSignature,omitempty"`
}

// settleOrder has what was claimed paid to a receiver.
type settleOrder struct {
	Type     string      `json:"type"`
	Receiver evm.Address `json:"receiver"`
	Token    evm.Address `json:"token"`
}

// refundOrder has a channel claimed and refunded.
type refundOrder struct {
	claimOrder
	Config          evm.ChannelConfig `json:"channelConfig"`
	Voucher         json.RawMessage   `json:"voucher"`
	Amount          string            `json:"amount"`
	RefundNonce     string            `json:"refundNonce"`
	RefundSignature string            `json:"refundAuthorizerSignature"`
}
