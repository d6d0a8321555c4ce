// The doubles do what the scheme's text says of the contracts, by the ABI of the stock client.
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { toHex } from "viem";
import { accounts, addresses, startChain, token } from "../chain.mjs";
import { payloads } from "../payloads.mjs";

/** Tests of the contracts, on a chain of their own: they move its clock. */
export function contractSuite() {
  suite("contract double", () => {
    let chain;
    let p;
    before(async () => {
      chain = await startChain();
      await chain.mint(accounts.payer.address, 1_000_000n);
      p = payloads(chain);
    });
    after(() => chain?.stop());
    const state = async (c) => (await chain.read(chain.settlement, "channels", c.id)).map(Number);
    const reverts = (promise, name) => assert.rejects(promise, (err) => err.message.includes(name), name);

    test("ids and digests are those of typed data", async () => {
      const c = p.channel(1);
      assert.equal(await chain.read(chain.settlement, "getChannelId", c.config), c.id);
    });

    test("deposits are exact, by an authorization that is bound to the channel and used once", async () => {
      const c = p.channel(2);
      const data = await p.collectorData(c, 1000n);
      await reverts(chain.send("operator", chain.settlement, "deposit", c.config, 999n, addresses.CollectorDouble, data), "BadSignature");
      await reverts(chain.send("operator", chain.settlement, "deposit", p.channel(3).config, 1000n, addresses.CollectorDouble, data), "BadSignature");
      await reverts(chain.send("operator", chain.settlement, "deposit", { ...c.config, withdrawDelay: 899 }, 1000n, addresses.CollectorDouble, data), "BadConfig");
      await chain.send("operator", chain.settlement, "deposit", c.config, 1000n, addresses.CollectorDouble, data);
      await reverts(chain.send("operator", chain.settlement, "deposit", c.config, 1000n, addresses.CollectorDouble, data), "Used");
      assert.deepEqual(await state(c), [1000, 0]);
    });

    test("claims raise what is claimed up to voucher and balance, all or none, and are settled in one transfer", async () => {
      const [a, b] = [await p.funded(4, 1000n), await p.funded(5, 1000n)];
      const claims = async (...rows) => chain.send("operator", chain.settlement, "claimWithSignature", ...(await p.claims(rows)));
      await reverts(claims([a, 500n, 501n]), "ClaimExceedsCeiling");
      await reverts(claims([a, 5000n, 1001n]), "ClaimExceedsBalance");
      await reverts(claims([a, 500n, 400n], [b, 500n, 501n]), "ClaimExceedsCeiling");
      assert.deepEqual(await state(a), [1000, 0]);
      await claims([a, 500n, 400n], [b, 300n, 300n]);
      await claims([a, 500n, 400n], [b, 200n, 200n]); // at or below what is claimed: nothing
      assert.deepEqual([await state(a), await state(b)], [[1000, 400], [1000, 300]]);
      const before = await chain.balanceOf(accounts.receiver.address);
      await chain.send("operator", chain.settlement, "settle", accounts.receiver.address, token);
      await chain.send("operator", chain.settlement, "settle", accounts.receiver.address, token);
      assert.equal(await chain.balanceOf(accounts.receiver.address), before + 700n);
    });

    test("signatures of others, with a high s or another v are refused", async () => {
      const c = await p.funded(6, 1000n);
      const [rows, sig] = await p.claims([[c, 500n, 400n]]);
      const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
      const high = `${sig.slice(0, 66)}${toHex(order - BigInt(`0x${sig.slice(66, 130)}`), { size: 32 }).slice(2)}${sig.endsWith("1b") ? "1c" : "1b"}`;
      for (const bad of [high, `${sig.slice(0, -2)}00`, sig.slice(0, -2)]) await reverts(chain.send("operator", chain.settlement, "claimWithSignature", rows, bad), "BadSignature");
      await reverts(chain.send("other", chain.settlement, "claim", rows), "NotAllowed");
    });

    test("a refund takes the nonce, what is free at most, and lessens a withdrawal", async () => {
      const c = await p.funded(7, 1000n);
      await chain.send("operator", chain.settlement, "claimWithSignature", ...(await p.claims([[c, 400n, 400n]])));
      await chain.send("payer", chain.settlement, "initiateWithdraw", c.config, 600n);
      await reverts(chain.send("payer", chain.settlement, "initiateWithdraw", c.config, 1n), "WithdrawalPending");
      await chain.send("operator", chain.settlement, "refundWithSignature", c.config, 200n, 0n, await p.refund(c, 0n, 200n));
      await reverts(chain.send("operator", chain.settlement, "refundWithSignature", c.config, 200n, 0n, await p.refund(c, 0n, 200n)), "BadNonce");
      assert.deepEqual((await chain.read(chain.settlement, "pendingWithdrawals", c.id)).map(Number)[0], 400);
      await chain.send("operator", chain.settlement, "refundWithSignature", c.config, 9999n, 1n, await p.refund(c, 1n, 9999n));
      assert.deepEqual(await state(c), [400, 400]);
      assert.deepEqual((await chain.read(chain.settlement, "pendingWithdrawals", c.id)).map(Number), [0, 0]);
    });

    test("a withdrawal waits for the delay of the channel, and takes what was not claimed", async () => {
      const c = await p.funded(8, 1000n);
      await reverts(chain.send("other", chain.settlement, "initiateWithdraw", c.config, 1000n), "NotAllowed");
      await chain.send("payer", chain.settlement, "initiateWithdraw", c.config, 1000n);
      await reverts(chain.send("payer", chain.settlement, "finalizeWithdraw", c.config), "TooEarly");
      await chain.send("operator", chain.settlement, "claimWithSignature", ...(await p.claims([[c, 300n, 300n]])));
      const had = await chain.balanceOf(accounts.payer.address);
      await chain.pass(c.config.withdrawDelay);
      await chain.send("payer", chain.settlement, "finalizeWithdraw", c.config);
      assert.equal(await chain.balanceOf(accounts.payer.address), had + 700n);
      await reverts(chain.send("payer", chain.settlement, "finalizeWithdraw", c.config), "NoWithdrawal");
    });
  });
}
