/** A device's part in a run: its data and settings, and its views of images; `gkt_core/rounds/client_part.py`. */

import type { RunConfig } from "../config/run-config.js";
import { augmentedView } from "../data/augment.js";
import type { PrivateData, Samples } from "../data/private-data.js";
import { sha256 } from "../hashing.js";
import type { FeatureNoise } from "../wire/feature-noise.js";
import type { Split } from "../wire/shards.js";

/** Who takes part, with which data, under which settings. */
export interface ClientPart {
  /** The device's name; its views, batches and noise follow from it. */
  readonly clientId: string;
  /** Only features, logits, labels and sample ids leave. */
  readonly data: PrivateData;
  readonly config: RunConfig;
  readonly numClasses: number;
  readonly noise: FeatureNoise;
  /** Derived from the run's seed and the device's name. */
  readonly seed: bigint;
  /** The first round whose soft labels can hold each training sample; undefined where the data never changed. */
  readonly firstRounds?: readonly number[];
}

/** Derive a device's seed from the run's seed and the device's name. */
export async function clientSeed(seed: bigint, clientId: string): Promise<bigint> {
  const digest = await sha256(new TextEncoder().encode(`${seed}/${clientId}`));
  return new DataView(digest.buffer).getBigUint64(0, true) >> 1n;
}

export function samplesOf(part: ClientPart, split: Split): Samples {
  return split === "train" ? part.data.train : part.data.validation;
}

/** Count the shards that a split makes. */
export function numShards(part: ClientPart, split: Split): number {
  return Math.ceil(samplesOf(part, split).labels.length / part.config.shard_samples);
}

/** Draw images `[n, 3, S, S]` of the view that belongs to a round. */
export function drawView(
  part: ClientPart,
  samples: Samples,
  rows: readonly number[],
  roundNum: number | bigint,
): Float32Array {
  return augmentedView(samples.images, rows, samples.sampleIds, {
    seed: part.seed,
    roundNum,
    cropPadding: part.config.crop_padding,
    horizontalFlip: part.config.horizontal_flip,
  });
}
