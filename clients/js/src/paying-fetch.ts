import { Purchase, type Means } from "./buy.js";
import type { Channel, ChainState } from "./channel.js";
import { refundAmount } from "./channel.js";
import { PaymentError } from "./errors.js";
import { Pool } from "./pool.js";
import { assetName, Purse, type Budget } from "./purse.js";
import type { Signer } from "./signer.js";
import { MemoryStore, type Store } from "./store.js";
import { code, encodeHeader, header, parseChallenge, parseReceipt, type Challenge, type Offer } from "./wire.js";

/** How a paying fetch pays. */
export interface Options {
  /** Who pays. */
  signer: Signer;
  /**
   * The most that may be signed, and the most that may be deposited, by asset, in atomic units: `{ "eip155:8453/0x8335…": 500_000n }`. Assets that are
   * not here are not paid with. It counts from the making of the paying fetch.
   */
  budget: Budget;
  /** The most that 2^40 bytes may cost, in atomic units; undefined: any price within the budget. */
  maxPerTiB?: bigint;
  /** How many channels a gateway may have: so many requests are paid at a time. 4 if undefined. */
  channels?: number;
  /** Where the state of channels is kept; undefined: in memory. */
  store?: Store;
  /** Reads a channel from its chain, for the case that neither the store nor the gateway knows it any more; undefined: such a channel is not paid from. */
  readChannel?: (network: string, id: `0x${string}`) => Promise<ChainState>;
  /** The most bytes that one payment may buy; they are held in memory until they are complete. 16 MiB if undefined. */
  maxBody?: number;
  /** What requests are made with; undefined: the global fetch at the time of making. */
  fetch?: typeof fetch;
  /** How waiting is done, for tests; undefined: with a timer. */
  wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** What was spent of one asset, in atomic units: each counted from the making of the paying fetch. */
export interface Spent {
  /** The sum of the receipts. */
  charged: bigint;
  /** What was signed away, at most: above `charged` by payments without a receipt. */
  signed: bigint;
  /** What was moved into channels, at most; what was not charged can be had back. */
  deposited: bigint;
}

/** A refund. */
export interface Refund {
  channel: `0x${string}`;
  amount: bigint;
  transaction: string;
}

/** A `fetch` that pays. It may be called at the same time from many places. */
export interface PayingFetch {
  (input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** What was spent of an asset. */
  spent(asset: string): Spent;
  /** Asks a gateway for what was not charged, of all channels with it; `url` costs money there (`https://HOST/x402/channel` does everywhere). */
  refund(url: string | URL, amount?: bigint): Promise<Refund[]>;
}

const defaultChannels = 4;
const defaultMaxBody = 16 << 20;
const bytesPerTiB = 1n << 40n;

/** Makes a fetch that pays what a trustless gateway asks, within a budget. Bytes are not verified: whoever takes them does that. */
export function payingFetch(options: Options): PayingFetch {
  const client = new Client(options);
  const f = (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => client.fetch(new Request(input, init));
  return Object.assign(f, {
    spent: (asset: string) => client.spent(asset.toLowerCase()),
    refund: async (url: string | URL, amount?: bigint) => client.refund(new URL(url), refundAmount(amount)),
  });
}

function timer(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => (clearTimeout(t), reject(signal.reason));
    const t = setTimeout(() => (signal.removeEventListener("abort", end), resolve()), ms);
    signal.addEventListener("abort", end, { once: true });
  });
}

class Client {
  readonly #options: Options;
  readonly #fetch: typeof fetch;
  readonly #store: Store;
  readonly #purses = new Map<string, { purse: Purse; charged: bigint }>();
  readonly #pools = new Map<string, Pool>();

