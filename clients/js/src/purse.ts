import { PaymentError } from "./errors.js";

/** What may be spent, by asset: `eip155:8453/0x8335…` and atomic units. */
export type Budget = Readonly<Record<string, bigint>>;

/** The name of an asset in a budget. */
export function assetName(network: string, token: string): string {
  return `${network}/${token}`.toLowerCase();
}

/** What one asset may still cost: maxima of vouchers and deposits are counted when they are signed, each below the budget. */
export class Purse {
  readonly #limit: bigint;
  readonly #asset: string;
  #signed = 0n;
  #deposited = 0n;

  constructor(asset: string, limit: bigint) {
    this.#asset = asset;
    this.#limit = limit;
  }

  /** Atomic units that were signed away, at most. */
  get signed(): bigint {
    return this.#signed;
  }

  /** Atomic units that were moved into channels, at most. */
  get deposited(): bigint {
    return this.#deposited;
  }

  /** Whether a deposit has room. */
  hasRoomFor(deposit: bigint): boolean {
    return this.#deposited + deposit <= this.#limit;
  }

  /** What a deposit may have at most. */
  get depositRoom(): bigint {
    return this.#limit - this.#deposited;
  }

  /** Takes both from the budget, or nothing: then it throws. */
  take(signed: bigint, deposit: bigint): void {
    this.#check("payments", this.#signed, signed);
    this.#check("deposits", this.#deposited, deposit);
    this.#signed += signed;
    this.#deposited += deposit;
  }

  #check(what: string, had: bigint, more: bigint): void {
    if (had + more <= this.#limit) return;
    throw new PaymentError("budget", `${what} of ${had} + ${more} are above the budget of ${this.#limit} for ${this.#asset}`);
  }
}
