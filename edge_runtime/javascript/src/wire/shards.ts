/** Feature shards and soft labels: what is in them stands in `gkt_core/wire/shards.py`. */

import { MessageError, ShardError } from "../errors.js";
import { JsonNumber, isObject, lineText, parseJson, type Json, type JsonObject } from "../json.js";
import { allFinite } from "../numbers.js";
import { printable } from "../printable.js";
import { encode, type FeatureShape } from "./codec.js";
import { floats, longs, MAX_HEADER_BYTES, readTensors, writeTensors, type DType, type Tensor } from "./safetensors.js";

export type Split = "train" | "validation";
export const SHARD_VERSION = 1;

/** Where a shard belongs. */
export interface ShardKey {
  readonly clientId: string;
  /** From 1. */
  readonly roundNum: number;
  readonly split: Split;
  /** Number of the shard within the split, from 0. */
  readonly index: number;
}

/** Samples of one shard, before the codec. */
export interface ShardContent {
  readonly sampleIds: BigInt64Array;
  /** `[n, C, H, W]`. */
  readonly features: Float32Array;
  readonly featureShape: FeatureShape;
  /** `[n, classes]`. */
  readonly clientLogits: Float32Array;
  readonly labels: BigInt64Array;
  /** `[C]`, the feature of black; undefined in a run that has no use for it. */
  readonly outside?: Float32Array;
}

/**
 * Encode one feature shard.
 *
 * @throws CodecError Features cannot be encoded.
 * @throws ShardError Logits are not finite.
 */
export function writeFeatureShard(key: ShardKey, content: ShardContent, codec: string): Uint8Array {
  const { sampleIds, clientLogits, labels, outside } = content;
  const num = sampleIds.length;
  if (!allFinite(clientLogits) || (outside && !allFinite(outside))) {
    throw new ShardError("logits hold NaN or infinity: the local training diverged, lower edge_lr");
  }
  const encoded = encode(content.features, content.featureShape, codec);
  const dtype = ({ fp32: "F32", fp16: "F16" } as Record<string, DType>)[codec] ?? "U8";
  const tensors = new Map<string, Tensor>([
    ["sample_ids", longs(sampleIds)],
    ["features", { dtype, shape: [num, ...encoded.sampleShape], data: encoded.values }],
    ["features_scale", floats(encoded.scale)],
    ["features_offset", floats(encoded.offset)],
    ["client_logits", floats(clientLogits, [num, clientLogits.length / num])],
    ["labels", longs(labels)],
  ]);
  if (outside) tensors.set("features_outside", floats(outside));
  return writeTensors(
    tensors,
    lineText({
      version: whole(SHARD_VERSION),
      kind: "features",
      codec,
      client_id: key.clientId,
      round_num: whole(key.roundNum),
      split: key.split,
      index: whole(key.index),
    }),
  );
}

/** The server's answer for one device and one round, looked up by sample id. */
export class SoftLabels {
  private readonly rows: ReadonlyMap<bigint, number>;

  /**
   * @param sampleIds `[n]`.
   * @param serverLogits `[n, classes]`, raw.
   */
  constructor(
    sampleIds: BigInt64Array,
    private readonly serverLogits: Float32Array,
    private readonly numClasses: number,
  ) {
    this.rows = new Map(Array.from(sampleIds, (id, row) => [id, row]));
  }

  get length(): number {
    return this.rows.size;
  }

  /**
   * Look up logits `[k, classes]` by sample id `[k]`, never by position.
   *
   * @throws ShardError A sample has no soft label.
   */
  forSamples(sampleIds: readonly bigint[]): Float32Array {
    const missing = sampleIds.filter((id) => !this.rows.has(id));
    if (missing.length) {
      throw new ShardError(
        `no soft labels came for ${missing.length} samples, first [${missing.slice(0, 3).join(", ")}]`,
      );
    }
    const found = new Float32Array(sampleIds.length * this.numClasses);
    sampleIds.forEach((id, index) => {
      const begin = (this.rows.get(id) as number) * this.numClasses;
      found.set(this.serverLogits.subarray(begin, begin + this.numClasses), index * this.numClasses);
    });
    return found;
  }
}

/** Say what the answer for so many samples may have, which are those of the upload that it answers. */
export function mostSoftLabelBytes(numSamples: number, numClasses: number): number {
  return 8 + MAX_HEADER_BYTES + numSamples * (8 + 4 * numClasses);
}

/**
 * Read and validate the server's answer.
 *
 * @throws ShardError Anything differs from what this run expects.
 */
export function readSoftLabels(data: Uint8Array, clientId: string, roundNum: number, numClasses: number): SoftLabels {
  const { tensors, metadata } = readTensors(data);
  checkMetadata(metadata, {
    version: whole(SHARD_VERSION),
    kind: "soft_labels",
    client_id: clientId,
    round_num: whole(roundNum),
  });
  const ids = tensors.get("sample_ids");
  if (ids?.dtype !== "I64" || ids.shape.length !== 1) throw new ShardError("sample_ids is missing, or not int64 [n]");
  const sampleIds = ids.data as BigInt64Array;
  if (new Set(sampleIds).size !== sampleIds.length) throw new ShardError("sample_ids are not unique");
  const names = [...tensors.keys()].sort();
  if (names.join() !== "sample_ids,server_logits") {
    throw new ShardError(
      `a shard holds [${printable(names.slice(0, 8).join(", ")).slice(0, 200)}], this run expects [sample_ids, server_logits]`,
    );
  }
  const logits = tensors.get("server_logits") as Tensor;
  if (logits.dtype !== "F32" || logits.shape.join() !== `${sampleIds.length},${numClasses}`) {
    throw new ShardError(
      `server_logits is ${logits.dtype} [${logits.shape.join(", ")}], this run expects F32 [${sampleIds.length}, ` +
        `${numClasses}]: are device and server on the same artifacts?`,
    );
  }
  const values = logits.data as Float32Array;
  if (!allFinite(values))
    throw new ShardError("server_logits hold NaN or infinity: the server diverged, lower server_lr");
  return new SoftLabels(sampleIds, values, numClasses);
}

function checkMetadata(text: string | undefined, expected: JsonObject): void {
  let said: Json = null;
  try {
    said = text === undefined ? null : parseJson(text, "the metadata of a shard");
  } catch (error) {
    if (!(error instanceof MessageError)) throw error;
  }
  if (!isObject(said)) throw new ShardError("the header is not that of a gkt shard");
  for (const [name, value] of Object.entries(expected)) {
    const theirs = Object.hasOwn(said, name) ? said[name] : null;
    const isSame =
      value instanceof JsonNumber ? theirs instanceof JsonNumber && theirs.text === value.text : theirs === value;
    if (!isSame) {
      const shown =
        theirs instanceof JsonNumber ? theirs.text : isObject(theirs) || Array.isArray(theirs) ? "an object" : theirs;
      const wanted = value instanceof JsonNumber ? value.text : String(value);
      throw new ShardError(`the shard says ${name} '${printable(String(shown).slice(0, 60))}', expected '${wanted}'`);
    }
  }
}

function whole(value: number): JsonNumber {
  return new JsonNumber(String(value));
}
