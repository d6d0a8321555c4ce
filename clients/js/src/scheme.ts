import { keccak_256 } from "@noble/hashes/sha3";
import { fromHex, join, toHex, word, type Hex } from "./bytes.js";
import { hashTypedData, type TypedData } from "./eip712.js";
import { recoverSigner } from "./signer.js";

/** The name of the scheme in an offer. */
export const batchSettlement = "batch-settlement";

/** Where the contracts of the scheme are, on every chain. */
export const settlementContract: Hex = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003";
/** What takes deposits from a token with ERC-3009. */
export const depositCollector: Hex = "0x4020806089470a89826cB9fB1f4059150b550004";

/** The terms of a channel. Their hash is its id. */
export interface ChannelConfig {
  payer: Hex;
  payerAuthorizer: Hex;
  receiver: Hex;
  receiverAuthorizer: Hex;
  token: Hex;
  /** Seconds that a withdrawal without the receiver takes. */
  withdrawDelay: number;
  salt: Hex;
}

/** The chain of a network named eip155:ID; undefined for all others. */
export function chainOf(network: string): number | undefined {
  const m = /^eip155:([1-9][0-9]{0,14})$/.exec(network);
  return m ? Number(m[1]) : undefined;
}

function settlementDomain(network: string): TypedData["domain"] {
  const chainId = chainOf(network);
  if (chainId === undefined) throw new TypeError(`${network} is not eip155:ID`);
  return { name: "x402 Batch Settlement", version: "1", chainId, verifyingContract: settlementContract };
}

/** The id of a channel: the typed hash of its terms. */
export function channelId(network: string, config: ChannelConfig): Hex {
  const fields = {
    ChannelConfig: [
      { name: "payer", type: "address" },
      { name: "payerAuthorizer", type: "address" },
      { name: "receiver", type: "address" },
      { name: "receiverAuthorizer", type: "address" },
      { name: "token", type: "address" },
      { name: "withdrawDelay", type: "uint40" },
      { name: "salt", type: "bytes32" },
    ],
  } satisfies TypedData["types"];
  return toHex(hashTypedData({ domain: settlementDomain(network), types: fields, primaryType: "ChannelConfig", message: { ...config } }));
}

/** What is signed to pay: `max` is all that the receiver may ever have claimed from the channel, in atomic units. */
export function voucherData(network: string, id: Hex, max: bigint): TypedData {
  return {
    domain: settlementDomain(network),
    types: {
      Voucher: [
        { name: "channelId", type: "bytes32" },
        { name: "maxClaimableAmount", type: "uint128" },
      ],
    },
    primaryType: "Voucher",
    message: { channelId: id, maxClaimableAmount: max },
  };
}

/** Whether a signature on a voucher is that of an address. */
export function signedBy(address: Hex, network: string, id: Hex, max: bigint, signature: unknown): boolean {
  return recoverSigner(hashTypedData(voucherData(network, id, max)), signature) === address.toLowerCase();
}

/** A deposit as it is signed: the token moves `amount` to the channel, and to nothing else, before `validBefore` (Unix seconds). */
export interface Deposit {
  network: string;
  token: Hex;
  tokenName: string;
  tokenVersion: string;
  payer: Hex;
  channel: Hex;
  amount: bigint;
  validBefore: number;
  salt: Hex;
}

/** What is signed to deposit. */
export function depositData(d: Deposit): TypedData {
  return {
    domain: { ...settlementDomain(d.network), name: d.tokenName, version: d.tokenVersion, verifyingContract: d.token },
    types: {
      ReceiveWithAuthorization: [
        { name: "from", type: "address" },
        { name: "to", type: "address" },
        { name: "value", type: "uint256" },
        { name: "validAfter", type: "uint256" },
        { name: "validBefore", type: "uint256" },
        { name: "nonce", type: "bytes32" },
      ],
    },
    primaryType: "ReceiveWithAuthorization",
    message: {
      from: d.payer,
      to: depositCollector,
      value: d.amount,
      validAfter: 0n,
      validBefore: BigInt(d.validBefore),
      nonce: depositNonce(d.channel, d.salt),
    },
  };
}

/** The nonce that binds the authorization of a token to one channel. */
export function depositNonce(channel: Hex, salt: Hex): Hex {
  return toHex(keccak_256(join(fromHex(channel, 32), fromHex(salt, 32))));
}

/** The salt of the channel of a number: the same in every run, so that a channel is found again without a memory of it. */
export function channelSalt(index: number): Hex {
  return toHex(keccak_256(join(new TextEncoder().encode("cartage"), word(BigInt(index)))));
}
