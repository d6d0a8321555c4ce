/**
 * Where the state of channels is kept, as text by key. `set` returns when the text is as durable as it gets: a payment is sent only afterwards.
 * One store belongs to one paying fetch at a time.
 */
export interface Store {
  get(key: string): Promise<string | undefined>;
  set(key: string, value: string): Promise<void>;
}

/** A store that ends with the program. Channels are found again by what the gateway says of them, under a signature of one's own. */
export class MemoryStore implements Store {
  readonly #texts = new Map<string, string>();
  async get(key: string): Promise<string | undefined> {
    return this.#texts.get(key);
  }
  async set(key: string, value: string): Promise<void> {
    this.#texts.set(key, value);
  }
}

/** A store over `localStorage`, or what looks like it. */
export function webStore(storage: Pick<Storage, "getItem" | "setItem">, prefix = "cartage:"): Store {
  return {
    async get(key) {
      return storage.getItem(prefix + key) ?? undefined;
    },
    async set(key, value) {
      storage.setItem(prefix + key, value);
    },
  };
}
