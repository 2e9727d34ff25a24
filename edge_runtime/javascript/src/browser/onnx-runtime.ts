/** ONNX Runtime in WebAssembly, with SIMD, and with threads where the page is isolated. */

import * as ort from "onnxruntime-web/wasm";
import type { OrtRuntime } from "../engine/runtime.js";

const MOST_THREADS = 4;

/** Say how many threads are of use: half of the cores, as the phone is its owner's; one where memory cannot be shared. */
export function usefulThreads(): number {
  if (!globalThis.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(MOST_THREADS, Math.floor((navigator.hardwareConcurrency || 1) / 2)));
}

/**
 * Load ONNX Runtime.
 *
 * @param files Where its two files are.
 */
export function onnxRuntime(files: { readonly mjs: string; readonly wasm: string }, numThreads: number): OrtRuntime {
  ort.env.wasm.wasmPaths = files;
  ort.env.wasm.numThreads = numThreads;
  ort.env.wasm.proxy = false;
  return ort as unknown as OrtRuntime;
}
