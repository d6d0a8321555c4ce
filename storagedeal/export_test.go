package storagedeal

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// AskFor sends a proposal over one protocol and reads the answer.
func AskFor(ctx context.Context, h host.Host, to peer.ID, id protocol.ID, p *Proposal) (*SignedResponse, error) {
	s, err := h.NewStream(ctx, to, id)
	if err != nil {
		return nil, err
	}
	var r SignedResponse
	t := Timeouts{Open: 5 * time.Second, Write: 5 * time.Second, Read: 5 * time.Second}
	return &r, askPeer(ctx, s, t, p, &r)
}

// Encoded is a proposal as it goes over a stream.
func Encoded(p *Proposal, id protocol.ID) ([]byte, error) {
	return encodeMessage(p, formOfProtocol(id))
}

// SignedProposal is what a client would send for params.
func SignedProposal(ctx context.Context, c *Client, params StartDealParams) (*Proposal, error) {
	deal, _, err := c.signProposal(ctx, params)
	return &Proposal{DealProposal: deal, Piece: params.Data}, err
}
