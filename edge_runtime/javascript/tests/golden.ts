/** What every language of a device computes alike: made by Python, committed, and read here. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const FILE = new URL("../../../../tests/edge_runtime/golden/device.json", import.meta.url);

/* eslint-disable-next-line @typescript-eslint/no-explicit-any -- the shape is that of make_golden.py */
export const golden: any = JSON.parse(readFileSync(fileURLToPath(FILE), "utf8"));

export function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, "base64"));
}

export function floatsOf(text: string): Float32Array {
  return new Float32Array(bytesOf(text).buffer);
}

export function longsOf(values: readonly (string | number)[]): BigInt64Array {
  return BigInt64Array.from(values, (value) => BigInt(value));
}

/** The numbers of make_golden.py: 0 to 250. */
export function levels(num: number, step = 7919): Uint8Array {
  return Uint8Array.from({ length: num }, (_, index) => (index * step) % 251);
}

/** The numbers of make_golden.py: -0.5 to 0.5, and more. */
export function numbers(num: number, step: number, more = 0): Float32Array {
  return Float32Array.from({ length: num }, (_, index) => Math.fround(((index * step) % 1013) / 1013 - 0.5) + more);
}
