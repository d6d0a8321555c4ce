// What runs in the browser: the stock client, and Helia with the fetch of clients/js. The test calls it by name.
import { withHTTP } from "@helia/http";
import { createVerifiedFetch } from "@helia/verified-fetch";
import { toClientEvmSigner } from "@x402/evm";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { createHeliaLight } from "helia";
import { createPublicClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { payingFetch, webStore } from "../../../clients/js/build/src/index.js";

async function digest(parts) {
  const hash = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
  return [...new Uint8Array(hash)].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** Buys a whole by windows with the stock client. */
async function stock({ url, size, window: step, key, rpc, network, asset, salt }) {
  const signer = toClientEvmSigner(privateKeyToAccount(key), createPublicClient({ transport: http(rpc) }));
  const scheme = { network, client: new BatchSettlementEvmScheme(signer, { salt }) };
  const pay = wrapFetchWithPaymentFromConfig(fetch, { schemes: [scheme], spendControls: { allowedAssets: [{ network, asset }] } });
  const parts = [];
  for (let at = 0; at < size; at += step) {
    const r = await pay(url, { headers: { Range: `bytes=${at}-${Math.min(at + step, size) - 1}` } });
    if (r.status !== 206) throw new Error(`status ${r.status} at ${at}: ${await r.text()}`);
    parts.push(await r.blob());
  }
  return digest(parts);
}

/** Reads a file with Helia, which pays with the fetch of clients/js. */
async function helia({ origin, path, key, asset, channels, budget }) {
  const usual = globalThis.fetch;
  const pay = payingFetch({ signer: privateKeyToAccount(key), budget: { [asset]: BigInt(budget) }, channels, store: webStore(localStorage, `${origin}:`) });
  globalThis.fetch = pay;
  const node = await withHTTP(createHeliaLight(), { delegatedRouters: [origin], recursiveGateways: [origin], allowInsecure: true, allowLocal: true }).start();
  const verifiedFetch = await createVerifiedFetch(node);
  try {
    const r = await verifiedFetch(`ipfs://${path}`);
    if (!r.ok) throw new Error(`status ${r.status}: ${await r.text()}`);
    const hash = await digest([await r.blob()]);
    const { charged, deposited } = pay.spent(asset);
    return { hash, charged: charged.toString(), deposited: deposited.toString() };
  } finally {
    await verifiedFetch.stop();
    globalThis.fetch = usual;
  }
}

Object.assign(globalThis, { stock, helia });
