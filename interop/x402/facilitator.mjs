// The stock facilitator behind the HTTP interface of facilitators.
import { createServer } from "node:http";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/facilitator";
import { network } from "./chain.mjs";

/** Starts it; it sends transactions as the relayer, and signs nothing for receivers. */
export async function startFacilitator(chain) {
  const wallet = chain.wallet("relayer");
  const signer = toFacilitatorEvmSigner({
    address: wallet.account.address,
    readContract: (args) => wallet.readContract(args),
    verifyTypedData: (args) => wallet.verifyTypedData(args),
    writeContract: (args) => wallet.writeContract(args),
    sendTransaction: (args) => wallet.sendTransaction(args),
    waitForTransactionReceipt: (args) => wallet.waitForTransactionReceipt(args),
    getCode: (args) => wallet.getCode(args),
  });
  const facilitator = new x402Facilitator().register(network, new BatchSettlementEvmScheme(signer));
  const calls = [];
  const settle = oneAfterTheOther((payment, offer) => facilitator.settle(payment, offer));
  const server = createServer((q, r) => {
    answer(facilitator, settle, calls, q).then(
      (out) => r.writeHead(out ? 200 : 404, { "Content-Type": "application/json" }).end(JSON.stringify(out ?? {})),
      (err) => r.writeHead(500).end(String(err)),
    );
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** What was called: path and type of the payload. */
    calls,
    stop: () => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve))),
  };
}

/** One key sends one transaction at a time. */
function oneAfterTheOther(f) {
  let last = Promise.resolve();
  return (...args) => {
    const next = last.then(() => f(...args));
    last = next.catch(() => {});
    return next;
  };
}

async function answer(facilitator, settle, calls, q) {
  if (q.method === "GET" && q.url === "/supported") return facilitator.getSupported();
  let text = "";
  for await (const part of q) text += part;
  if (q.method !== "POST" || (q.url !== "/verify" && q.url !== "/settle")) return undefined;
  const { paymentPayload, paymentRequirements } = JSON.parse(text);
  calls.push(`${q.url.slice(1)} ${paymentPayload.payload.type}`);
  return q.url === "/verify" ? facilitator.verify(paymentPayload, paymentRequirements) : settle(paymentPayload, paymentRequirements);
}
