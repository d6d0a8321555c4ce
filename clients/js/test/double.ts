import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { channelId, signedBy, type ChannelConfig } from "../src/scheme.js";
import { code, encodeHeader, parseAmount } from "../src/wire.js";

/** What goes wrong with the next payments, one each. */
export type Fault = "none" | "cut before commit" | "cut after commit" | "cut in body" | "busy" | "later" | "overcharge" | "miscount" | "free" | "new price" | "deposit only";

interface Entry {
  channelId: string;
  config: ChannelConfig;
  charged: bigint;
  signed: bigint;
  signature: string;
  balance: bigint;
  spare: bigint;
  key: string;
  receipt: Record<string, unknown>;
  replays: number;
  /** A withdrawal is pending: nothing more is taken. */
  withdrawing?: boolean;
}

interface Payload {
  type: string;
  channelConfig: ChannelConfig;
  voucher: { channelId: `0x${string}`; maxClaimableAmount: string; signature: string };
  deposit?: { amount: string };
  amount?: string;
}

interface Payment {
  accepted: { amount: string; payTo: string; asset: string; network: string };
  payload: Payload;
}

/** What moves tokens for the double; it answers the balance that the channel has then. */
export interface Relay {
  deposit(payment: unknown, offer: unknown, had: bigint): Promise<{ balance: bigint; transaction: string }>;
  refund(entry: Entry, offer: unknown, amount: bigint): Promise<{ balance: bigint; transaction: string }>;
}

const paperMoney: Relay = {
  deposit: async (p, _offer, had) => ({ balance: had + BigInt((p as Payment).payload.deposit!.amount), transaction: "0xdd" }),
  refund: async (e, _offer, amount) => ({ balance: e.balance - amount, transaction: "0xee" }),
};

export interface Terms {
  network: string;
  asset: string;
  payTo: string;
  receiverAuthorizer: string;
  tokenName: string;
  tokenVersion: string;
  perTiB: bigint;
  minDeposit: bigint;
  withdrawDelay: number;
}

/** A double of a paid gateway: bytes by path and range, sold under batch-settlement as the specification of the gateway says it. */
export class GatewayDouble {
  readonly files = new Map<string, Uint8Array>();
  readonly entries = new Map<string, Entry>();
  readonly faults: Fault[] = [];
  /** What was asked: method, path, range, and whether it was paid. */
  readonly seen: string[] = [];
  paying = 0;
  mostPaying = 0;
  /** Runs before each sale. */
  beforeSale: () => Promise<void> = async () => {};
  terms: Terms;
  readonly #relay: Relay;
  readonly #server: Server;
  #bodies = 0;

  constructor(terms: Terms, relay: Relay = paperMoney) {
    this.terms = terms;
    this.#relay = relay;
    this.#server = createServer((q, r) => void this.#serve(q, r).catch((err: unknown) => (r.headersSent ? r.destroy(err as Error) : r.writeHead(500).end(String(err)))));
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** The sum of what all channels were charged. */
  get charged(): bigint {
    return [...this.entries.values()].reduce((n, e) => n + e.charged, 0n);
  }

  /** What an amount of bytes costs. */
  price(n: number): bigint {
    return (BigInt(n) * this.terms.perTiB + (1n << 40n) - 1n) >> 40n;
  }

  #offer(amount: bigint, state: Record<string, unknown> = {}): Record<string, unknown> {
    const t = this.terms;
    const extra = {
      receiverAuthorizer: t.receiverAuthorizer,
      withdrawDelay: t.withdrawDelay,
      name: t.tokenName,
      version: t.tokenVersion,
      assetTransferMethod: "eip3009",
      minDeposit: t.minDeposit.toString(),
      ...state,
    };
    return { scheme: "batch-settlement", network: t.network, amount: amount.toString(), asset: t.asset, payTo: t.payTo, maxTimeoutSeconds: 600, extra };
  }