  constructor(options: Options) {
    this.#options = options;
    const f = options.fetch ?? globalThis.fetch;
    this.#fetch = (input, init) => f(input, init); // without a this: a browser's fetch refuses another one
    this.#store = options.store ?? new MemoryStore();
    for (const [asset, limit] of Object.entries(options.budget)) {
      if (limit < 0n) throw new RangeError(`the budget of ${asset} is ${limit}`);
      this.#purses.set(asset.toLowerCase(), { purse: new Purse(asset, limit), charged: 0n });
    }
    if (options.channels !== undefined && !(Number.isInteger(options.channels) && options.channels > 0)) {
      throw new RangeError(`channels is ${options.channels}; it is a number above 0`);
    }
  }

  spent(asset: string): Spent {
    const p = this.#purses.get(asset);
    return { charged: p?.charged ?? 0n, signed: p?.purse.signed ?? 0n, deposited: p?.purse.deposited ?? 0n };
  }

  /** Asks without a payment first: what is free, or in the cache of a browser, costs nothing. */
  async fetch(request: Request): Promise<Response> {
    const probe = await this.#fetch(request.clone());
    if (probe.status !== 402 || request.method !== "GET") return probe;
    const challenge = parseChallenge(probe);
    await probe.body?.cancel();
    checkOrigin(request, probe);
    const offer = this.#choose(challenge, request);
    const pool = this.#pool(offer);
    const key = requestKey(request);
    const channel = await pool.acquire(key, request.signal);
    try {
      return await this.#buy(request, key, challenge, offer, channel, pool);
    } catch (err) {
      if (err instanceof PaymentError && err.code === "denied") pool.blocked = err;
      throw err;
    } finally {
      pool.release(channel);
    }
  }

  async #buy(request: Request, key: string, challenge: Challenge, offer: Offer, channel: Channel, pool: Pool): Promise<Response> {
    if (pool.blocked) throw pool.blocked;
    const sameTerms = (c: Challenge): Offer | undefined => c.offers.map((o) => o.offer).find((o) => this.#pool(o, false) === pool && this.#priced(c, o, request));
    const purchase = new Purchase(request, key, challenge, offer, channel, pool, this.#means(sameTerms));
    const response = await purchase.run();
    this.#count(offer, response, purchase.charged, pool);
    return response;
  }

  /** Counts a receipt, and looks whether the price was that which was allowed, now that the length is known. */
  #count(offer: Offer, response: Response, charged: bigint, pool: Pool): void {
    this.#purses.get(assetName(offer.network, offer.asset))!.charged += charged;
    const { maxPerTiB } = this.#options;
    const length = Number(response.headers.get("Content-Length") ?? NaN);
    if (maxPerTiB === undefined || !Number.isInteger(length) || charged <= ceiling(BigInt(length), maxPerTiB)) return;
    pool.blocked = new PaymentError("price", `${response.url} charged ${charged} for ${length} bytes, above ${maxPerTiB} for a TiB: nothing more is paid there`);
  }

  #means(sameTerms: Means["sameTerms"]): Means {
    const { wait = timer, readChannel, maxBody = defaultMaxBody } = this.#options;
    return { fetch: this.#fetch, wait, readChannel, maxBody, sameTerms };
  }

  /** The first offer, in the order of the gateway, in an asset of the budget. */
  #choose(challenge: Challenge, request: Request): Offer {
    const offer = challenge.offers.map((o) => o.offer).find((o) => this.#purses.has(assetName(o.network, o.asset)));
    if (!offer) throw new PaymentError("no_offer", `${request.url} has to be paid with what the budget does not have, or in a way that is not known here`);
    this.#priced(challenge, offer, request);
    return offer;
  }

  /** Throws if the price is above the limit, as far as it can be told before the length is known. */
  #priced(challenge: Challenge, offer: Offer, request: Request): boolean {
    const { maxPerTiB } = this.#options;
    if (maxPerTiB === undefined) return true;
    if (challenge.perTiB !== undefined && challenge.perTiB > maxPerTiB) {
      throw new PaymentError("price", `${request.url} costs ${challenge.perTiB} for a TiB, above ${maxPerTiB}`);
    }
    const range = /^bytes=([0-9]{1,16})-([0-9]{1,16})$/.exec(request.headers.get("Range") ?? "");
    const most = range ? ceiling(BigInt(range[2]!) - BigInt(range[1]!) + 1n, maxPerTiB) : offer.amount;
    if (offer.amount > most) throw new PaymentError("price", `${request.url} costs ${offer.amount}, above ${most} for its range`);
    return true;
  }

