package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/paych"
)

const voucherProtocol = "/bench/vouchers/1"

// serveVouchers takes vouchers off a stream, checks each and commits it durably before it answers. What it has is as large as the DAG, so
// that its cost can be added to that of moving one.
func serveVouchers(ctx context.Context, h host.Host, m *memory, _ row) (string, error) {
	n, err := newNode(ctx, h, "payee", m.links())
	if err != nil {
		return "", err
	}
	h.SetStreamHandler(voucherProtocol, func(s network.Stream) {
		defer s.Close()
		_ = binary.Write(s, binary.BigEndian, m.bytes)
		in := bufio.NewReader(s)
		for {
			var size uint16
			if binary.Read(in, binary.BigEndian, &size) != nil {
				return
			}
			data := make([]byte, size)
			if _, err := io.ReadFull(in, data); err != nil {
				return
			}
			v, err := paych.DecodeVoucher(data)
			if err == nil {
				_, err = n.payments.AcceptVoucher(ctx, "deal", v.ChannelAddr, v, big.Zero(), 0)
			}
			if err != nil {
				_ = s.Reset()
				return
			}
			_, _ = s.Write([]byte{1})
		}
	})
	return "", nil
}

// fetchVouchers signs, commits and sends one voucher for each interval of the DAG, one after the other.
func fetchVouchers(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, _ cid.Cid, r row) (uint64, error) {
	n, err := newNode(ctx, h, "payer", discard())
	if err != nil {
		return 0, err
	}
	s, err := h.NewStream(ctx, server.ID, voucherProtocol)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var total uint64
	if _, err := s.Write(nil); err != nil {
		return 0, err
	}
	if err := binary.Read(s, binary.BigEndian, &total); err != nil {
		return 0, err
	}
	got, err := n.payments.GetOrCreate(ctx, "deal", n.chain.info.From, n.chain.info.To, big.NewIntUnsigned(total*price))
	if err == nil && got.Wait.Defined() {
		_, err = n.payments.WaitReady(ctx, got.Wait)
	}
	if err != nil {
		return 0, err
	}
	ch := n.chain.info.Address
	lane, err := n.payments.AllocateLane(ctx, "deal", ch, big.NewIntUnsigned(total*price))
	for paid := r.pays; err == nil && paid < total+r.pays; paid += r.pays {
		err = payOne(ctx, n, s, lane, min(paid, total))
		r.signed.Add(1)
	}
	return total, errors.Join(err, n.payments.Close(ctx), n.state.Close())
}

func payOne(ctx context.Context, n *node, s network.Stream, lane, bytes uint64) error {
	v, _, err := n.payments.CreateVoucher(ctx, "deal", n.chain.info.Address, lane, big.NewIntUnsigned(bytes*price), bytes)
	if err != nil {
		return err
	}
	data, err := paych.EncodeVoucher(v)
	if err != nil {
		return err
	}
	if _, err := s.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...)); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return err
}
