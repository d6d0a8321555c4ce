/** Bytes in hexadecimal with a leading 0x. */
export type Hex = `0x${string}`;

/** Writes bytes in hexadecimal. */
export function toHex(bytes: Uint8Array): Hex {
  let out = "0x";
  for (const b of bytes) out += b.toString(16).padStart(2, "0");
  return out as Hex;
}

/** Reads hexadecimal of exactly `size` bytes. */
export function fromHex(text: string, size: number): Uint8Array {
  if (!isHex(text, size)) throw new TypeError(`${JSON.stringify(String(text).slice(0, 80))} is not 0x and ${2 * size} hexadecimal digits`);
  const out = new Uint8Array(size);
  for (let i = 0; i < size; i++) out[i] = Number.parseInt(text.slice(2 + 2 * i, 4 + 2 * i), 16);
  return out;
}

/** Whether a value is hexadecimal of exactly `size` bytes. */
export function isHex(value: unknown, size: number): value is Hex {
  return typeof value === "string" && value.length === 2 + 2 * size && /^0x[0-9a-fA-F]*$/.test(value);
}

/** Joins byte strings. */
export function join(...parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

/** A number as a big-endian word of 32 bytes. */
export function word(n: bigint): Uint8Array {
  if (n < 0n || n >> 256n !== 0n) throw new RangeError(`${n} does not fit 256 bits`);
  return fromHex(`0x${n.toString(16).padStart(64, "0")}`, 32);
}
