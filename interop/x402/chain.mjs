// A chain of anvil with the doubles at the addresses that clients and facilitators of batch-settlement expect.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { createPublicClient, createWalletClient, http, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { contracts } from "./contracts.mjs";

export const chainId = 31337;
export const network = `eip155:${chainId}`;
export const token = "0x00000000000000000000000000000000000070Ce";
export const addresses = {
  BatchSettlementDouble: "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003",
  CollectorDouble: "0x4020806089470a89826cB9fB1f4059150b550004",
  MulticallDouble: "0xcA11bde05977b3631167028862bE2a173976CA11",
  TokenDouble: token,
};

/** Keys of tests: worth nothing on any chain. */
export const keys = Object.fromEntries(["payer", "receiver", "authorizer", "relayer", "operator", "other"].map((name, i) => [name, `0x${`${i + 11}`.repeat(32)}`]));
export const accounts = Object.fromEntries(Object.entries(keys).map(([name, key]) => [name, privateKeyToAccount(key)]));

const chain = (url) => ({ id: chainId, name: "test", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [url] } } });

function anvilBinary() {
  const system = { linux: "linux", darwin: "darwin", win32: "win32" }[process.platform];
  const machine = { x64: "amd64", arm64: "arm64" }[process.arch];
  const name = `@foundry-rs/anvil-${system}-${machine}`;
  return join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), "bin", "anvil");
}

/** Starts a chain. */
export async function startChain() {
  const child = spawn(anvilBinary(), ["--host", "127.0.0.1", "--port", "0", "--chain-id", String(chainId)], { stdio: ["ignore", "pipe", "inherit"] });
  const end = () => child.kill();
  process.once("exit", end);
  child.once("exit", () => process.off("exit", end));
  const url = await new Promise((resolve, reject) => {
    const lines = createInterface(child.stdout);
    lines.on("line", (l) => {
      const m = /Listening on (127\.0\.0\.1:[0-9]+)/.exec(l);
      if (m) resolve(`http://${m[1]}`);
    });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`anvil ended with ${code}`))); // without effect once it listens
  });
  const client = createPublicClient({ chain: chain(url), transport: http(url), pollingInterval: 50 });
  for (const [name, address] of Object.entries(addresses)) {
    await client.request({ method: "anvil_setCode", params: [address, await codeOf(name, address)] });
  }
  const ether = `0x${(10n ** 20n).toString(16)}`;
  for (const name of ["relayer", "operator", "payer", "other"]) await client.request({ method: "anvil_setBalance", params: [accounts[name].address, ether] });
  return new Chain(url, client, child);
}

/** The code of a double, or, with X402_CODE=FOLDER, what is in FOLDER/ADDRESS as hexadecimal: deployed code that whoever runs this brings. */
async function codeOf(name, address) {
  const folder = process.env.X402_CODE;
  if (!folder || name === "TokenDouble") return contracts()[name].code;
  const { readFile } = await import("node:fs/promises");
  return (await readFile(join(folder, address), "utf8")).trim();
}

class Chain {
  constructor(url, client, child) {
    Object.assign(this, { url, client, child });
    const all = contracts();
    const errors = [all.TokenDouble, all.CollectorDouble].flatMap((c) => c.abi.filter((e) => e.type === "error"));
    this.settlement = { address: addresses.BatchSettlementDouble, abi: [...all.BatchSettlementDouble.abi, ...errors] };
    this.token = { address: token, abi: all.TokenDouble.abi };
  }

  /** A wallet that also reads. */
  wallet(name) {
    return createWalletClient({ account: accounts[name], chain: chain(this.url), transport: http(this.url), pollingInterval: 50 }).extend(publicActions);
  }

  read(contract, functionName, ...args) {
    return this.client.readContract({ ...contract, functionName, args });
  }

  /** Sends a transaction and waits for it; throws if it is reverted. */
  async send(name, contract, functionName, ...args) {
    const hash = await this.wallet(name).writeContract({ ...contract, functionName, args });
    const receipt = await this.client.waitForTransactionReceipt({ hash });
    if (receipt.status !== "success") throw new Error(`${functionName} was reverted`);
    return hash;
  }

  balanceOf(address) {
    return this.read(this.token, "balanceOf", address);
  }

  mint(address, amount) {
    return this.send("operator", this.token, "mint", address, amount);
  }

  /** Moves the clock of the chain. */
  async pass(seconds) {
    await this.client.request({ method: "evm_increaseTime", params: [seconds] });
    await this.client.request({ method: "evm_mine", params: [] });
  }

  stop() {
    return new Promise((resolve) => {
      this.child.once("exit", resolve);
      this.child.kill();
    });
  }
}
