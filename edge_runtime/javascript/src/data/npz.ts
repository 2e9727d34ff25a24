/** numpy's files: a zip of `.npy` arrays, never pickled ones; https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. */

import { unzipSync, zipSync } from "fflate";
import { DatasetError } from "../errors.js";
import { joined } from "../hashing.js";
import { printable } from "../printable.js";

interface Common {
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** An array of one of the kinds that a device's file has; `other` is any other kind, which is not read. */
export type NpyArray = Common &
  (
    | { readonly kind: "bytes"; readonly bytes: Uint8Array }
    | { readonly kind: "whole"; readonly values: BigInt64Array }
    | { readonly kind: "text"; readonly texts: string[] }
    | { readonly kind: "other" }
  );

const MAGIC = "\x93NUMPY";
const HEADER = /^\{'descr': '([^']{2,20})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \}\s*$/;

/**
 * Read all arrays of an `.npz` file.
 *
 * @throws DatasetError The file is no readable `.npz`.
 */
export function readNpz(file: Uint8Array, name: string): Map<string, NpyArray> {
  let entries: Record<string, Uint8Array>;
  try {
    entries = unzipSync(file, { filter: (entry) => entry.name.endsWith(".npy") });
  } catch (error) {
    throw new DatasetError(`cannot read ${name}: it is no .npz file, which np.savez writes, or cut short`, {
      cause: error,
    });
  }
  return new Map(
    Object.entries(entries).map(([entry, data]) => [entry.slice(0, -4), readNpy(data, `${name}: ${printable(entry)}`)]),
  );
}

function readNpy(data: Uint8Array, name: string): NpyArray {
  const version = data[6];
  const lengthBytes = version === 1 ? 2 : 4;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const latin = new TextDecoder("latin1");
  if (
    data.length < 12 ||
    latin.decode(data.subarray(0, 6)) !== latin.decode(Uint8Array.from(MAGIC, (c) => c.charCodeAt(0)))
  ) {
    throw new DatasetError(`cannot read ${name}: it is no .npy array`);
  }
  const length = lengthBytes === 2 ? view.getUint16(8, true) : view.getUint32(8, true);
  const begin = 8 + lengthBytes + length;
  const header = HEADER.exec(latin.decode(data.subarray(8 + lengthBytes, begin)));
  if (!header)
    throw new DatasetError(`cannot read ${name}: its header is none of an array of images, numbers or texts`);
  const [, dtype, fortran, sides] = header;
  const shape = sides
    .split(",")
    .filter((each) => each.trim())
    .map(Number);
  const num = shape.reduce((product, side) => product * side, 1);
  if (fortran === "True" && shape.length > 1) {
    throw new DatasetError(`${name} is in Fortran's order: save it with np.ascontiguousarray`);
  }
  const payload = data.slice(begin);
  const item = Number(dtype.slice(2)) * (dtype[1] === "U" ? 4 : 1);
  if (payload.length !== num * item) {
    throw new DatasetError(`cannot read ${name}: ${payload.length} bytes, expected ${num * item}: it is cut short`);
  }
  if (dtype === "|u1") return { kind: "bytes", dtype: "uint8", shape, bytes: payload };
  if (/^[<|][iu][1248]$/.test(dtype)) return { kind: "whole", dtype, shape, values: wholeNumbers(payload, dtype, num) };
  if (/^<U\d+$/.test(dtype)) return { kind: "text", dtype, shape, texts: textsOf(payload, num, item) };
  return { kind: "other", dtype, shape };
}

function wholeNumbers(data: Uint8Array, dtype: string, num: number): BigInt64Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const read: Record<string, (index: number) => bigint> = {
    i1: (index) => BigInt(view.getInt8(index)),
    i2: (index) => BigInt(view.getInt16(2 * index, true)),
    i4: (index) => BigInt(view.getInt32(4 * index, true)),
    i8: (index) => view.getBigInt64(8 * index, true),
    u1: (index) => BigInt(view.getUint8(index)),
    u2: (index) => BigInt(view.getUint16(2 * index, true)),
    u4: (index) => BigInt(view.getUint32(4 * index, true)),
    // As numpy's astype(int64): the same bits.
    u8: (index) => view.getBigInt64(8 * index, true),
  };
  return BigInt64Array.from({ length: num }, (_, index) => read[dtype.slice(1)](index));
}

function textsOf(data: Uint8Array, num: number, item: number): string[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: num }, (_, row) => {
    let text = "";
    for (let place = row * item; place < (row + 1) * item; place += 4) {
      const code = view.getUint32(place, true);
      if (code) text += String.fromCodePoint(code);
    }
    return text;
  });
}

/** Write an array as a `.npy` file. */
export function writeNpy(
  dtype: string,
  shape: readonly number[],
  data: Uint8Array | BigInt64Array | Uint32Array,
): Uint8Array {
  const sides = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${dtype}', 'fortran_order': False, 'shape': (${sides}), }`;
  // Data begin at a multiple of 64 bytes.
  const length = 64 * Math.ceil((10 + text.length + 1) / 64) - 10;
  const header = Uint8Array.from(`${MAGIC}\x01\x00  ${text.padEnd(length - 1)}\n`, (each) => each.charCodeAt(0));
  new DataView(header.buffer).setUint16(8, length, true);
  return joined([header, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]);
}

/** Write texts as a `.npy` file. */
export function npyText(texts: readonly string[]): Uint8Array {
  const letters = texts.map((text) => [...text].map((each) => each.codePointAt(0) as number));
  const longest = Math.max(1, ...letters.map((each) => each.length));
  const codes = new Uint32Array(texts.length * longest);
  letters.forEach((each, row) => codes.set(each, row * longest));
  return writeNpy(`<U${longest}`, [texts.length], codes);
}

/** Write arrays, each a `.npy` file, as an `.npz`. */
export function writeNpz(arrays: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const entries = Object.fromEntries([...arrays].map(([name, data]) => [`${name}.npy`, data]));
  return zipSync(entries, { level: 0, mtime: new Date(1980, 0, 1) });
}
