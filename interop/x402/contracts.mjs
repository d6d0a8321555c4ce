// Compiles the doubles of contracts/ with the compiler that package.json pins. No bytecode is kept: the source is the only record.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import solc from "solc";

const folder = join(import.meta.dirname, "contracts");

let compiled;

/** All contracts: {name: {abi, code}}, where code is the code that runs. They are compiled once a process. */
export function contracts() {
  compiled ??= compile();
  return compiled;
}

function compile() {
  const sources = Object.fromEntries(readdirSync(folder).map((f) => [f, { content: readFileSync(join(folder, f), "utf8") }]));
  const settings = { optimizer: { enabled: true, runs: 200 }, viaIR: true, outputSelection: { "*": { "*": ["abi", "evm.deployedBytecode.object"] } } };
  const out = JSON.parse(solc.compile(JSON.stringify({ language: "Solidity", sources, settings })));
  const errors = (out.errors ?? []).map((e) => e.formattedMessage);
  if (errors.length > 0) throw new Error(errors.join("\n"));
  const all = {};
  for (const file of Object.values(out.contracts)) {
    for (const [name, c] of Object.entries(file)) all[name] = { abi: c.abi, code: `0x${c.evm.deployedBytecode.object}` };
  }
  return all;
}
