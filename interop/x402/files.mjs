// Files and DAGs that are sold in tests.
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