  #challenge(q: IncomingMessage, r: ServerResponse, amount: bigint, error: string, state?: Record<string, unknown>): void {
    const url = `http://${q.headers.host}${q.url}`;
    const unknown = { scheme: "cartage-paych", network: "cartage:test", amount: "1", asset: "FIL", payTo: "f1", maxTimeoutSeconds: 600, extra: {} };
    const extensions = { cartage: { info: { perTiB: this.terms.perTiB.toString(), maxWindow: 8 << 20 }, schema: {} } };
    r.setHeader("PAYMENT-REQUIRED", encodeHeader({ x402Version: 2, error, resource: { url }, accepts: [unknown, this.#offer(amount, state)], extensions }));
    r.setHeader("Cache-Control", "no-store");
    r.writeHead(402, { "Content-Type": "application/json" }).end(JSON.stringify({ error }));
  }

  async #serve(q: IncomingMessage, r: ServerResponse): Promise<void> {
    r.setHeader("Access-Control-Allow-Origin", "*");
    r.setHeader("Access-Control-Expose-Headers", "PAYMENT-REQUIRED, PAYMENT-RESPONSE, Content-Range, Content-Length, ETag, Retry-After");
    if (q.method === "OPTIONS") {
      const allowed = "PAYMENT-SIGNATURE, X-PAYMENT, Access-Control-Expose-Headers, Accept, Range, Cache-Control, Content-Type";
      r.writeHead(204, { "Access-Control-Allow-Headers": allowed, "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS" }).end();
      return;
    }
    const paid = q.headers["payment-signature"];
    this.seen.push(`${q.method} ${q.url} ${q.headers.range ?? ""}${paid ? " paid" : ""}`.replace(/ +/g, " "));
    const door = q.url === "/x402/channel";
    const file = door ? new Uint8Array() : this.files.get(q.url ?? "");
    if (!file) return void r.writeHead(404).end();
    const range = /^bytes=([0-9]+)-([0-9]+)$/.exec(q.headers.range ?? "");
    const [from, to] = range ? [Number(range[1]), Math.min(Number(range[2]) + 1, file.length)] : [0, file.length];
    const body = file.subarray(from, to);
    if (range) r.setHeader("Content-Range", `bytes ${from}-${to - 1}/${file.length}`);
    if (!paid) return this.#challenge(q, r, this.price(body.length), "payment_required");
    this.mostPaying = Math.max(this.mostPaying, ++this.paying);
    try {
      await this.beforeSale();
      await this.#sell(q, r, body, JSON.parse(Buffer.from(paid as string, "base64").toString()) as Payment, range !== null);
    } finally {
      this.paying--;
    }
  }

  async #sell(q: IncomingMessage, r: ServerResponse, body: Uint8Array, p: Payment, partial: boolean): Promise<void> {
    const fault = this.faults.shift() ?? "none";
    if (fault === "new price") this.terms = { ...this.terms, perTiB: this.terms.perTiB * 2n };
    if (fault === "busy") return this.#challenge(q, r, this.price(body.length), code.busy);
    if (fault === "later") return void r.writeHead(503, { "Retry-After": "0" }).end();
    if (fault === "free") return void r.writeHead(200).end(body);
    if (fault === "cut before commit") return void q.socket.destroy();
    const amount = this.price(body.length);
    const v = p.payload.voucher;
    const id = channelId(this.terms.network, p.payload.channelConfig);
    const max = parseAmount(v.maxClaimableAmount) ?? -1n;
    if (id !== v.channelId || !signedBy(p.payload.channelConfig.payerAuthorizer, this.terms.network, id, max, v.signature)) {
      return this.#challenge(q, r, amount, "invalid_batch_settlement_evm_voucher_signature");
    }
    const key = createHash("sha256").update(`${q.url} ${q.headers.range} ${JSON.stringify(p.accepted)}`).digest("hex");
    const e = this.entries.get(id) ?? { channelId: id, config: p.payload.channelConfig, charged: 0n, signed: 0n, signature: "", balance: 0n, spare: 0n, key: "", receipt: {}, replays: 0 };
    if (p.payload.type === "refund") return this.#refund(q, r, e, p);
    if (e.signature === v.signature && e.key === key && e.replays++ < 3) return this.#answer(r, body, e.receipt, partial, fault);
    if (p.accepted.amount !== amount.toString()) return this.#challenge(q, r, amount, "terms_changed");
    const refusal = this.#wrong(e, max, amount, p);
    if (e.withdrawing) return this.#challenge(q, r, amount, code.exceedsBalance);
    if (refusal) return this.#challenge(q, r, amount, refusal, this.#stateOf(id, e));
    let transaction = "";
    if (p.payload.deposit) ({ balance: e.balance, transaction } = await this.#relay.deposit(p, this.#offer(amount), e.balance));
    this.entries.set(id, e);
    if (fault === "deposit only") {
      r.setHeader("PAYMENT-RESPONSE", encodeHeader(this.#receipt(id, e, 0n, transaction)));
      return void r.writeHead(503, { "Retry-After": "0" }).end();
    }
    const exact = BigInt(body.length) * this.terms.perTiB - e.spare;
    const charge = exact <= 0n ? 0n : (exact + (1n << 40n) - 1n) >> 40n;
    Object.assign(e, { charged: e.charged + charge, signed: max, signature: v.signature, spare: (charge << 40n) - exact, key, replays: 0 });
    e.receipt = this.#receipt(id, e, fault === "overcharge" ? amount + 1n : charge, transaction, fault === "miscount" ? 7n : 0n);
    if (fault === "cut after commit") return void q.socket.destroy();
    return this.#answer(r, body, e.receipt, partial, fault);
  }

  #wrong(e: Entry, max: bigint, amount: bigint, p: Payment): string {
    if (max !== e.charged + amount) return code.mismatch;
    const deposit = parseAmount(p.payload.deposit?.amount) ?? 0n;
    if (p.payload.deposit && deposit < this.terms.minDeposit) return "invalid_batch_settlement_evm_deposit_below_min_deposit";
    if (e.balance + deposit === 0n) return code.noChannel;
    return max > e.balance + deposit ? code.exceedsBalance : "";
  }

  #stateOf(id: string, e: Entry): Record<string, unknown> {
    const channelState = { channelId: id, balance: e.balance.toString(), totalClaimed: "0", withdrawRequestedAt: 0, refundNonce: "0", chargedCumulativeAmount: e.charged.toString() };
    return e.signature ? { channelState, voucherState: { signedMaxClaimable: e.signed.toString(), signature: e.signature } } : { channelState };
  }

  #receipt(id: string, e: Entry, charged: bigint, transaction: string, error = 0n): Record<string, unknown> {
    const state = this.#stateOf(id, { ...e, charged: e.charged + error })["channelState"];
    return { success: true, payer: e.config.payer, transaction, network: this.terms.network, amount: "", extra: { chargedAmount: charged.toString(), channelState: state } };
  }

  async #refund(q: IncomingMessage, r: ServerResponse, e: Entry, p: Payment): Promise<void> {
    const max = BigInt(p.payload.voucher.maxClaimableAmount);
    if (max !== e.charged) return this.#challenge(q, r, 0n, code.mismatch, this.#stateOf(p.payload.voucher.channelId, e));
    const rest = e.balance - e.charged;
    const asked = p.payload.amount === undefined ? rest : BigInt(p.payload.amount);
    const amount = asked < rest ? asked : rest;
    const done = await this.#relay.refund(e, this.#offer(0n), amount);
    e.balance = done.balance;
    const { extra, ...head } = this.#receipt(p.payload.voucher.channelId, e, 0n, done.transaction);
    const channelState = (extra as Record<string, unknown>)["channelState"];
    r.setHeader("PAYMENT-RESPONSE", encodeHeader({ ...head, amount: amount.toString(), extra: { channelState } }));
    r.writeHead(200, { "Content-Length": "0" }).end();
  }

  #answer(r: ServerResponse, body: Uint8Array, receipt: Record<string, unknown>, partial: boolean, fault: Fault): void {
    this.#bodies++;
    r.setHeader("PAYMENT-RESPONSE", encodeHeader(receipt));
    r.setHeader("Cache-Control", "private, max-age=29030400, immutable, no-transform");
    r.setHeader("Vary", "Accept");
    r.setHeader("ETag", `"body-${this.files.size}"`);
    r.writeHead(partial ? 206 : 200, { "Content-Type": "application/vnd.ipld.raw", "Content-Length": body.length });
    if (fault !== "cut in body") return void r.end(body);
    r.write(body.subarray(0, body.length >> 1), () => r.destroy());
  }

  /** How many bodies were sent. */
  get bodies(): number {
    return this.#bodies;
  }
}
