// Files and DAGs that are sold in tests.
import * as cbor from "@ipld/dag-cbor";
import * as dagPB from "@ipld/dag-pb";
import { UnixFS } from "ipfs-unixfs";
import { CID } from "multiformats/cid";
import * as raw from "multiformats/codecs/raw";
import { sha256 } from "multiformats/hashes/sha2";

/** Bytes that differ from place to place. */
export function bytesOf(size) {
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  for (let i = 0; i + 4 <= size; i += 4) view.setUint32(i, Math.imul(i + 1, 2654435761));
  return out;
}

const leafSize = 1 << 20;

/** A file as UnixFS, of raw leaves of 1 MiB under one root: its CID, and its blocks as [CID, bytes]. */
export async function importFile(data) {
  const blocks = [];
  const put = async (codec, bytes) => {
    const cid = CID.createV1(codec, await sha256.digest(bytes));
    blocks.push([cid, bytes]);
    return cid;
  };
  const file = new UnixFS({ type: "file" });
  const links = [];
  for (let at = 0; at < data.length; at += leafSize) {
    const leaf = data.subarray(at, at + leafSize);
    file.addBlockSize(BigInt(leaf.length));
    links.push(dagPB.createLink("", leaf.length, await put(raw.code, leaf)));
  }
  const cid = await put(dagPB.code, dagPB.encode(dagPB.createNode(file.marshal(), links)));
  return { cid, blocks };
}

/** The roots of a CAR, and the bytes of its raw blocks in order; every block is compared with its CID. */
export async function blocksOfCar(car) {
  let at = 0;
  const varint = () => {
    let n = 0;
    for (let shift = 1; ; shift *= 128) {
      const b = car[at++];
      n += (b & 127) * shift;
      if (b < 128) return n;
    }
  };
  const section = () => {
    const size = varint();
    at += size;
    return car.subarray(at - size, at);
  };
  const { roots } = cbor.decode(section());
  const data = [];
  while (at < car.length) {
    const [cid, bytes] = CID.decodeFirst(section());
    const digest = await sha256.digest(bytes);
    if (Buffer.compare(digest.digest, cid.multihash.digest) !== 0) throw new Error(`block ${cid} is not what it is named`);
    if (cid.code === raw.code) data.push(bytes);
  }
  return { roots: roots.map(String), data };
}
