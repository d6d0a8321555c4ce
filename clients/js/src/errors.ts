/**
 * Why a request was not bought.
 *
 * - `budget`: the payment or the deposit would go above the budget. Nothing was signed.
 * - `price`: the gateway asks more than `maxPerTiB`. Nothing was signed, or, if the answer showed it, nothing more will be.
 * - `no_offer`: none of its offers is one that this client pays.
 * - `malformed`: what the gateway sent is not what the protocol says.
 * - `refused`: it took neither the payment nor the corrected one; `reason` is its code.
 * - `denied`: it says that other payments were made than were signed here. It is not paid again.
 * - `lost`: no answer came to a payment, three times. The same request again asks for it, without a second charge, for ten minutes.
 */
export type PaymentErrorCode = "budget" | "price" | "no_offer" | "malformed" | "refused" | "denied" | "lost";

/** An error of paying. */
export class PaymentError extends Error {
  override readonly name = "PaymentError";
  readonly code: PaymentErrorCode;
  /** The code of the gateway, of `refused`. */
  readonly reason: string | undefined;

  constructor(code: PaymentErrorCode, message: string, options: { reason?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.reason = options.reason;
  }
}
