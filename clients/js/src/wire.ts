import { isHex, type Hex } from "./bytes.js";
import { PaymentError } from "./errors.js";
import { batchSettlement, chainOf } from "./scheme.js";

/** Names of the headers of x402 version 2. */
export const header = { required: "PAYMENT-REQUIRED", payment: "PAYMENT-SIGNATURE", receipt: "PAYMENT-RESPONSE" } as const;

/** Codes of the scheme, without their common beginning, that this client has an answer to. */
const prefix = "invalid_batch_settlement_evm_";
export const code = {
  mismatch: `${prefix}cumulative_amount_mismatch`,
  belowClaimed: `${prefix}cumulative_below_claimed`,
  exceedsBalance: `${prefix}cumulative_exceeds_balance`,
  noChannel: `${prefix}channel_not_found`,
  busy: `${prefix}channel_busy`,
  termsChanged: "terms_changed",
} as const;

/** An offer of the scheme, checked. */
export interface Offer {
  network: string;
  asset: Hex;
  payTo: Hex;
  amount: bigint;
  maxTimeoutSeconds: number;
  receiverAuthorizer: Hex;
  withdrawDelay: number;
  tokenName: string;
  tokenVersion: string;
  minDeposit: bigint;
  /** The object as it came, without what is said about the state of a channel: it is echoed. */
  raw: Record<string, unknown>;
}

/** What a gateway says of a channel in a corrective 402. All of it is a claim. */
export interface ChannelClaim {
  charged: bigint | undefined;
  balance: bigint | undefined;
  signed: bigint | undefined;
  signature: string | undefined;
}

/** A 402. */
export interface Challenge {
  error: string;
  resource: unknown;
  extensions: unknown;
  offers: { offer: Offer; claim: ChannelClaim }[];
  /** Atomic units for 2^40 bytes, if the gateway says it. */
  perTiB: bigint | undefined;
}

/** A receipt. */
export interface Receipt {
  success: boolean;
  reason: string;
  transaction: string;
  amount: bigint | undefined;
  charged: bigint | undefined;
  cumulative: bigint | undefined;
  balance: bigint | undefined;
}

type Members = Record<string, unknown>;

/** Encodes an object as the headers have it: base64 of its JSON. */
export function encodeHeader(value: unknown): string {
  let bytes = "";
  for (const b of new TextEncoder().encode(JSON.stringify(value))) bytes += String.fromCharCode(b);
  return btoa(bytes);
}

const maxHeader = 64 << 10;

function decodeHeader(name: string, text: string): Members {
  try {
    if (text.length > maxHeader) throw new RangeError(`${text.length} characters are above the limit of ${maxHeader}`);
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (!isMembers(value)) throw new TypeError("it is no JSON object");
    return value;
  } catch (cause) {
    throw new PaymentError("malformed", `${name} of the gateway cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function isMembers(v: unknown): v is Members {
  return typeof v === "object" && v !== null && !Array.isArray(v);
}

function members(v: unknown): Members {
  return isMembers(v) ? v : {};
}

function text(v: unknown): string {
  return typeof v === "string" ? v : "";
}

/** An amount: decimal digits without sign and leading zeros, below 2^128; undefined for all else. */
export function parseAmount(v: unknown): bigint | undefined {
  if (typeof v !== "string" || !/^(0|[1-9][0-9]{0,38})$/.test(v)) return undefined;
  const n = BigInt(v);
  return n >> 128n === 0n ? n : undefined;
}

const zeroAddress = `0x${"0".repeat(40)}`;
const [shortestDelay, longestDelay] = [900, 2_592_000]; // seconds, of the contract

function parseOffer(o: Members): Offer | undefined {
  const extra = members(o["extra"]);
  const { channelState: _state, voucherState: _voucher, ...terms } = extra;
  const amount = parseAmount(o["amount"]);
  const delay = extra["withdrawDelay"];
  const method = extra["assetTransferMethod"];
  if (o["scheme"] !== batchSettlement || chainOf(text(o["network"])) === undefined || amount === undefined) return undefined;
  if (!isHex(o["asset"], 20) || !isHex(o["payTo"], 20) || !isHex(extra["receiverAuthorizer"], 20)) return undefined;
  if (extra["receiverAuthorizer"] === zeroAddress || (method !== undefined && method !== "eip3009")) return undefined;
  if (typeof delay !== "number" || !Number.isInteger(delay) || delay < shortestDelay || delay > longestDelay) return undefined;
  if (typeof extra["name"] !== "string" || typeof extra["version"] !== "string") return undefined;
  const timeout = o["maxTimeoutSeconds"];
  return {
    network: text(o["network"]),
    asset: o["asset"],
    payTo: o["payTo"],
    amount,
    maxTimeoutSeconds: typeof timeout === "number" && timeout > 0 && timeout <= 86_400 ? Math.floor(timeout) : 600,
    receiverAuthorizer: extra["receiverAuthorizer"],
    withdrawDelay: delay,
    tokenName: extra["name"],
    tokenVersion: extra["version"],
    minDeposit: parseAmount(extra["minDeposit"]) ?? 0n,
    raw: { ...o, extra: terms },
  };
}

function parseClaim(extra: Members): ChannelClaim {
  const state = members(extra["channelState"]);
  const voucher = members(extra["voucherState"]);
  return {
    charged: parseAmount(state["chargedCumulativeAmount"]),
    balance: parseAmount(state["balance"]),
    signed: parseAmount(voucher["signedMaxClaimable"]),
    signature: typeof voucher["signature"] === "string" ? voucher["signature"] : undefined,
  };
}

/** Reads a 402. */
export function parseChallenge(response: Response): Challenge {
  const value = response.headers.get(header.required);
  if (value === null) throw new PaymentError("malformed", `the gateway answered 402 without ${header.required}`);
  const c = decodeHeader(header.required, value);
  if (c["x402Version"] !== 2) throw new PaymentError("malformed", `${header.required} is of version ${JSON.stringify(c["x402Version"])}, not 2`);
  const accepts = Array.isArray(c["accepts"]) ? c["accepts"].filter(isMembers) : [];
  return {
    error: text(c["error"]),
    resource: c["resource"],
    extensions: c["extensions"],
    offers: accepts.flatMap((o) => {
      const offer = parseOffer(o);
      return offer ? [{ offer, claim: parseClaim(members(o["extra"])) }] : [];
    }),
    perTiB: parseAmount(members(members(members(c["extensions"])["cartage"])["info"])["perTiB"]),
  };
}

/** Reads a receipt; undefined if the answer has none. */
export function parseReceipt(response: Response): Receipt | undefined {
  const value = response.headers.get(header.receipt);
  if (value === null) return undefined;
  const r = decodeHeader(header.receipt, value);
  const extra = members(r["extra"]);
  const state = members(extra["channelState"]);
  return {
    success: r["success"] === true,
    reason: text(r["errorReason"]),
    transaction: text(r["transaction"]),
    amount: parseAmount(r["amount"]),
    charged: parseAmount(extra["chargedAmount"]),
    cumulative: parseAmount(state["chargedCumulativeAmount"]),
    balance: parseAmount(state["balance"]),
  };
}
