/** Where a device keeps what survives a restart: files in Node, IndexedDB in a page, memory in a dry run. */

/** Files by name; a name may have folders, as `bundle/manifest.json`. */
export interface Store {
  /** For messages: a folder, say. */
  readonly place: string;
  /** Read a file; undefined where there is none. */
  read(name: string): Promise<Uint8Array | undefined>;
  /**
   * Write a file whole or not at all.
   *
   * @param isSecret Whether nobody but its owner may read it.
   * @throws DiskFullError There is no space; the file is as it was.
   */
  write(name: string, data: Uint8Array, isSecret?: boolean): Promise<void>;
  /** Remove a file, if it is there. */
  remove(name: string): Promise<void>;
  /** List the names of all files. */
  names(): Promise<string[]>;
}

/** Keeps files as long as the process lives. */
export class MemoryStore implements Store {
  readonly place = "memory";
  private readonly files = new Map<string, Uint8Array>();

  async read(name: string): Promise<Uint8Array | undefined> {
    return this.files.get(name);
  }
  async write(name: string, data: Uint8Array): Promise<void> {
    this.files.set(name, data);
  }
  async remove(name: string): Promise<void> {
    this.files.delete(name);
  }
  async names(): Promise<string[]> {
    return [...this.files.keys()];
  }
}

/** Write a text, as UTF-8. */
export async function writeText(store: Store, name: string, text: string, isSecret = false): Promise<void> {
  await store.write(name, new TextEncoder().encode(text), isSecret);
}
