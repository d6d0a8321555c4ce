import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import { keySigner, payingFetch, type Options, type PayingFetch } from "../src/index.js";
import { GatewayDouble, type Terms } from "./double.js";

export const MiB = 1 << 20;
export const terms: Terms = {
  network: "eip155:31337",
  asset: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
  payTo: "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c",
  receiverAuthorizer: "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c",
  tokenName: "Test Dollar",
  tokenVersion: "1",
  perTiB: 7_000_000n,
  minDeposit: 1_000n,
  withdrawDelay: 86_400,
};
export const asset = `${terms.network}/${terms.asset}`;
export const signer = keySigner(`0x${"01".repeat(32)}`);

export interface Shop {
  gateway: GatewayDouble;
  origin: string;
  file: Uint8Array;
  /** Gets a range of the file with a paying fetch. */
  get: (f: PayingFetch, from: number, to: number) => Promise<Uint8Array>;
  buyer: (o?: Partial<Options>) => PayingFetch;
}

/** A gateway double with a file of 2 MiB at /ipfs/file, and buyers of it. */
export async function openShop(t: TestContext): Promise<Shop> {
  const gateway = new GatewayDouble(terms);
  const file = new Uint8Array(randomBytes(2 * MiB));
  gateway.files.set("/ipfs/file", file);
  const origin = await gateway.listen();
  t.after(() => gateway.close());
  return {
    gateway,
    origin,
    file,
    buyer: (o) => payingFetch({ signer, budget: { [asset]: 1_000_000n }, wait: async () => {}, ...o }),
    async get(f, from, to) {
      const r = await f(`${origin}/ipfs/file`, { headers: { Range: `bytes=${from}-${to - 1}` } });
      if (r.status !== 206) throw new Error(`status ${r.status}`);
      return new Uint8Array(await r.arrayBuffer());
    },
  };
}
