// Channels, authorizations and signatures for tests of the contracts, made with the stock helpers where there are some.
import { computeChannelId } from "@x402/evm/batch-settlement/client";
import { encodeAbiParameters, keccak256, toHex } from "viem";
import { accounts, addresses, chainId, network, token } from "./chain.mjs";

const domain = { name: "x402 Batch Settlement", version: "1", chainId, verifyingContract: addresses.BatchSettlementDouble };
const field = (name, type) => ({ name, type });
const types = {
  Voucher: [field("channelId", "bytes32"), field("maxClaimableAmount", "uint128")],
  Refund: [field("channelId", "bytes32"), field("nonce", "uint256"), field("amount", "uint128")],
  ClaimBatch: [field("claims", "ClaimEntry[]")],
  ClaimEntry: [field("channelId", "bytes32"), field("maxClaimableAmount", "uint128"), field("totalClaimed", "uint128")],
  ReceiveWithAuthorization: [field("from", "address"), field("to", "address"), field("value", "uint256"), field("validAfter", "uint256"), field("validBefore", "uint256"), field("nonce", "bytes32")],
};

/** What the tests of the contracts send. */
export function payloads(chain) {
  const sign = (who, primaryType, message) => accounts[who].signTypedData({ domain, types, primaryType, message });

  /** A channel of the payer, by its number. */
  function channel(n) {
    const config = {
      payer: accounts.payer.address,
      payerAuthorizer: accounts.payer.address,
      receiver: accounts.receiver.address,
      receiverAuthorizer: accounts.authorizer.address,
      token,
      withdrawDelay: 3600,
      salt: toHex(1_000 + n, { size: 32 }),
    };
    return { config, id: computeChannelId(config, network) };
  }

  async function collectorData(c, value) {
    const salt = BigInt(c.config.salt);
    const nonce = keccak256(encodeAbiParameters([{ type: "bytes32" }, { type: "uint256" }], [c.id, salt]));
    const validBefore = (await chain.client.getBlock()).timestamp + 3600n;
    const message = { from: accounts.payer.address, to: addresses.CollectorDouble, value, validAfter: 0n, validBefore, nonce };
    const signature = await accounts.payer.signTypedData({
      domain: { name: "Test Dollar", version: "1", chainId, verifyingContract: token },
      types,
      primaryType: "ReceiveWithAuthorization",
      message,
    });
    return encodeAbiParameters([{ type: "uint256" }, { type: "uint256" }, { type: "uint256" }, { type: "bytes" }], [0n, validBefore, salt, signature]);
  }

  /** A channel with money. */
  async function funded(n, amount) {
    const c = channel(n);
    await chain.send("operator", chain.settlement, "deposit", c.config, amount, addresses.CollectorDouble, await collectorData(c, amount));
    return c;
  }

  /** The arguments of a claim of rows [channel, maximum, claimed]. */
  async function claims(rows) {
    const entries = rows.map(([c, maxClaimableAmount, totalClaimed]) => ({ channelId: c.id, maxClaimableAmount, totalClaimed }));
    const vouchers = await Promise.all(
      rows.map(async ([c, maxClaimableAmount, totalClaimed]) => ({
        voucher: { channel: c.config, maxClaimableAmount },
        signature: await sign("payer", "Voucher", { channelId: c.id, maxClaimableAmount }),
        totalClaimed,
      })),
    );
    return [vouchers, await sign("authorizer", "ClaimBatch", { claims: entries })];
  }

  const refund = (c, nonce, amount) => sign("authorizer", "Refund", { channelId: c.id, nonce, amount });
  return { channel, collectorData, funded, claims, refund };
}
