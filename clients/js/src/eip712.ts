import { keccak_256 } from "@noble/hashes/sha3";
import { fromHex, join, word } from "./bytes.js";

/** A field of a struct: only the types that the scheme has. */
export interface Field {
  name: string;
  type: "address" | "bytes32" | "string" | "uint40" | "uint128" | "uint256";
}

/** What a wallet signs by EIP-712: the argument of `signTypedData`, as viem has it. */
export interface TypedData {
  domain: { name: string; version: string; chainId: number; verifyingContract: `0x${string}` };
  types: Record<string, Field[]>;
  primaryType: string;
  message: Record<string, unknown>;
}

const domainFields: Field[] = [
  { name: "name", type: "string" },
  { name: "version", type: "string" },
  { name: "chainId", type: "uint256" },
  { name: "verifyingContract", type: "address" },
];

const utf8 = (s: string): Uint8Array => new TextEncoder().encode(s);

function encodeField(f: Field, v: unknown): Uint8Array {
  switch (f.type) {
    case "address":
      return join(new Uint8Array(12), fromHex(v as string, 20));
    case "bytes32":
      return fromHex(v as string, 32);
    case "string":
      return keccak_256(utf8(v as string));
    default: {
      const n = BigInt(v as bigint | number | string);
      if (n >> BigInt(f.type.slice(4)) !== 0n) throw new RangeError(`${f.name} ${n} does not fit ${f.type}`);
      return word(n);
    }
  }
}

function hashStruct(name: string, fields: Field[], message: Record<string, unknown>): Uint8Array {
  const type = `${name}(${fields.map((f) => `${f.type} ${f.name}`).join(",")})`;
  return keccak_256(join(keccak_256(utf8(type)), ...fields.map((f) => encodeField(f, message[f.name]))));
}

/** The digest that is signed. Structs inside of structs are not needed here and not supported. */
export function hashTypedData(d: TypedData): Uint8Array {
  const fields = d.types[d.primaryType];
  if (!fields) throw new TypeError(`${d.primaryType} is not among the types`);
  const domain = hashStruct("EIP712Domain", domainFields, d.domain);
  return keccak_256(join(Uint8Array.of(0x19, 0x01), domain, hashStruct(d.primaryType, fields, d.message)));
}
