import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { channelId, channelSalt, MemoryStore, webStore } from "../src/index.js";
import { folderStore } from "../src/node.js";
import { asset, MiB, openShop, signer, terms } from "./shop.js";

const window = 64 << 10;

test("windows in a row are on one channel, and cost what the whole costs", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  const parts: Uint8Array[] = [];
  for (let at = 0; at < s.file.length; at += window) parts.push(await s.get(buyer, at, at + window));
  assert.deepEqual(Buffer.concat(parts), Buffer.from(s.file));
  assert.equal(s.gateway.entries.size, 1);
  assert.equal(s.gateway.charged, s.gateway.price(s.file.length));
  assert.deepEqual(buyer.spent(asset).charged, s.gateway.charged);
  assert.equal(buyer.spent(asset).deposited, terms.minDeposit);
  assert.ok(buyer.spent(asset).signed <= s.gateway.charged + s.gateway.price(window));
});

test("what is free is not paid, and what is not GET is left alone", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer({ fetch: async () => new Response("free") });
  assert.equal(await (await buyer(`${s.origin}/x`)).text(), "free");
  const asked: string[] = [];
  const other = s.buyer({ fetch: async (q) => (asked.push((q as Request).method), new Response(null, { status: 402 })) });
  assert.equal((await other(s.origin, { method: "POST", body: "x" })).status, 402);
  assert.deepEqual(asked, ["POST"]);
  assert.equal((await s.buyer()(`${s.origin}/none`)).status, 404);
});

test("requests at the same time share a pool of channels, and no channel has two", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer({ channels: 3 });
  let go = (): void => {};
  const three = new Promise<void>((resolve) => (go = resolve));
  s.gateway.beforeSale = async () => (s.gateway.paying === 3 && go(), three);
  const all = await Promise.all(Array.from({ length: 12 }, (_, i) => s.get(buyer, i * window, (i + 1) * window)));
  assert.deepEqual(Buffer.concat(all), Buffer.from(s.file.subarray(0, 12 * window)));
  assert.equal(s.gateway.entries.size, 3);
  assert.equal(s.gateway.mostPaying, 3);
  assert.equal(buyer.spent(asset).charged, s.gateway.charged);
  assert.equal(s.gateway.seen.filter((l) => l.endsWith("paid")).length, 12, "no payment was refused and sent again");
  const salts = [0, 1, 2].map((i) => channelSalt(i));
  assert.deepEqual([...s.gateway.entries.values()].map((e) => e.config.salt).sort(), salts.sort());
});

test("a budget that has room for one deposit makes one channel", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer({ channels: 4, budget: { [asset]: terms.minDeposit + terms.minDeposit / 2n } });
  await Promise.all(Array.from({ length: 6 }, (_, i) => s.get(buyer, i * window, (i + 1) * window)));
  assert.equal(s.gateway.entries.size, 1);
  assert.equal(buyer.spent(asset).deposited, terms.minDeposit);
});

test("above the budget nothing is signed", async (t) => {
  const s = await openShop(t);
  let signed = 0;
  const counting = { ...signer, signTypedData: async (d: Parameters<typeof signer.signTypedData>[0]) => (signed++, signer.signTypedData(d)) };
  const poor = s.buyer({ signer: counting, budget: { [asset]: terms.minDeposit - 1n } });
  await assert.rejects(s.get(poor, 0, window), { code: "budget" });
  await assert.rejects(s.get(s.buyer({ signer: counting, budget: {} }), 0, window), { code: "no_offer" });
  assert.equal(signed, 0);
  s.gateway.terms = { ...terms, minDeposit: 1n };
  const buyer = s.buyer({ budget: { [asset]: 10n } });
  const end = s.get(buyer, 0, 2 * MiB); // 14 units
  await assert.rejects(end, { code: "budget" });
  await s.get(buyer, 0, MiB); // 7 units
  await assert.rejects(s.get(buyer, 0, MiB), { code: "budget" });
  assert.equal(s.gateway.charged, 7n);
  assert.ok(buyer.spent(asset).signed <= 10n);
});

test("a price above the limit is refused, before a signature where it can be seen", async (t) => {
  const s = await openShop(t);
  await assert.rejects(s.get(s.buyer({ maxPerTiB: terms.perTiB - 1n }), 0, window), { code: "price" });
  assert.equal(s.gateway.entries.size, 0);
  const buyer = s.buyer({ maxPerTiB: terms.perTiB });
  await s.get(buyer, 0, MiB);
  s.gateway.faults.push("new price");
  await assert.rejects(s.get(buyer, MiB, 2 * MiB), { code: "price" });
  assert.equal(s.gateway.charged, 7n);
});

test("a changed price within the limit is taken once", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  s.gateway.faults.push("new price");
  await s.get(buyer, 0, MiB);
  assert.equal(s.gateway.charged, s.gateway.price(MiB));
});

