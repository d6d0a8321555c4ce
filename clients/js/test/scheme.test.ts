import assert from "node:assert/strict";
import { test } from "node:test";
import { toHex, type Hex } from "../src/bytes.js";
import { hashTypedData } from "../src/eip712.js";
import { keySigner } from "../src/index.js";
import { channelId, depositNonce, signedBy, voucherData } from "../src/scheme.js";
import { encodeHeader, parseAmount, parseChallenge } from "../src/wire.js";

const key = (b: string): Hex => `0x${b.repeat(32)}`;
const payer = keySigner(key("01"));
const receiver = keySigner(key("02"));
const network = "eip155:8453";
const config = {
  payer: payer.address,
  payerAuthorizer: payer.address,
  receiver: receiver.address,
  receiverAuthorizer: receiver.address,
  token: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913" as Hex,
  withdrawDelay: 900,
  salt: key("00"),
};

test("the published vector of keys, channel, digest, signature and nonce", async () => {
  assert.equal(payer.address, "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1".toLowerCase());
  assert.equal(receiver.address, "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c".toLowerCase());
  const id = channelId(network, config);
  assert.equal(id, "0x93292d94d9c64eff1de184c02e12f50a11ad450c98568b7df0d1c566d1133e5b");
  const data = voucherData(network, id, 1000n);
  assert.equal(toHex(hashTypedData(data)), "0x8890097f50fa5020292b81d47d69a06e1a00dd5d564e2a5172da692439c13c83");
  const signature = await payer.signTypedData(data);
  assert.equal(signature, "0x1978a01635f7a7900f048213255279a3c541f66ada88a40378d9f365244829957a6be547e639f8d47c26edf98f138ca3906aa2521fd0869b276f51b8141d3b0a1c");
  assert.equal(depositNonce(id, `0x${"1".padStart(64, "0")}`), "0x670e6d61421b3229534b827b7d3355b8d36dc824910d58524e388eb88e48f7b2");
  assert.ok(signedBy(payer.address, network, id, 1000n, signature));
  assert.ok(!signedBy(receiver.address, network, id, 1000n, signature));
  assert.ok(!signedBy(payer.address, network, id, 1001n, signature));
});

test("signatures that the contract refuses are refused", async () => {
  const id = channelId(network, config);
  const signature = await payer.signTypedData(voucherData(network, id, 1000n));
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const s = BigInt(`0x${signature.slice(66, 130)}`);
  const high = `${signature.slice(0, 66)}${(order - s).toString(16).padStart(64, "0")}1b`;
  for (const bad of [high, `${signature.slice(0, -2)}00`, `${signature.slice(0, -2)}1d`, signature.slice(0, -2), "0x", "", undefined, 7, `0x${"00".repeat(65)}`]) {
    assert.ok(!signedBy(payer.address, network, id, 1000n, bad), String(bad));
  }
});

test("amounts are decimal digits below 2^128", () => {
  assert.equal(parseAmount("0"), 0n);
  assert.equal(parseAmount((2n ** 128n - 1n).toString()), 2n ** 128n - 1n);
  for (const bad of ["", "01", "-1", "+1", "1.0", "1e3", " 1", "0x1", (2n ** 128n).toString(), "9".repeat(40), 1, null, undefined]) assert.equal(parseAmount(bad), undefined, String(bad));
});

test("offers that are not whole are not taken, and headers that cannot be read are named", () => {
  const extra = { receiverAuthorizer: receiver.address, withdrawDelay: 900, name: "T", version: "1" };
  const offer = { scheme: "batch-settlement", network, amount: "5", asset: config.token, payTo: receiver.address, maxTimeoutSeconds: 60, extra };
  const parse = (o: unknown): number => parseChallenge(new Response(null, { status: 402, headers: { "PAYMENT-REQUIRED": encodeHeader(o) } })).offers.length;
  assert.equal(parse({ x402Version: 2, accepts: [offer] }), 1);
  const bad = [
    { ...offer, scheme: "exact" },
    { ...offer, network: "solana:1" },
    { ...offer, amount: 5 },
    { ...offer, asset: "0x1" },
    { ...offer, extra: { ...extra, receiverAuthorizer: `0x${"0".repeat(40)}` } },
    { ...offer, extra: { ...extra, withdrawDelay: 899 } },
    { ...offer, extra: { ...extra, withdrawDelay: "900" } },
    { ...offer, extra: { ...extra, assetTransferMethod: "permit2" } },
    { ...offer, extra: { ...extra, name: undefined } },
    null,
    [],
    "offer",
  ];
  assert.equal(parse({ x402Version: 2, accepts: bad }), 0);
  assert.equal(parse({ x402Version: 2 }), 0);
  assert.throws(() => parse({ x402Version: 1, accepts: [offer] }), /version 1/);
  for (const text of ["%%%", btoa("[]"), btoa("{"), btoa("\xff"), "A".repeat(70_000)]) {
    assert.throws(() => parseChallenge(new Response(null, { status: 402, headers: { "PAYMENT-REQUIRED": text } })), { code: "malformed" });
  }
  assert.throws(() => parseChallenge(new Response(null, { status: 402 })), { code: "malformed" });
});
