/** What of the optional packages is installed: ONNX Runtime, sharp, Zstandard. */

import zlib from "node:zlib";
import type { Compress } from "../connection/server-client.js";
import type { OrtRuntime } from "../engine/runtime.js";
import { MissingExtraError } from "../errors.js";

const LEVEL = 3;

/**
 * Load ONNX Runtime.
 *
 * @throws MissingExtraError It is not installed.
 */
export async function onnxRuntime(): Promise<OrtRuntime> {
  const loaded = await needed("onnxruntime-node", () => import("onnxruntime-node"));
  const module = ("default" in loaded ? loaded.default : loaded) as unknown;
  return module as OrtRuntime;
}

/**
 * Load sharp, which reads pictures.
 *
 * @throws MissingExtraError It is not installed.
 */
export async function sharpModule(): Promise<typeof import("sharp").default> {
  return (await needed("sharp", () => import("sharp"))).default;
}

/** Give Zstandard: Node's own, from 22.15 on, else the package's; undefined where there is neither. */
export async function zstandard(): Promise<Compress | undefined> {
  const own = (zlib as unknown as { zstdCompressSync?: (data: Uint8Array) => Uint8Array }).zstdCompressSync;
  if (own) return async (data) => new Uint8Array(own(data));
  try {
    const { Zstd } = await import("@hpcc-js/wasm-zstd");
    const zstd = await Zstd.load();
    // A copy: what it gives lies in memory that the next call writes over.
    return async (data) => zstd.compress(data, LEVEL).slice();
  } catch {
    return undefined;
  }
}

async function needed<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    throw new MissingExtraError(
      `the package ${name} is not installed, or not for this machine: npm install ${name} (${String(error).split("\n")[0].slice(0, 200)})`,
      { cause: error },
    );
  }
}
