// The gateway: cartage daemon, selling for the token of the chain through the stock facilitator.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { accounts, network, token } from "./chain.mjs";

const exec = promisify(execFile);
const repository = join(import.meta.dirname, "../..");

/** Builds cartage, or takes the one that CARTAGE names. */
async function binary(folder) {
  if (process.env.CARTAGE) return process.env.CARTAGE;
  const out = join(folder, "cartage");
  await exec("go", ["build", "-p", "2", "-o", out, "./cmd/cartage"], { cwd: repository });
  return out;
}

/** Makes a gateway that sells for 7 of the token a TiB; `more` are further settings of x402. */
export async function makeGateway(chain, facilitator, more = {}) {
  const folder = await mkdtemp(join(tmpdir(), "gateway-"));
  const program = await binary(folder);
  const home = join(folder, "home");
  const run = async (...args) => (await exec(program, ["--home", home, ...args], { maxBuffer: 64 << 20 })).stdout;
  await run("init", "--yes");
  await run("ask", "set", "--price-per-byte", "0");
  const { address } = JSON.parse(await run("--json", "wallet", "new", "--type", "evm"));
  await chain.client.request({ method: "anvil_setBalance", params: [address, `0x${(10n ** 19n).toString(16)}`] }); // gas, if it sends by itself
  const settings = {
    asset: "tusd@local",
    price: "7TUSD/TiB",
    pay_to: accounts.receiver.address,
    facilitator: facilitator.url,
    rpc: chain.url,
    token_name: "tusd@local",
    token_symbol: "TUSD",
    token_network: network,
    token_address: token,
    token_decimals: "6",
    token_domain: "Test Dollar",
    token_version: "1",
    ...more,
  };
  for (const [key, value] of Object.entries(settings)) await run("config", "set", `x402.${key}`, value);
  return new Gateway(folder, program, home, run);
}

class Gateway {
  constructor(folder, program, home, run) {
    Object.assign(this, { folder, program, home, run });
  }

  /** Starts the daemon, or starts it again where it was. */
  async start() {
    const listen = this.origin ? new URL(this.origin).host : "127.0.0.1:0";
    const child = spawn(this.program, ["--json", "--home", this.home, "daemon", "--provide", "--gateway", listen], { stdio: ["ignore", "pipe", "pipe"] });
    this.child = child;
    let log = "";
    child.stderr.on("data", (d) => (log = (log + d).slice(-4000)));
    const end = () => child.kill("SIGKILL");
    process.once("exit", end);
    child.once("exit", () => process.off("exit", end));
    const line = await new Promise((resolve, reject) => {
      createInterface(child.stdout).once("line", resolve);
      child.once("exit", (code) => reject(new Error(`the daemon ended with ${code}: ${log}`)));
    });
    this.origin = JSON.parse(line).gateway[0];
  }

  /** Imports bytes for sale: what `provide` says of them. */
  async provide(name, bytes) {
    const path = join(this.folder, name);
    await writeFile(path, bytes);
    return JSON.parse(await this.run("--json", "provide", path));
  }

  /** Claims and settles all. */
  redeem() {
    return this.run("gateway", "redeem");
  }

  async earnings() {
    return JSON.parse(await this.run("--json", "gateway", "earnings"));
  }

  /** Ends the daemon: with SIGTERM, or at once. */
  async stop(signal = "SIGTERM") {
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill(signal);
    await ended;
  }

  async remove() {
    await this.stop("SIGKILL");
    await rm(this.folder, { recursive: true, force: true });
  }
}