for (const fault of ["cut before commit", "cut after commit", "cut in body"] as const) {
  test(`an answer that was ${fault} is paid once`, async (t) => {
    const s = await openShop(t);
    const buyer = s.buyer();
    for (let i = 0; i < 8; i++) {
      s.gateway.faults.push(fault, i % 2 ? fault : "none");
      assert.deepEqual(await s.get(buyer, i * window, (i + 1) * window), s.file.subarray(i * window, (i + 1) * window));
    }
    assert.equal(s.gateway.charged, s.gateway.price(8 * window));
    assert.equal(buyer.spent(asset).charged, s.gateway.charged);
  });
}

test("a payment that got no answer is repeated by the same request later, also in another run", async (t) => {
  const s = await openShop(t);
  const store = new MemoryStore();
  s.gateway.faults.push("cut after commit", "cut in body", "cut in body");
  await assert.rejects(s.get(s.buyer({ store }), 0, MiB), { code: "lost" });
  assert.equal(s.gateway.charged, 7n);
  const next = s.buyer({ store });
  assert.deepEqual(await s.get(next, 0, MiB), s.file.subarray(0, MiB));
  assert.equal(s.gateway.charged, 7n, "charged once");
  assert.equal(next.spent(asset).deposited, 0n);
});

test("after a lost answer another request goes on from what the gateway shows to be signed here", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  s.gateway.faults.push("cut after commit", "cut in body", "cut in body");
  await assert.rejects(s.get(buyer, 0, MiB), { code: "lost" });
  await s.get(buyer, MiB, 2 * MiB);
  assert.equal(s.gateway.charged, 14n);
  assert.equal(buyer.spent(asset).signed, 14n);
});

test("a client without its state adopts its own signature, and deposits nothing", async (t) => {
  const s = await openShop(t);
  await s.get(s.buyer(), 0, MiB);
  const fresh = s.buyer();
  await s.get(fresh, MiB, 2 * MiB);
  assert.equal(s.gateway.charged, 14n);
  assert.equal([...s.gateway.entries.values()][0]!.balance, terms.minDeposit);
});

test("a gateway without its state is asked no more than the chain says", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer({ readChannel: async () => ({ balance: 900n, totalClaimed: 0n }) });
  await s.get(buyer, 0, MiB);
  const e = [...s.gateway.entries.values()][0]!;
  Object.assign(e, { charged: 0n, signature: "", key: "" });
  await s.get(buyer, MiB, 2 * MiB);
  assert.equal(e.charged, 7n);
  const blind = s.buyer();
  Object.assign(e, { charged: 3n, signature: "", key: "" });
  await assert.rejects(s.get(blind, 0, MiB), { code: "refused", reason: "invalid_batch_settlement_evm_cumulative_amount_mismatch" });
});

for (const fault of ["overcharge", "miscount"] as const) {
  test(`a gateway that answers with an ${fault} is not paid again`, async (t) => {
    const s = await openShop(t);
    const buyer = s.buyer();
    s.gateway.faults.push(fault);
    await assert.rejects(s.get(buyer, 0, MiB), { code: "denied" });
    const before = s.gateway.seen.length;
    await assert.rejects(s.get(buyer, MiB, 2 * MiB), { code: "denied" });
    assert.equal(s.gateway.seen.slice(before).filter((l) => l.endsWith("paid")).length, 0);
  });
}

test("a correction with another's signature is a denial", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  await s.get(buyer, 0, MiB);
  const e = [...s.gateway.entries.values()][0]!;
  Object.assign(e, { charged: 50n, signed: 50n, key: "" });
  await assert.rejects(s.get(buyer, MiB, 2 * MiB), { code: "denied" });
});

test("busy and later are waited for, five times", async (t) => {
  const s = await openShop(t);
  const waits: number[] = [];
  const buyer = s.buyer({ wait: async (ms) => void waits.push(ms) });
  s.gateway.faults.push("busy", "later", "none");
  await s.get(buyer, 0, MiB);
  assert.deepEqual(waits, [1000, 0]);
  s.gateway.faults.push("later", "later", "later", "later", "later", "later");
  assert.equal((await buyer(`${s.origin}/ipfs/file`)).status, 503);
  assert.equal(s.gateway.charged, 7n);
});

test("a deposit that was taken without its window is not made again", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  s.gateway.faults.push("deposit only");
  await s.get(buyer, 0, MiB);
  assert.equal(buyer.spent(asset).deposited, terms.minDeposit);
  assert.equal([...s.gateway.entries.values()][0]!.balance, terms.minDeposit);
});

