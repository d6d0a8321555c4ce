// All suites, on one chain with one stock facilitator.
import { after, before } from "node:test";
import { accounts, startChain } from "../chain.mjs";
import { startFacilitator } from "../facilitator.mjs";
import { browserSuite } from "./browser.mjs";
import { contractSuite } from "./contract.mjs";
import { gatewaySuite } from "./gateway.mjs";
import { stockSuite } from "./stock.mjs";

const world = {};
before(async () => {
  world.chain = await startChain();
  world.facilitator = await startFacilitator(world.chain);
  await world.chain.mint(accounts.payer.address, 1_000_000_000n);
});
after(async () => {
  await world.facilitator?.stop();
  await world.chain?.stop();
});
contractSuite();
stockSuite(world);
browserSuite(world);
gatewaySuite(world);
