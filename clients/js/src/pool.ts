import { Channel } from "./channel.js";
import type { PaymentError } from "./errors.js";
import type { Purse } from "./purse.js";
import { channelSalt } from "./scheme.js";
import type { Signer } from "./signer.js";
import type { Store } from "./store.js";
import type { Offer } from "./wire.js";

interface Waiter {
  take: (c: Channel) => void;
  fail: (err: unknown) => void;
}

/**
 * The channels of one set of terms, which differ in their salts. A payment holds one channel alone until its answer is complete, because the next
 * voucher of a channel is made of what the last one was charged. A further channel is opened when all are held and the budget has room for its deposit.
 */
export class Pool {
  /** Why nothing more is paid under these terms. */
  blocked: PaymentError | undefined;
  readonly purse: Purse;
  readonly #signer: Signer;
  readonly #store: Store;
  readonly #terms: Offer;
  readonly #idle: Channel[] = []; // the last one that was used is at the end, and is taken first
  readonly #waiting: Waiter[] = [];
  readonly #unopened: number[]; // the numbers of their salts; the lowest is at the end
  readonly #open: Channel[] = [];
  #opening = 0;

  constructor(terms: Offer, size: number, purse: Purse, signer: Signer, store: Store) {
    this.#terms = terms;
    this.#unopened = Array.from({ length: size }, (_, i) => size - 1 - i);
    this.purse = purse;
    this.#signer = signer;
    this.#store = store;
  }

  /** Holds a channel: that with the pending payment of the request if it is idle, else any; waits if all are held. */
  async acquire(request: string, signal?: AbortSignal): Promise<Channel> {
    signal?.throwIfAborted();
    const at = this.#idle.findIndex((c) => c.pending?.request === request);
    const found = at >= 0 ? this.#idle.splice(at, 1)[0] : this.#idle.pop();
    if (found) return found;
    return this.#mayOpen() ? this.#openNext() : this.#wait(signal);
  }

  /** Whether there is a further channel, and room for its deposit beside those that other channels are about to make. The first is always opened. */
  #mayOpen(): boolean {
    if (this.#unopened.length === 0) return false;
    const unfunded = this.#opening + this.#open.filter((c) => c.balance === 0n && !c.pending).length;
    const deposit = this.#terms.minDeposit || this.#terms.amount;
    return this.#opening + this.#open.length === 0 || this.purse.hasRoomFor(BigInt(unfunded + 1) * deposit);
  }

  /** Gives a channel back. */
  release(c: Channel): void {
    const next = this.#waiting.shift();
    if (next) next.take(c);
    else this.#idle.push(c);
  }

  /** Holds every channel of the pool, one after the other, those that earlier runs opened among them. */
  async each(visit: (c: Channel) => Promise<void>): Promise<void> {
    while (this.#unopened.length > 0) this.release(await this.#openNext());
    const seen = new Set<Channel>();
    while (seen.size < this.#open.length) {
      const at = this.#idle.findIndex((c) => !seen.has(c));
      const c = at >= 0 ? this.#idle.splice(at, 1)[0]! : await this.#wait();
      try {
        if (!seen.has(c)) await visit(c);
        seen.add(c);
      } finally {
        this.release(c);
      }
    }
  }

  async #openNext(): Promise<Channel> {
    const index = this.#unopened.pop()!;
    const t = this.#terms;
    const config = {
      payer: this.#signer.address,
      payerAuthorizer: this.#signer.address,
      receiver: t.payTo,
      receiverAuthorizer: t.receiverAuthorizer,
      token: t.asset,
      withdrawDelay: t.withdrawDelay,
      salt: channelSalt(index),
    };
    this.#opening++;
    try {
      const c = await Channel.load(t.network, config, this.#signer, this.#store);
      this.#open.push(c);
      return c;
    } catch (err) {
      this.#unopened.push(index);
      if (this.#open.length === 0) for (const w of this.#waiting.splice(0)) w.fail(err);
      throw err;
    } finally {
      this.#opening--;
    }
  }

  #wait(signal?: AbortSignal): Promise<Channel> {
    return new Promise((resolve, reject) => {
      const done = (): void => signal?.removeEventListener("abort", abort);
      const waiter: Waiter = {
        take: (c) => (done(), resolve(c)),
        fail: (err) => (done(), reject(err)),
      };
      const abort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        waiter.fail(signal?.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiting.push(waiter);
    });
  }
}
