import type { ChainState, Channel, Pending } from "./channel.js";
import { PaymentError } from "./errors.js";
import type { Pool } from "./pool.js";
import { code, encodeHeader, header, parseChallenge, parseReceipt, type Challenge, type Offer } from "./wire.js";

/** What a purchase needs of the client. */
export interface Means {
  fetch: typeof fetch;
  wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readChannel: ((network: string, id: `0x${string}`) => Promise<ChainState>) | undefined;
  maxBody: number;
  /** The offer of a later challenge that is under the same terms; undefined if there is none. It throws if the price is too high. */
  sameTerms: (c: Challenge) => Offer | undefined;
}

/** How often a payment is sent again: without an answer, and with "later" as the answer. */
const [lostTries, laterTries] = [3, 5];
/** How long the same payment is answered again: less than the ten minutes of a gateway. */
const replayMs = 9 * 60_000;
const longestWaitSeconds = 60;

const withoutBody = new Set([204, 205, 304]);

/** One purchase on a channel that is held. */
export class Purchase {
  readonly #request: Request;
  readonly #key: string;
  readonly #channel: Channel;
  readonly #pool: Pool;
  readonly #means: Means;
  #challenge: Challenge;
  #offer: Offer;
  /** Atomic units of the receipts of this purchase. */
  charged = 0n;
  readonly #done = new Set<string>(); // what is tried once: a correction, a top-up, new terms

  constructor(request: Request, key: string, challenge: Challenge, offer: Offer, channel: Channel, pool: Pool, means: Means) {
    this.#request = request;
    this.#key = key;
    this.#challenge = challenge;
    this.#offer = offer;
    this.#channel = channel;
    this.#pool = pool;
    this.#means = means;
  }

  /** Pays and returns the complete answer, or an answer for which nothing was charged. */
  async run(): Promise<Response> {
    const left = this.#channel.pending;
    let payment = left?.request === this.#key && Date.now() - left.at < replayMs ? left : await this.#sign();
    let later = 0;
    for (;;) {
      const response = await this.#send(payment);
      if (response.status === 429 || response.status === 503 || (response.status === 402 && isBusy(response))) {
        if (later++ === laterTries) return response;
        await this.#means.wait(retryAfter(response), this.#request.signal);
        payment = this.#channel.pending ?? (await this.#sign());
        continue;
      }
      if (response.status !== 402) return response;
      await this.#correct(payment, parseChallenge(response));
      payment = await this.#sign();
    }
  }

  #sign(): Promise<Pending> {
    return this.#channel.sign(this.#offer, this.#key, this.#pool.purse);
  }

  /** Sends a payment until there is an answer to it, whole. */
  async #send(payment: Pending): Promise<Response> {
    for (let tries = 1; ; tries++) {
      try {
        const response = await this.#means.fetch(this.#paid(payment));
        const receipt = parseReceipt(response);
        if (!receipt?.success) return await this.#unpaid(response);
        const body = await readBody(response, this.#means.maxBody);
        this.charged += await this.#channel.settle(receipt); // of an error it takes a deposit and charges nothing
        return withBody(response, body);
      } catch (err) {
        this.#request.signal.throwIfAborted();
        if (err instanceof PaymentError) throw err;
        if (tries === lostTries) throw new PaymentError("lost", `no answer came to a payment for ${this.#request.url}: ${(err as Error).message}`, { cause: err });
        await this.#means.wait(200 * 2 ** tries, this.#request.signal);
      }
    }
  }

  /** An answer without a receipt. What is no success was not charged; of what was given away the gateway keeps a voucher, which stays counted. */
  async #unpaid(response: Response): Promise<Response> {
    const definite = response.status >= 400 && response.status < 500 && response.status !== 402 && response.status !== 429;
    if (definite) await this.#channel.drop();
    return response;
  }

  #paid(payment: Pending): Request {
    const headers = new Headers(this.#request.headers);
    const { resource, extensions } = this.#challenge;
    const object = { x402Version: 2, accepted: payment.offer.raw, payload: payment.payload, resource, extensions };
    headers.set(header.payment, encodeHeader(object));
    const { url, method, signal, credentials, referrerPolicy } = this.#request;
    // The cache is not asked: it may have the answer to another payment. What comes is kept in it, so that the same request later is free.
    return new Request(url, { method, headers, signal, credentials, referrerPolicy, cache: "reload", redirect: "error" });
  }

  async #chain(): Promise<ChainState | undefined> {
    return this.#means.readChannel?.(this.#channel.network, this.#channel.id);
  }

  /** Looks what was wrong with a payment, once for each cause; throws if nothing can be done. */
  async #correct(payment: Pending, answer: Challenge): Promise<void> {
    const c = this.#channel;
    const offer = this.#means.sameTerms(answer);
    const claim = answer.offers.find((o) => o.offer === offer)?.claim;
    const once = !this.#done.has(answer.error);
    this.#done.add(answer.error);
    if (once && offer && claim) {
      [this.#challenge, this.#offer] = [answer, offer];
      switch (answer.error) {
        case code.mismatch:
        case code.belowClaimed:
          if (await c.adopt(claim, await this.#chain())) return;
          break;
        case code.noChannel:
          return c.lower((await this.#chain())?.balance ?? 0n);
        case code.exceedsBalance: {
          // Also said of a channel that is being withdrawn, into which nothing more must go: less has to be shown.
          const balance = (await this.#chain())?.balance ?? claim.balance;
          if (payment.deposit === 0n && balance !== undefined && balance < c.balance) return c.lower(balance);
          break;
        }
        case code.termsChanged:
          return c.drop();
      }
    }
    await c.drop();
    throw new PaymentError("refused", `the gateway took no payment for ${this.#request.url}: ${answer.error || "it does not say why"}`, { reason: answer.error });
  }
}

function isBusy(response: Response): boolean {
  return parseChallenge(response).error === code.busy;
}

function retryAfter(response: Response): number {
  const seconds = Number(response.headers.get("Retry-After") ?? "1");
  return 1000 * Math.min(longestWaitSeconds, Number.isFinite(seconds) && seconds >= 0 ? seconds : 1);
}

/** Reads a body whole: until then its payment may be repeated without a charge. */
async function readBody(response: Response, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = response.body?.getReader();
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > limit) {
      await reader.cancel();
      throw new PaymentError("malformed", `the gateway sent more than ${limit} bytes for one payment`);
    }
    parts.push(value);
  }
  const announced = response.headers.get("Content-Length");
  if (announced !== null && response.headers.get("Content-Encoding") === null && Number(announced) !== size) {
    throw new TypeError(`${size} bytes of ${announced} came`);
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const p of parts) {
    body.set(p, at);
    at += p.length;
  }
  return body;
}

function withBody(response: Response, body: Uint8Array<ArrayBuffer>): Response {
  const { status, statusText, headers, url } = response;
  const whole = new Response(withoutBody.has(status) ? null : body, { status, statusText, headers });
  return Object.defineProperty(whole, "url", { value: url });
}
