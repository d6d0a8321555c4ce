import { secp256k1 } from "@noble/curves/secp256k1";
import { keccak_256 } from "@noble/hashes/sha3";
import { fromHex, isHex, toHex, type Hex } from "./bytes.js";
import { hashTypedData, type TypedData } from "./eip712.js";

/** Who pays: an account of viem is one, and so is whatever asks a wallet. Contract wallets are not served by gateways. */
export interface Signer {
  readonly address: Hex;
  signTypedData(data: TypedData): Promise<Hex>;
}

function addressOf(publicKey: Uint8Array): Hex {
  return toHex(keccak_256(publicKey.subarray(1)).subarray(12));
}

/** A signer with a private key of 32 bytes in memory, without any other library. */
export function keySigner(privateKey: Hex): Signer {
  if (!isHex(privateKey, 32)) throw new TypeError("a private key is 0x and 64 hexadecimal digits");
  const key = fromHex(privateKey, 32);
  return {
    address: addressOf(secp256k1.getPublicKey(key, false)),
    async signTypedData(data) {
      const s = secp256k1.sign(hashTypedData(data), key, { lowS: true });
      return `${toHex(s.toCompactRawBytes())}${(27 + s.recovery).toString(16)}`;
    },
  };
}

/** Who signed a digest; undefined if the signature has not the form that the contract takes (r, s, v; low s; v 27 or 28). */
export function recoverSigner(digest: Uint8Array, signature: unknown): Hex | undefined {
  if (!isHex(signature, 65)) return undefined;
  const bytes = fromHex(signature, 65);
  const v = bytes[64];
  if (v !== 27 && v !== 28) return undefined;
  try {
    const s = secp256k1.Signature.fromCompact(bytes.subarray(0, 64)).addRecoveryBit(v - 27);
    if (s.hasHighS()) return undefined;
    return addressOf(s.recoverPublicKey(digest).toRawBytes(false));
  } catch {
    return undefined;
  }
}
