import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Store } from "./store.js";

/** A store in a folder: a file a channel, written aside, synced and renamed. */
export function folderStore(folder: string): Store {
  const fileOf = (key: string): string => join(folder, `${key.replace(/[^0-9A-Za-z]/g, "_")}.json`);
  return {
    async get(key) {
      try {
        return await readFile(fileOf(key), "utf8");
      } catch (err) {
        if ((err as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw err;
      }
    },
    async set(key, value) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = fileOf(key);
      const file = await open(`${path}.new`, "w", 0o600);
      try {
        await file.writeFile(value);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(`${path}.new`, path);
    },
  };
}
