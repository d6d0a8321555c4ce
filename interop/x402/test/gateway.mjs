// The gateway sells to the stock client in Node and in Chromium, and to Helia with the fetch of clients/js.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { after, before, suite, test } from "node:test";
import { channelSalt, keySigner, payingFetch } from "../../../clients/js/build/src/index.js";
import { accounts, keys, network, token } from "../chain.mjs";
import { startCutter } from "../cutter.mjs";
import { blocksOfCar, bytesOf } from "../files.mjs";
import { makeGateway } from "../gateway.mjs";
import { executable, openPage } from "./browser.mjs";
import { byWindows, stockClient } from "./stock.mjs";

const MiB = 1 << 20;
const asset = `${network}/${token}`;
const perTiB = 7_000_000n;
const owed = (bytes) => (BigInt(bytes) * perTiB + (1n << 40n) - 1n) >> 40n;
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const salt = (n) => `0x${n.toString(16).padStart(64, "0")}`;

/** Tests with the daemon. */
export function gatewaySuite(world) {
  suite("gateway", () => {
    let gateway, piece, small, url;
    const [file, little] = [bytesOf(64 * MiB), bytesOf(5 * MiB + 321)];
    before(async () => {
      gateway = await makeGateway(world.chain, world.facilitator);
      await gateway.start();
      await world.chain.mint(accounts.other.address, 10_000_000n);
      [piece, small] = [await gateway.provide("big.bin", file), await gateway.provide("small.bin", little)];
      url = `${gateway.origin}/ipfs/${piece.root}?format=car`;
    });
    after(() => gateway?.remove());

    const lengthOf = async (u) => Number((await fetch(u, { method: "HEAD" })).headers.get("Content-Length"));
    const earned = async () => (await gateway.earnings()).channels.reduce((n, c) => n + BigInt(c.earned), 0n);
    /** What the receiver has more after claim and settle. */
    const redeemed = async () => {
      const had = await world.chain.balanceOf(accounts.receiver.address);
      await gateway.redeem();
      return (await world.chain.balanceOf(accounts.receiver.address)) - had;
    };

    test("the stock client buys 64 MiB in windows of 1 MiB: charges = owed = what the receiver gets", async () => {
      await world.chain.send("operator", world.chain.settlement, "settle", accounts.receiver.address, token); // what other suites have claimed
      const stock = stockClient(world.chain, { salt: salt(1) });
      const length = await lengthOf(url);
      const car = await byWindows(stock.fetch, url, length, MiB);
      assert.equal(car.length, length);
      const { roots, data } = await blocksOfCar(car);
      assert.deepEqual(roots, [piece.root]);
      assert.ok(Buffer.concat(data).equals(file), "the leaves are the file");
      assert.equal(await earned(), owed(length));
      assert.equal(await redeemed(), owed(length));
    });

    test("blocks and pieces are bought too, and the stock client takes its refund", async () => {
      const stock = stockClient(world.chain, { salt: salt(2) });
      const before = await earned();
      const raw = await stock.fetch(`${gateway.origin}/ipfs/${piece.root}?format=raw`);
      assert.equal(raw.status, 200);
      const n = (await raw.arrayBuffer()).byteLength;
      const whole = await byWindows(stock.fetch, `${gateway.origin}/piece/${small.piece_cid}`, await lengthOf(`${gateway.origin}/piece/${small.piece_cid}`), 4 * MiB);
      const charged = (await earned()) - before;
      assert.equal(charged, owed(n + whole.length));
      const had = await world.chain.balanceOf(accounts.payer.address);
      const out = await stock.scheme.refund(`${gateway.origin}/x402/channel`);
      assert.ok(out.success);
      assert.equal((await world.chain.balanceOf(accounts.payer.address)) - had, 100_000n - charged);
    });

    test("the fetch of clients/js: eight at once on four channels, over a kill, and its refund", async () => {
      const length = await lengthOf(url);
      const step = 4 * MiB;
      const before = await earned();
      let restarted;
      const pay = payingFetch({ signer: keySigner(keys.payer), budget: { [asset]: 2_000_000n }, channels: 4 });
      // Who gets no answer asks again when the gateway is back.
      const get = async (at) => {
        const init = { headers: { Range: `bytes=${at}-${Math.min(at + step, length) - 1}` } };
        const r = await pay(url, init).catch(async () => (await restarted, pay(url, init)));
        if (r.status !== 206) throw new Error(`status ${r.status}: ${await r.text()}`);
        return Buffer.from(await r.arrayBuffer());
      };
      const starts = Array.from({ length: Math.ceil(length / step) }, (_, i) => i * step);
      const first = await Promise.all(starts.slice(0, 8).map(get));
      const rest = Promise.all(starts.slice(8).map(get));
      restarted = gateway.stop("SIGKILL").then(() => gateway.start());
      const parts = [...first, ...(await rest)];
      const { data } = await blocksOfCar(Buffer.concat(parts));
      assert.ok(Buffer.concat(data).equals(file));
      const { charged, deposited } = pay.spent(asset);
      assert.equal((await earned()) - before, charged);
      assert.ok(charged >= owed(length) && charged <= owed(length) + 4n, `${charged} for ${owed(length)}: rounded up once a channel`);
      const back = await pay.refund(`${gateway.origin}/x402/channel`);
      assert.equal(back.reduce((n, b) => n + b.amount, 0n), deposited - charged);
    });

    test("answers that are cut before the gateway, before the header and in the body are paid once", async (t) => {
      const cutter = await startCutter(gateway.origin);
      t.after(() => cutter.stop());
      const pay = payingFetch({ signer: accounts.other, budget: { [asset]: 1_000_000n }, channels: 2, wait: async () => {} });
      const lossy = `${cutter.origin}/ipfs/${small.root}?format=car`;
      const length = await lengthOf(lossy);
      const before = await earned();
      const step = 64 << 10;
      const starts = Array.from({ length: Math.ceil(length / step) }, (_, i) => i * step);
      const parts = [];
      for (const at of starts) {
        const init = { headers: { Range: `bytes=${at}-${Math.min(at + step, length) - 1}` } };
        const r = await pay(lossy, init).catch((err) => (assert.equal(err.code, "lost"), pay(lossy, init)));
        assert.equal(r.status, 206);
        parts.push(Buffer.from(await r.arrayBuffer()));
      }
      const { data } = await blocksOfCar(Buffer.concat(parts));
      assert.ok(Buffer.concat(data).equals(little));
      assert.equal((await earned()) - before, owed(length));
      for (const [place, n] of Object.entries(cutter.cuts)) assert.ok(n >= 80, `${n} were cut ${place}`);
    });

    const missing = existsSync(executable) ? false : `${executable} is missing`;
    test("Chromium: the stock client buys 64 MiB, Helia buys a file", { skip: missing }, async (t) => {
      const tab = await openPage();
      t.after(() => tab.close());
      const length = await lengthOf(url);
      const before = await earned();
      const args = { url, size: length, window: 4 * MiB, key: keys.payer, rpc: world.chain.url, network, asset: token, salt: salt(3) };
      const hash = await tab.call("stock", args);
      assert.equal((await earned()) - before, owed(length));
      const stock = stockClient(world.chain, { salt: salt(4) });
      assert.equal(hash, sha256(await byWindows(stock.fetch, url, length, 8 * MiB)));
      const between = await earned();
      const helia = await tab.call("helia", { origin: gateway.origin, path: small.root, key: keys.payer, asset, channels: 4, budget: "1000000" });
      assert.equal(helia.hash, sha256(little));
      assert.equal((await earned()) - between, BigInt(helia.charged));
      const again = await tab.call("helia", { origin: gateway.origin, path: small.root, key: keys.payer, asset, channels: 4, budget: "1000000" });
      assert.deepEqual([again.hash, again.charged], [sha256(little), "0"]);
    });

    test("what was earned is redeemed to the unit", async () => {
      await redeemed();
      const { channels } = await gateway.earnings();
      for (const c of channels) assert.equal(c.redeemed, c.earned, c.channel);
    });

    test("with transactions of its own, and a payer who withdraws: all is claimed before the withdrawal ends", async (t) => {
      const direct = await makeGateway(world.chain, world.facilitator, { relay: "direct", withdraw_delay: "15m", watch: "1s" });
      t.after(() => direct.remove());
      await direct.start();
      const { root } = await direct.provide("small.bin", little);
      const pay = payingFetch({ signer: accounts.payer, budget: { [asset]: 1_000_000n }, channels: 1 });
      const step = 2 * MiB;
      const at = `${direct.origin}/ipfs/${root}?format=car`;
      assert.equal((await byWindows(pay, at, 2 * step, step)).length, 2 * step);
      const had = await world.chain.balanceOf(accounts.receiver.address);
      const { accepts } = JSON.parse(Buffer.from((await fetch(`${direct.origin}/x402/channel`)).headers.get("PAYMENT-REQUIRED"), "base64"));
      const { scheme } = stockClient(world.chain, { salt: channelSalt(0) }); // of the same terms
      const config = scheme.buildChannelConfig(accepts.find((o) => o.scheme === "batch-settlement"));
      await world.chain.send("payer", world.chain.settlement, "initiateWithdraw", config, 100_000n);
      const id = await world.chain.read(world.chain.settlement, "getChannelId", config);
      let claimed = 0n;
      while (claimed === 0n) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        [, claimed] = await world.chain.read(world.chain.settlement, "channels", id);
      }
      assert.equal(claimed, owed(2 * step));
      await assert.rejects(pay(at, { headers: { Range: `bytes=${2 * step}-${2 * step + 1023}` } }), { code: "refused" });
      assert.equal(pay.spent(asset).deposited, 100_000n, "nothing is deposited into a channel that is withdrawn");
      await direct.redeem();
      assert.equal((await world.chain.balanceOf(accounts.receiver.address)) - had, owed(2 * step));
    });
  });
}