  #pool(o: Offer, make = true): Pool {
    const terms = [o.network, o.asset, o.payTo, o.receiverAuthorizer, o.withdrawDelay].join("/").toLowerCase();
    const known = this.#pools.get(terms);
    if (known || !make) return known!;
    const { signer, channels = defaultChannels } = this.#options;
    const pool = new Pool(o, channels, this.#purses.get(assetName(o.network, o.asset))!.purse, signer, this.#store);
    this.#pools.set(terms, pool);
    return pool;
  }

  async refund(url: URL, amount: bigint | undefined): Promise<Refund[]> {
    const request = new Request(url);
    const probe = await this.#fetch(request.clone());
    if (probe.status !== 402) throw new PaymentError("no_offer", `${url} answered ${probe.status}, not 402`);
    const challenge = parseChallenge(probe);
    checkOrigin(request, probe);
    const offer = this.#choose(challenge, request);
    const out: Refund[] = [];
    await this.#pool(offer).each(async (c) => {
      const had = c.balance > c.charged ? await this.#refundOne(request, challenge, offer, c, amount) : undefined;
      if (had) out.push(had);
    });
    return out;
  }

  async #refundOne(request: Request, challenge: Challenge, offer: Offer, c: Channel, amount: bigint | undefined): Promise<Refund> {
    for (let corrected = false; ; corrected = true) {
      const { resource, extensions } = challenge;
      const headers = new Headers(request.headers);
      headers.set(header.payment, encodeHeader({ x402Version: 2, accepted: offer.raw, payload: await c.signRefund(amount), resource, extensions }));
      const response = await this.#fetch(new Request(request.url, { headers, cache: "no-store", redirect: "error" }));
      const receipt = parseReceipt(response);
      if (response.ok && receipt?.success) {
        const back = receipt.amount ?? 0n;
        await c.lower(receipt.balance ?? (c.balance > back ? c.balance - back : 0n));
        return { channel: c.id, amount: back, transaction: receipt.transaction };
      }
      const answer = response.status === 402 ? parseChallenge(response) : undefined;
      const claim = answer?.offers.find((o) => this.#pool(o.offer, false) === this.#pool(offer))?.claim;
      const mismatch = answer?.error === code.mismatch || answer?.error === code.belowClaimed;
      if (!corrected && claim && mismatch && (await c.adopt(claim, await this.#options.readChannel?.(c.network, c.id)))) continue;
      const reason = answer?.error || receipt?.reason || `status ${response.status}`;
      throw new PaymentError("refused", `the gateway refunded nothing of channel ${c.id}: ${reason}`, { reason });
    }
  }
}

function ceiling(bytes: bigint, perTiB: bigint): bigint {
  return (bytes * perTiB + bytesPerTiB - 1n) / bytesPerTiB;
}

/** The same for requests that ask for the same bytes. */
function requestKey(r: Request): string {
  return [r.method, r.url, r.headers.get("Range") ?? "", r.headers.get("Accept") ?? ""].join("\n");
}

const loopback = /^(localhost|127\.[0-9.]+|\[::1\])$/;

/** Refuses to pay where a redirect has led to another origin, and without TLS except on this machine. */
function checkOrigin(request: Request, probe: Response): void {
  const [asked, answered] = [new URL(request.url), new URL(probe.url || request.url)];
  if (asked.origin !== answered.origin) throw new PaymentError("no_offer", `${asked} led to ${answered.origin}, which is not paid`);
  if (asked.protocol !== "https:" && !loopback.test(asked.hostname)) throw new PaymentError("no_offer", `${asked} is without TLS and is not paid`);
}
