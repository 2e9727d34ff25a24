/**
 * safetensors files (https://github.com/huggingface/safetensors), written canonically and read without trust.
 *
 * Equal content is equal bytes, those that Python's package writes: tensors by size of their items, then by name.
 */

import { ShardError } from "../errors.js";
import { joined } from "../hashing.js";
import { isObject, JsonNumber, parseJsonBytes, type Json } from "../json.js";
import { printable } from "../printable.js";

export type TensorData = Float32Array | BigInt64Array | Uint8Array | Uint16Array;
export type DType = "I64" | "F32" | "F16" | "U8";

/** A tensor with its shape. */
export interface Tensor<Data extends TensorData = TensorData> {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Data;
}

export const MAX_HEADER_BYTES = 16 * 1024;
const ORDER: readonly DType[] = ["I64", "F32", "F16", "U8"];
const ITEM_BYTES: Readonly<Record<DType, number>> = { I64: 8, F32: 4, F16: 2, U8: 1 };

/** Make a tensor of float32 numbers. */
export function floats(data: Float32Array, shape: readonly number[] = [data.length]): Tensor<Float32Array> {
  return { dtype: "F32", shape, data };
}

/** Make a tensor of whole numbers of 64 bits. */
export function longs(data: BigInt64Array, shape: readonly number[] = [data.length]): Tensor<BigInt64Array> {
  return { dtype: "I64", shape, data };
}

/** Make a tensor of bytes. */
export function bytes(data: Uint8Array, shape: readonly number[] = [data.length]): Tensor<Uint8Array> {
  return { dtype: "U8", shape, data };
}

/** Write tensors, and one text of metadata under the name `gkt` if there is one. */
export function writeTensors(tensors: ReadonlyMap<string, Tensor>, metadata?: string): Uint8Array {
  const names = [...tensors.keys()].sort(
    (one, other) => order(tensors, one) - order(tensors, other) || (one < other ? -1 : 1),
  );
  const header: Record<string, unknown> = metadata === undefined ? {} : { __metadata__: { gkt: metadata } };
  const parts: Uint8Array[] = [];
  let position = 0;
  for (const name of names) {
    const tensor = tensors.get(name) as Tensor;
    const data = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
    header[name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [position, position + data.length] };
    position += data.length;
    parts.push(data);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(8 * Math.ceil(text.length / 8)).fill(0x20);
  padded.set(text);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);
  return joined([length, padded, ...parts]);
}

function order(tensors: ReadonlyMap<string, Tensor>, name: string): number {
  return ORDER.indexOf((tensors.get(name) as Tensor).dtype);
}

/** What a file holds. */
export interface TensorFile {
  readonly tensors: Map<string, Tensor>;
  /** The metadata under `gkt`; undefined if there is none. */
  readonly metadata: string | undefined;
}

/**
 * Read a file, trusting nothing.
 *
 * @param mostHeaderBytes Of its header; of files that this device wrote itself there is no limit.
 * @throws ShardError It is none, is cut short, or its tensors do not fill it exactly.
 */
export function readTensors(data: Uint8Array, mostHeaderBytes = MAX_HEADER_BYTES): TensorFile {
  if (data.length < 8) throw new ShardError(`a shard of ${data.length} bytes is cut short`);
  const headerBytes = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
  if (headerBytes > Math.min(mostHeaderBytes, data.length - 8)) {
    throw new ShardError(`the header says ${headerBytes} bytes, beyond the shard or ${mostHeaderBytes}`);
  }
  let header: Json;
  try {
    header = parseJsonBytes(data.subarray(8, 8 + headerBytes), "the header of a shard");
  } catch (error) {
    throw new ShardError("the header is not that of a gkt shard", { cause: error });
  }
  if (!isObject(header)) throw new ShardError("the header is not that of a gkt shard");
  const about = header.__metadata__;
  const metadata = isObject(about) && typeof about.gkt === "string" ? about.gkt : undefined;
  const payload = data.subarray(8 + headerBytes);
  const tensors = new Map<string, Tensor>();
  const spans: [number, number][] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [tensor, begin, end] = viewOf(name, entry, payload);
    tensors.set(name, tensor);
    spans.push([begin, end]);
  }
  let covered = 0;
  for (const [begin, end] of spans.sort((one, other) => one[0] - other[0] || one[1] - other[1])) {
    if (begin !== covered) {
      throw new ShardError(`tensors overlap or leave a gap: one begins at byte ${begin}, not ${covered}`);
    }
    covered = end;
  }
  if (covered !== payload.length) {
    throw new ShardError(`${payload.length} bytes of tensors, of which the header names ${covered}`);
  }
  return { tensors, metadata };
}

function viewOf(name: string, entry: Json, payload: Uint8Array): [Tensor, number, number] {
  const shown = `tensor '${printable(name.slice(0, 40))}'`;
  const wrong = new ShardError(`${shown} has no valid dtype, shape and offsets`);
  if (!isObject(entry) || typeof entry.dtype !== "string" || !Object.hasOwn(ITEM_BYTES, entry.dtype)) throw wrong;
  const dtype = entry.dtype as DType;
  const [shape, offsets] = [wholeNumbers(entry.shape), wholeNumbers(entry.data_offsets)];
  if (!shape || shape.length > 4 || offsets?.length !== 2) throw wrong;
  const [begin, end] = offsets;
  const numBytes = shape.reduce((product, length) => product * length, ITEM_BYTES[dtype]);
  if (!(begin <= end && end <= payload.length) || end - begin !== numBytes) {
    throw new ShardError(`${shown} does not fill its ${end - begin} bytes, or lies outside`);
  }
  // No tensor of ours is empty, and an empty one may claim lengths that no array can have.
  if (!numBytes) throw new ShardError(`${shown} is empty`);
  // A copy, because views of typed arrays must be aligned and bytes inside a file are not.
  const buffer = payload.slice(begin, end).buffer;
  const data = { I64: BigInt64Array, F32: Float32Array, F16: Uint16Array, U8: Uint8Array }[dtype];
  return [{ dtype, shape, data: new data(buffer) }, begin, end];
}

function wholeNumbers(value: Json | undefined): number[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const numbers = value.map((each) => (each instanceof JsonNumber && each.isWhole ? each.value : -1));
  return numbers.every((each) => Number.isSafeInteger(each) && each >= 0) ? numbers : undefined;
}
