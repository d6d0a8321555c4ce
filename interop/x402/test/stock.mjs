// The stock client buys from the server double, which deposits, refunds, claims and settles through the stock facilitator.
import assert from "node:assert/strict";
import { before, suite, test } from "node:test";
import { toClientEvmSigner } from "@x402/evm";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { payingFetch } from "../../../clients/js/build/src/index.js";
import { GatewayDouble } from "../../../clients/js/build/test/double.js";
import { accounts, network, token } from "../chain.mjs";
import { bytesOf } from "../files.mjs";
import { Relay, terms } from "../relay.mjs";

const MiB = 1 << 20;
const asset = `${network}/${token}`;

/** A stock client of the payer. */
export function stockClient(chain, options = {}) {
  const scheme = new BatchSettlementEvmScheme(toClientEvmSigner(accounts.payer, chain.client), options);
  const config = { schemes: [{ network, client: scheme }], spendControls: { allowedAssets: [{ network, asset: token }] } };
  return { scheme, fetch: wrapFetchWithPaymentFromConfig(fetch, config) };
}

/** Gets a whole by windows. */
export async function byWindows(get, url, size, window) {
  const parts = [];
  for (let at = 0; at < size; at += window) {
    const r = await get(url, { headers: { Range: `bytes=${at}-${Math.min(at + window, size) - 1}` } });
    if (r.status !== 206) throw new Error(`status ${r.status} at ${at}: ${await r.text()}`);
    parts.push(Buffer.from(await r.arrayBuffer()));
  }
  return Buffer.concat(parts);
}

/** Tests with the server double. */
export function stockSuite(world) {
  suite("stock client and stock facilitator, server double", () => {
    let chain, facilitator, gateway, origin, relay;
    const file = bytesOf(64 * MiB);
    before(async () => {
      ({ chain, facilitator } = world);
      relay = new Relay(facilitator.url, () => ({ scheme: "batch-settlement", network, asset: token, amount: "0", payTo: terms.payTo, maxTimeoutSeconds: 600, extra: {} }));
    });
    const open = async (t) => {
      gateway = new GatewayDouble(terms, relay);
      gateway.files.set("/ipfs/file", file);
      origin = await gateway.listen();
      t.after(() => gateway.close());
    };
    const collected = async (entries) => {
      await chain.send("operator", chain.settlement, "settle", accounts.receiver.address, token); // what tests before have claimed
      const had = await chain.balanceOf(accounts.receiver.address);
      await relay.collect(entries);
      return (await chain.balanceOf(accounts.receiver.address)) - had;
    };

    test("64 MiB in windows of 1 MiB: charges = owed = what the receiver gets", async (t) => {
      await open(t);
      const stock = stockClient(chain);
      assert.ok(file.length === 64 * MiB && (await byWindows(stock.fetch, `${origin}/ipfs/file`, file.length, MiB)).equals(file));
      assert.equal(gateway.charged, gateway.price(file.length));
      assert.equal(await collected([...gateway.entries.values()]), gateway.charged);
      assert.ok(facilitator.calls.includes("settle deposit") && facilitator.calls.includes("settle claim"));
    });

    test("the stock client takes its refund", async (t) => {
      await open(t);
      const stock = stockClient(chain, { salt: `0x${"77".repeat(32)}` });
      await byWindows(stock.fetch, `${origin}/ipfs/file`, 2 * MiB, MiB);
      const had = await chain.balanceOf(accounts.payer.address);
      const out = await stock.scheme.refund(`${origin}/x402/channel`);
      assert.equal(out.success, true);
      assert.equal((await chain.balanceOf(accounts.payer.address)) - had, terms.minDeposit - gateway.charged);
    });

    test("three at once on one stock channel: all but one fail", async (t) => {
      await open(t);
      const stock = stockClient(chain, { salt: `0x${"78".repeat(32)}` });
      const url = `${origin}/ipfs/file`;
      await byWindows(stock.fetch, url, MiB, MiB);
      const all = await Promise.all([1, 2, 3].map((i) => stock.fetch(url, { headers: { Range: `bytes=${i * MiB}-${(i + 1) * MiB - 1}` } }).then((r) => r.status, () => 0)));
      assert.ok(all.some((s) => s !== 206), `statuses ${all}`);
    });

    test("the paying fetch: eight at once on a pool of four, with money on chain", async (t) => {
      await open(t);
      const pay = payingFetch({ signer: accounts.payer, budget: { [asset]: 1_000_000n }, channels: 4 });
      const url = `${origin}/ipfs/file`;
      const parts = await Promise.all(Array.from({ length: 8 }, async (_, i) => Buffer.from(await (await pay(url, { headers: { Range: `bytes=${i * MiB}-${(i + 1) * MiB - 1}` } })).arrayBuffer())));
      assert.ok(Buffer.concat(parts).equals(file.subarray(0, 8 * MiB)));
      assert.equal(gateway.entries.size, 4);
      assert.equal(pay.spent(asset).charged, gateway.charged);
      assert.equal(await collected([...gateway.entries.values()]), gateway.charged);
      const had = await chain.balanceOf(accounts.payer.address);
      const back = await pay.refund(`${origin}/x402/channel`);
      assert.equal(back.length, 4);
      const sum = back.reduce((n, b) => n + b.amount, 0n);
      assert.equal(sum, pay.spent(asset).deposited - pay.spent(asset).charged);
      assert.equal((await chain.balanceOf(accounts.payer.address)) - had, sum);
    });
  });
}
