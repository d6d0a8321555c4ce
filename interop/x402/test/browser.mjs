// Chromium buys from another origin: the stock client, and Helia with the fetch of clients/js.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { GatewayDouble } from "../../../clients/js/build/test/double.js";
import { accounts, keys, network, token } from "../chain.mjs";
import { bytesOf, importFile } from "../files.mjs";
import { Relay, terms } from "../relay.mjs";

const MiB = 1 << 20;
const asset = `${network}/${token}`;
export const executable = process.env.CHROMIUM ?? "/usr/bin/chromium";

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

/** A browser with one page, which has what browser/page.mjs has. */
export async function openPage() {
  const bundle = await build({ entryPoints: [join(import.meta.dirname, "../browser/page.mjs")], bundle: true, format: "esm", platform: "browser", write: false, logLevel: "error" });
  const server = createServer((q, r) => {
    if (q.url === "/page.js") return r.writeHead(200, { "Content-Type": "text/javascript" }).end(bundle.outputFiles[0].contents);
    return r.writeHead(200, { "Content-Type": "text/html" }).end('<!doctype html><script type="module" src="/page.js"></script>');
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ executablePath: executable, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  const page = await browser.newPage();
  page.on("pageerror", (err) => console.error("page:", err.message));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction(() => "helia" in globalThis);
  return {
    page,
    call: (name, args) => page.evaluate(([n, a]) => globalThis[n](a), [name, args]),
    async close() {
      await browser.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Tests in Chromium with the server double. */
export function browserSuite(world) {
  const missing = existsSync(executable) ? false : `${executable} is missing`;
  if (missing && process.env.CI) throw new Error(missing);
  suite("Chromium, server double", { skip: missing }, () => {
    let tab, dag;
    const file = bytesOf(4 * MiB + 12_345);
    before(async () => {
      tab = await openPage();
      dag = await importFile(file);
    });
    after(() => tab?.close());
    const open = async (t) => {
      const gateway = new GatewayDouble(terms, new Relay(world.facilitator.url));
      t.after(() => gateway.close());
      return { gateway, origin: await gateway.listen() };
    };

    test("the stock client buys 64 MiB from another origin", async (t) => {
      const { gateway, origin } = await open(t);
      const big = bytesOf(64 * MiB);
      gateway.files.set("/ipfs/file", big);
      const args = { url: `${origin}/ipfs/file`, size: big.length, window: 4 * MiB, key: keys.payer, rpc: world.chain.url, network, asset: token, salt: `0x${"b1".repeat(32)}` };
      assert.equal(await tab.call("stock", args), sha256(big));
      assert.equal(gateway.charged, gateway.price(big.length));
    });

    for (const [what, channels] of [["one channel", 1], ["a pool of four", 4]]) {
      test(`Helia buys a file with ${what}, and what its cache has is free`, async (t) => {
        const { gateway, origin } = await open(t);
        for (const [cid, bytes] of dag.blocks) gateway.files.set(`/ipfs/${cid}?format=raw`, bytes);
        gateway.terms = { ...terms, withdrawDelay: terms.withdrawDelay + channels }; // channels of this test alone
        const args = { origin, path: dag.cid.toString(), key: keys.payer, asset, channels, budget: "1000000" };
        const first = await tab.call("helia", args);
        assert.equal(first.hash, sha256(file));
        assert.equal(BigInt(first.charged), gateway.charged);
        assert.ok(gateway.entries.size >= 1 && gateway.entries.size <= channels, `${gateway.entries.size} channels`);
        assert.equal(gateway.bodies, dag.blocks.length, "each block was bought once");
        const again = await tab.call("helia", args);
        assert.equal(again.hash, sha256(file));
        assert.equal(again.charged, "0");
        assert.equal(gateway.bodies, dag.blocks.length);
      });
    }
  });
}
