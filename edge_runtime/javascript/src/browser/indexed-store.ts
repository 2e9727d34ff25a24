/** A device's state in a browser: files by name in IndexedDB, one tab at a time. */

import { DiskFullError, InputError } from "../errors.js";
import type { Store } from "../state/store.js";

/** Another tab of this browser is this device. */
export class OtherTabError extends InputError {
  override name = "OtherTabError";
}

/** The browser keeps nothing for this page. */
export class NothingKeptError extends InputError {
  override name = "NothingKeptError";
}

const FILES = "files";
const OTHERS_SECONDS = 3;

/** A database of files. */
export class IndexedStore implements Store {
  private constructor(
    readonly place: string,
    private readonly database: IDBDatabase,
    private readonly release: () => void,
  ) {}

  /**
   * Make or open a database, and keep other tabs out of it as long as this one lives.
   *
   * @throws OtherTabError Another tab runs on it.
   * @throws NothingKeptError The browser keeps nothing here.
   * @throws DiskFullError There is no room for it.
   */
  static async open(place: string): Promise<IndexedStore> {
    const release = await locked(place);
    try {
      return new IndexedStore(place, await opened(place), release);
    } catch (error) {
      release();
      if (error instanceof DOMException && error.name === "QuotaExceededError") throw trouble(error);
      throw new NothingKeptError(
        "this browser keeps nothing for this page, as in a private window: open the link in an ordinary one",
        { cause: error },
      );
    }
  }

  /** Let another tab use the database. */
  close(): void {
    this.database.close();
    this.release();
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    const found: unknown = await this.done("readonly", (files) => files.get(name));
    return found instanceof Uint8Array ? found : undefined;
  }

  async write(name: string, data: Uint8Array): Promise<void> {
    // A view of something larger would be stored with all of it.
    await this.done("readwrite", (files) => files.put(data.slice(), name));
  }

  async remove(name: string): Promise<void> {
    await this.done("readwrite", (files) => files.delete(name));
  }

  async names(): Promise<string[]> {
    return (await this.done("readonly", (files) => files.getAllKeys())).map(String);
  }

  /** Remove all files: the device is forgotten here. */
  async clear(): Promise<void> {
    await this.done("readwrite", (files) => files.clear());
  }

  /** Do one thing, whole or not at all: what was written is on the disk when this returns. */
  private async done<T>(mode: IDBTransactionMode, ask: (files: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(FILES, mode, { durability: "strict" });
      const request = ask(transaction.objectStore(FILES));
      transaction.oncomplete = () => resolve(request.result);
      const fail = (): void => reject(trouble(transaction.error ?? request.error));
      transaction.onabort = fail;
      transaction.onerror = fail;
    });
  }
}

function trouble(error: DOMException | null): Error {
  if (error?.name === "QuotaExceededError") {
    return new DiskFullError("there is no room left on this device; what was saved before is still there", {
      cause: error,
    });
  }
  return new InputError(`the browser's storage does not answer: ${error?.message ?? "no reason given"}`, {
    cause: error,
  });
}

async function opened(place: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(place, 1);
    request.onupgradeneeded = () => void request.result.createObjectStore(FILES);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("no reason given"));
  });
}

/** Hold a lock of this name until the function that comes back is called, or the tab ends. */
async function locked(place: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    // A worker that this page ended a moment ago may hold it still.
    const signal = AbortSignal.timeout(1000 * OTHERS_SECONDS);
    const held = navigator.locks.request(place, { signal }, async () => {
      await new Promise<void>((release) => resolve(release));
    });
    held.catch((error: unknown) => {
      const what = "this page is open in another tab, which takes part already: close one of them";
      reject(new OtherTabError(what, { cause: error }));
    });
  });
}