test("a channel that runs dry is topped up", async (t) => {
  const s = await openShop(t);
  s.gateway.terms = { ...terms, minDeposit: 10n };
  const buyer = s.buyer();
  for (let i = 0; i < 5; i++) await s.get(buyer, 0, MiB);
  assert.equal(s.gateway.charged, s.gateway.price(5 * MiB));
  assert.equal(buyer.spent(asset).deposited, 40n);
  assert.equal([...s.gateway.entries.values()][0]!.balance, 40n);
});

test("nothing is deposited because a gateway says too little is there, and does not show it", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  await s.get(buyer, 0, MiB);
  [...s.gateway.entries.values()][0]!.withdrawing = true;
  await assert.rejects(s.get(buyer, MiB, 2 * MiB), { code: "refused", reason: "invalid_batch_settlement_evm_cumulative_exceeds_balance" });
  assert.equal(buyer.spent(asset).deposited, terms.minDeposit);
});

test("a deposit is made where the gateway or the chain shows less than was thought", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer();
  await s.get(buyer, 0, MiB);
  const e = [...s.gateway.entries.values()][0]!;
  e.balance = e.charged; // as after a refund that another program took
  await s.get(buyer, MiB, 2 * MiB);
  assert.equal(buyer.spent(asset).deposited, 2n * terms.minDeposit);
});

test("a refund brings back what was not charged, of all channels, and the next payment deposits again", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer({ channels: 2 });
  await Promise.all([s.get(buyer, 0, MiB), s.get(buyer, MiB, 2 * MiB)]);
  const back = await buyer.refund(`${s.origin}/x402/channel`);
  assert.deepEqual(back.map((r) => r.amount), [terms.minDeposit - 7n, terms.minDeposit - 7n]);
  assert.deepEqual(await buyer.refund(`${s.origin}/x402/channel`), []);
  await s.get(buyer, 0, MiB - 1);
  assert.equal(s.gateway.charged, 21n);
  const fresh = s.buyer();
  await assert.rejects(fresh.refund(`${s.origin}/x402/channel`, 0n), RangeError);
});

test("an abort ends waiting and sending", async (t) => {
  const s = await openShop(t);
  const buyer = s.buyer({ channels: 1 });
  await s.get(buyer, 0, MiB);
  const [a, b] = [new AbortController(), new AbortController()];
  s.gateway.faults.push("later");
  const held = s.buyer({ channels: 1, wait: (_ms, signal) => new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason))) });
  const first = held(`${s.origin}/ipfs/file`, { signal: a.signal });
  while (!s.gateway.seen.at(-1)?.endsWith("paid")) await new Promise((r) => setImmediate(r));
  const second = held(`${s.origin}/ipfs/file`, { signal: b.signal });
  b.abort();
  await assert.rejects(second, { name: "AbortError" });
  a.abort();
  await assert.rejects(first, { name: "AbortError" });
});

test("other origins and plain HTTP to other machines are not paid", async (t) => {
  const s = await openShop(t);
  const redirected = s.buyer({ fetch: async () => fetch(`${s.origin}/ipfs/file`) });
  await assert.rejects(redirected("https://gw.example.org/ipfs/file"), { code: "no_offer" });
  const plain = s.buyer({
    fetch: async () => {
      const r = await fetch(`${s.origin}/ipfs/file`);
      return Object.defineProperty(new Response(null, { status: 402, headers: r.headers }), "url", { value: "http://gw.example.org/ipfs/file" });
    },
  });
  await assert.rejects(plain("http://gw.example.org/ipfs/file"), { code: "no_offer" });
});

test("stores keep channels, and a broken record is named", async (t) => {
  const s = await openShop(t);
  const folder = await mkdtemp(join(tmpdir(), "store-"));
  t.after(() => rm(folder, { recursive: true }));
  const texts = new Map<string, string>();
  const storage = { getItem: (k: string) => texts.get(k) ?? null, setItem: (k: string, v: string) => void texts.set(k, v) };
  for (const make of [() => folderStore(folder), () => webStore(storage)]) {
    await s.get(s.buyer({ store: make() }), 0, window);
    const before = s.gateway.seen.length;
    await s.get(s.buyer({ store: make() }), window, 2 * window);
    assert.equal(s.gateway.seen.slice(before).filter((l) => l.endsWith("paid")).length, 1, "no correction was needed");
    s.gateway.entries.clear();
  }
  const c = { payer: signer.address, payerAuthorizer: signer.address, receiver: terms.payTo, receiverAuthorizer: terms.receiverAuthorizer, token: terms.asset };
  const id = channelId(terms.network, { ...c, withdrawDelay: terms.withdrawDelay, salt: channelSalt(0) } as Parameters<typeof channelId>[1]);
  await writeFile(join(folder, `${id}.json`), "{}");
  await assert.rejects(s.get(s.buyer({ store: folderStore(folder), channels: 1 }), 0, window), /no readable state/);
});
