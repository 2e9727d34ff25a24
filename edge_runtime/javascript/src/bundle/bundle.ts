/** A verified artifact bundle: its manifest and the files of the portable engine. */

import { ArtifactError } from "../errors.js";
import { sha256Hex } from "../hashing.js";
import { isObject, parseJsonBytes, type JsonObject } from "../json.js";
import type { FileEntry, Manifest } from "./manifest.js";

export interface Bundle {
  readonly manifest: Manifest;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** Say whether a file is the one of its entry. */
export async function fileEntryMatches(data: Uint8Array, entry: FileEntry): Promise<boolean> {
  return data.length === entry.num_bytes && (await sha256Hex(data)) === entry.sha256;
}

/**
 * Read a manifest that this device kept.
 *
 * @throws ArtifactError It cannot be read.
 */
export function loadManifest(data: Uint8Array, place: string): JsonObject {
  try {
    const values = parseJsonBytes(data, "a manifest");
    if (isObject(values)) return values;
  } catch (error) {
    throw new ArtifactError(`${place}: the manifest cannot be read: choose another --state-dir`, { cause: error });
  }
  throw new ArtifactError(`${place}: the manifest cannot be read: choose another --state-dir`);
}
