// What a server of batch-settlement does on chain, through a facilitator: deposits, refunds, claims and settling.
import { accounts, addresses, chainId, network, token } from "./chain.mjs";

const domain = { name: "x402 Batch Settlement", version: "1", chainId, verifyingContract: addresses.BatchSettlementDouble };

export class Relay {
  constructor(facilitatorURL, offer) {
    Object.assign(this, { url: facilitatorURL, offer });
  }

  async post(path, paymentPayload, paymentRequirements) {
    const body = JSON.stringify({ x402Version: 2, paymentPayload, paymentRequirements });
    const r = await fetch(this.url + path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`);
    return r.json();
  }

  async settle(payload, offer = this.offer()) {
    const out = await this.post("/settle", { x402Version: 2, accepted: offer, payload }, offer);
    if (!out.success) throw new Error(`${payload.type}: ${out.errorReason} ${out.errorMessage ?? ""}`);
    return out;
  }

  async deposit(payment, offer) {
    const looked = await this.post("/verify", payment, offer);
    if (!looked.isValid) throw new Error(`deposit: ${looked.invalidReason} ${looked.invalidMessage ?? ""}`);
    const out = await this.settle(payment.payload, offer);
    return { balance: BigInt(out.extra.channelState.balance), transaction: out.transaction };
  }

  async refund(entry, offer, amount) {
    const id = entry.channelId;
    const nonce = entry.refundNonce ?? 0n;
    const types = { Refund: [field("channelId", "bytes32"), field("nonce", "uint256"), field("amount", "uint128")] };
    const refundAuthorizerSignature = await accounts.authorizer.signTypedData({ domain, types, primaryType: "Refund", message: { channelId: id, nonce, amount } });
    const claims = [claimOf(entry)];
    const payload = {
      type: "refund",
      channelConfig: entry.config,
      voucher: { channelId: id, maxClaimableAmount: entry.signed.toString(), signature: entry.signature },
      amount: amount.toString(),
      refundNonce: nonce.toString(),
      claims,
      refundAuthorizerSignature,
      claimAuthorizerSignature: await signClaims([entry]),
    };
    const out = await this.settle(payload, offer);
    entry.refundNonce = nonce + 1n;
    return { balance: BigInt(out.extra.channelState.balance), transaction: out.transaction };
  }

  /** Claims what was charged to channels, and has it paid out to the receiver. */
  async collect(entries) {
    const payload = { type: "claim", claims: entries.map(claimOf), claimAuthorizerSignature: await signClaims(entries) };
    await this.settle(payload);
    return this.settle({ type: "settle", receiver: accounts.receiver.address, token });
  }
}

const field = (name, type) => ({ name, type });

function claimOf(e) {
  return { voucher: { channel: e.config, maxClaimableAmount: e.signed.toString() }, signature: e.signature, totalClaimed: e.charged.toString() };
}

function signClaims(entries) {
  const types = {
    ClaimBatch: [field("claims", "ClaimEntry[]")],
    ClaimEntry: [field("channelId", "bytes32"), field("maxClaimableAmount", "uint128"), field("totalClaimed", "uint128")],
  };
  const claims = entries.map((e) => ({ channelId: e.channelId, maxClaimableAmount: e.signed, totalClaimed: e.charged }));
  return accounts.authorizer.signTypedData({ domain, types, primaryType: "ClaimBatch", message: { claims } });
}

/** The terms of the server double. */
export const terms = {
  network,
  asset: token,
  payTo: accounts.receiver.address,
  receiverAuthorizer: accounts.authorizer.address,
  tokenName: "Test Dollar",
  tokenVersion: "1",
  perTiB: 7_000_000n,
  minDeposit: 100_000n,
  withdrawDelay: 86_400,
};
