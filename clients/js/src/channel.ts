import { toHex, type Hex } from "./bytes.js";
import { PaymentError } from "./errors.js";
import type { Purse } from "./purse.js";
import { channelId, depositData, signedBy, voucherData, type ChannelConfig } from "./scheme.js";
import type { Signer } from "./signer.js";
import type { Store } from "./store.js";
import { parseAmount, type ChannelClaim, type Offer, type Receipt } from "./wire.js";

/** A payment that was signed and of which no receipt has come. */
export interface Pending {
  /** What was asked for: the same request again sends the same payment again. */
  request: string;
  offer: Offer;
  payload: Record<string, unknown>;
  amount: bigint;
  deposit: bigint;
  /** Milliseconds of the Unix epoch. */
  at: number;
}

/** What a channel has on chain. */
export interface ChainState {
  balance: bigint;
  totalClaimed: bigint;
}

const recordVersion = 1;

/** JSON of a record: numbers of money are decimal strings with an n behind. */
const write = (_key: string, v: unknown): unknown => (typeof v === "bigint" ? `${v}n` : v);
const read = (_key: string, v: unknown): unknown => (typeof v === "string" && /^[0-9]{1,39}n$/.test(v) ? BigInt(v.slice(0, -1)) : v);

/**
 * One channel: what was charged, what was signed, what it holds. Whoever uses it holds its lock; the state is stored before a payment leaves.
 */
export class Channel {
  readonly id: Hex;
  readonly network: string;
  readonly config: ChannelConfig;
  readonly #signer: Signer;
  readonly #store: Store;
  /** Atomic units that were charged in all. */
  charged = 0n;
  /** Atomic units that it holds, with those that were charged. */
  balance = 0n;
  /** The payment that waits for its receipt. */
  pending: Pending | undefined;
  #highest = 0n;

  private constructor(network: string, config: ChannelConfig, signer: Signer, store: Store) {
    this.network = network;
    this.config = config;
    this.id = channelId(network, config);
    this.#signer = signer;
    this.#store = store;
  }

