// Package evm has what payments on EVM chains are made of, pure of any chain and of any I/O: addresses, keccak, typed data (EIP-712), signatures
// and their recovery, and the hashes of the x402 scheme batch-settlement: channel ids, vouchers, claims, refunds, and the authorizations of
// tokens by which deposits are paid (ERC-3009).
//
// Signatures are 65 bytes r, s, v with v 27 or 28 and a low s. Recover takes nothing else, because the settlement contract takes nothing else:
// a voucher that it would refuse must not be accepted here.
package evm
