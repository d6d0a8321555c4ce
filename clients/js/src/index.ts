export type { Hex } from "./bytes.js";
export type { ChainState } from "./channel.js";
export type { TypedData } from "./eip712.js";
export { PaymentError, type PaymentErrorCode } from "./errors.js";
export { payingFetch, type Options, type PayingFetch, type Refund, type Spent } from "./paying-fetch.js";
export type { Budget } from "./purse.js";
export { batchSettlement, channelId, channelSalt, depositCollector, settlementContract, type ChannelConfig } from "./scheme.js";
export { keySigner, type Signer } from "./signer.js";
export { MemoryStore, webStore, type Store } from "./store.js";