  /** Loads a channel; one that the store does not have begins empty. */
  static async load(network: string, config: ChannelConfig, signer: Signer, store: Store): Promise<Channel> {
    const c = new Channel(network, config, signer, store);
    const text = await store.get(c.id);
    if (text === undefined) return c;
    const r = JSON.parse(text, read) as { version?: number; charged?: bigint; balance?: bigint; highest?: bigint; pending?: Pending };
    if (r.version !== recordVersion || typeof r.charged !== "bigint" || typeof r.balance !== "bigint" || typeof r.highest !== "bigint") {
      throw new Error(`the store has no readable state of channel ${c.id}: ${text.slice(0, 100)}`);
    }
    [c.charged, c.balance, c.#highest, c.pending] = [r.charged, r.balance, r.highest, r.pending];
    return c;
  }

  /** Stores the state. */
  async save(): Promise<void> {
    const { charged, balance, pending } = this;
    await this.#store.set(this.id, JSON.stringify({ version: recordVersion, network: this.network, charged, balance, highest: this.#highest, pending }, write));
  }

  /** Signs a payment, with a deposit if the channel has too little, and stores it. What it takes from the purse is taken before anything is signed. */
  async sign(offer: Offer, request: string, purse: Purse): Promise<Pending> {
    const max = this.charged + offer.amount;
    const deposit = max > this.balance ? depositFor(offer, max - this.balance, purse) : 0n;
    purse.take(max > this.#highest ? max - this.#highest : 0n, deposit);
    const voucher = await this.#voucher(max);
    const payload: Record<string, unknown> = { type: "voucher", channelConfig: this.config, voucher };
    if (deposit > 0n) Object.assign(payload, { type: "deposit", deposit: await this.#deposit(offer, deposit) });
    this.pending = { request, offer, payload, amount: offer.amount, deposit, at: Date.now() };
    if (max > this.#highest) this.#highest = max;
    await this.save();
    return this.pending;
  }

  /** Signs a demand to get back what was not charged. */
  async signRefund(amount?: bigint): Promise<Record<string, unknown>> {
    const payload = { type: "refund", channelConfig: this.config, voucher: await this.#voucher(this.charged) };
    return amount === undefined ? payload : { ...payload, amount: amount.toString() };
  }

  async #voucher(max: bigint): Promise<Record<string, unknown>> {
    const signature = await this.#signer.signTypedData(voucherData(this.network, this.id, max));
    return { channelId: this.id, maxClaimableAmount: max.toString(), signature };
  }

  async #deposit(offer: Offer, amount: bigint): Promise<Record<string, unknown>> {
    const salt = toHex(crypto.getRandomValues(new Uint8Array(32)));
    const validBefore = Math.floor(Date.now() / 1000) + offer.maxTimeoutSeconds;
    const data = depositData({
      network: this.network,
      token: offer.asset,
      tokenName: offer.tokenName,
      tokenVersion: offer.tokenVersion,
      payer: this.config.payer,
      channel: this.id,
      amount,
      validBefore,
      salt,
    });
    const signature = await this.#signer.signTypedData(data);
    const erc3009Authorization = { validAfter: "0", validBefore: validBefore.toString(), salt, signature };
    return { amount: amount.toString(), authorization: { erc3009Authorization } };
  }

  /** Takes the receipt of the pending payment. A receipt that charges more than was signed for, or counts otherwise, is a denial. */
  async settle(receipt: Receipt): Promise<bigint> {
    const p = this.pending;
    if (!p) throw new Error(`no payment of channel ${this.id} waits for a receipt`);
    const charged = receipt.charged ?? p.amount;
    const cumulative = this.charged + charged;
    if (charged > p.amount) throw new PaymentError("denied", `the gateway charged ${charged} for what it offered for ${p.amount}`);
    if (receipt.cumulative !== undefined && receipt.cumulative !== cumulative) {
      throw new PaymentError("denied", `the gateway counts ${receipt.cumulative} as charged to channel ${this.id}; the receipts sum to ${cumulative}`);
    }
    this.charged = cumulative;
    this.balance += p.deposit;
    this.pending = undefined;
    await this.save();
    return charged;
  }

  /** Drops the pending payment: the gateway said that it took nothing. */
  async drop(): Promise<void> {
    this.pending = undefined;
    await this.save();
  }

  /**
   * Adopts what a gateway says was charged, if it shows a voucher of this payer for at least that, or else what the chain says. False if neither is there.
   * What is charged never goes down by the word of a gateway.
   */
  async adopt(claim: ChannelClaim, chain: ChainState | undefined): Promise<boolean> {
    const { charged, signed, signature } = claim;
    if (charged !== undefined && signed !== undefined && signature !== undefined) {
      const own = signedBy(this.config.payerAuthorizer, this.network, this.id, signed, signature);
      if (!own || charged > signed || charged < this.charged) {
        throw new PaymentError("denied", `the gateway claims that ${charged} of ${signed} are charged to channel ${this.id}, which was not signed here`);
      }
      this.charged = charged;
      this.balance = max(chain?.balance ?? claim.balance ?? 0n, this.balance);
      if (charged > this.#highest) this.#highest = charged;
    } else if (chain) {
      this.charged = chain.totalClaimed;
      this.balance = chain.balance;
      if (this.charged > this.#highest) this.#highest = this.charged;
    } else {
      return false;
    }
    this.pending = undefined;
    await this.save();
    return true;
  }

  /** Takes a smaller balance than was thought, so that the next payment brings a deposit. */
  async lower(balance: bigint): Promise<void> {
    this.balance = balance < this.balance ? balance : this.balance;
    this.pending = undefined;
    await this.save();
  }
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** How many payments a deposit is for, where the gateway does not say how much it has to be. */
const paymentsOfDeposit = 10n;

function depositFor(offer: Offer, needed: bigint, purse: Purse): bigint {
  const least = max(needed, offer.minDeposit);
  const wanted = offer.minDeposit > 0n ? least : max(needed, paymentsOfDeposit * offer.amount);
  const room = purse.depositRoom;
  return wanted > room && room >= least ? room : wanted;
}

/** Reads an amount of a refund that a user gives. */
export function refundAmount(v: bigint | undefined): bigint | undefined {
  if (v !== undefined && (v === 0n || parseAmount(v.toString()) === undefined)) throw new RangeError(`${v} is no amount to refund`);
  return v;
}
