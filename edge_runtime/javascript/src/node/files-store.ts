/** A device's state as files of a folder, one process at a time. */

import { randomBytes } from "node:crypto";
import { promises as fs } from "node:fs";
import path from "node:path";
import { DiskFullError, InputError } from "../errors.js";
import type { Store } from "../state/store.js";

const LOCK = "node.lock";
const UNFINISHED = /^\..*\.tmp$/;

/** A folder. */
export class FilesStore implements Store {
  private constructor(readonly place: string) {}

  /**
   * Make or open a folder, and keep other processes out of it.
   *
   * @throws InputError Another process runs on it, or it cannot be made.
   */
  static async open(folder: string): Promise<FilesStore> {
    try {
      await fs.mkdir(folder, { recursive: true });
      await lock(path.join(folder, LOCK), folder);
      const store = new FilesStore(folder);
      for (const name of await listed(folder, "")) {
        // Of a process that was killed while writing; the lock says that there is no other.
        if (UNFINISHED.test(path.basename(name))) await fs.rm(path.join(folder, name), { force: true });
      }
      return store;
    } catch (error) {
      if (error instanceof InputError) throw error;
      throw new InputError(`cannot use the state folder ${folder}: ${message(error)}`, { cause: error });
    }
  }

  /** Let another process use the folder. */
  async close(): Promise<void> {
    await fs.rm(path.join(this.place, LOCK), { force: true });
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    try {
      return new Uint8Array(await fs.readFile(path.join(this.place, name)));
    } catch (error) {
      if (code(error) === "ENOENT") return undefined;
      throw new InputError(`${path.join(this.place, name)} cannot be read: ${message(error)}`, { cause: error });
    }
  }

  async write(name: string, data: Uint8Array, isSecret = false): Promise<void> {
    const target = path.join(this.place, name);
    const temporary = path.join(
      path.dirname(target),
      `.${path.basename(target)}.${randomBytes(4).toString("hex")}.tmp`,
    );
    try {
      await fs.mkdir(path.dirname(target), { recursive: true });
      const file = await fs.open(temporary, "wx", isSecret ? 0o600 : 0o644);
      try {
        await file.writeFile(data);
        await file.sync();
      } finally {
        await file.close();
      }
      await fs.rename(temporary, target);
    } catch (error) {
      await fs.rm(temporary, { force: true });
      if (["ENOSPC", "EDQUOT", "EFBIG"].includes(code(error))) {
        throw new DiskFullError(`${target} cannot be written: the disk is full; what was saved before is still there`, {
          cause: error,
        });
      }
      throw new InputError(`cannot write ${target}: ${message(error)}: choose another place`, { cause: error });
    }
  }

  async remove(name: string): Promise<void> {
    await fs.rm(path.join(this.place, name), { force: true });
  }

  async names(): Promise<string[]> {
    return listed(this.place, "");
  }
}

async function listed(folder: string, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await fs.readdir(path.join(folder, prefix), { withFileTypes: true })) {
    const name = prefix ? `${prefix}/${entry.name}` : entry.name;
    if (entry.isDirectory()) names.push(...(await listed(folder, name)));
    else names.push(name);
  }
  return names;
}

/** Write down which process holds the folder; one that is gone holds none. */
async function lock(file: string, folder: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await fs.writeFile(file, `${process.pid} ${await startOf(process.pid)}\n`, { flag: "wx" });
      return;
    } catch (error) {
      if (code(error) !== "EEXIST" || attempt > 3) throw error;
    }
    const [pid, start] = (await fs.readFile(file, "utf8").catch(() => "")).trim().split(" ");
    // A process that was begun since may have the number of one that is gone.
    if (pid && isAlive(Number(pid)) && (await startOf(Number(pid))) === start) {
      throw new InputError(
        `another gkt-edge (process ${pid}) uses ${folder}: give each device its own --state-dir; if that process is none, ` +
          `remove ${file}`,
      );
    }
    await fs.rm(file, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return code(error) === "EPERM";
  }
}

/** Say when a process began, where Linux tells; elsewhere all are alike. */
async function startOf(pid: number): Promise<string> {
  try {
    const stat = await fs.readFile(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return "-";
  }
}

function code(error: unknown): string {
  return String((error as NodeJS.ErrnoException | null)?.code ?? "");
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
