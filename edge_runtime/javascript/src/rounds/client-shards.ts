/** What a device sends in a round (lines 22 to 30 of Algorithm 1): features and logits, a shard at a time. */

import { cropsFeatures } from "../config/run-config.js";
import { range, toFloatNchw } from "../data/augment.js";
import type { Engine } from "../engine/engine.js";
import { ShardError } from "../errors.js";
import type { FeatureShape } from "../wire/codec.js";
import { writeFeatureShard, type ShardContent, type ShardKey, type Split } from "../wire/shards.js";
import { drawView, numShards, samplesOf, type ClientPart } from "./client-part.js";

/** One shard as the network gives it, before noise and codec. */
export interface Extracted {
  readonly key: ShardKey;
  readonly content: ShardContent;
}

/** Make the bytes that leave the device: noise on the features, then the codec. */
export function encodedShard(extracted: Extracted, part: ClientPart): Uint8Array {
  const { key, content } = extracted;
  const features = part.noise.blur(content.features, content.sampleIds, key.roundNum);
  return writeFeatureShard(key, { ...content, features }, part.config.codec);
}

/**
 * Extract `train` or `validation` in eval mode (lines 23 to 29), by ascending sample id.
 *
 * Training samples go as the view of this round, which the soft labels will answer; validation samples as they are.
 *
 * @param only Indexes of the shards that are wanted, in this order; all by default.
 * @throws ShardError There is no shard of such an index.
 */
export async function* shards(
  engine: Engine,
  part: ClientPart,
  featureShape: FeatureShape,
  roundNum: number,
  split: Split,
  only?: readonly number[],
): AsyncGenerator<Extracted> {
  const samples = samplesOf(part, split);
  const size = part.config.shard_samples;
  const num = numShards(part, split);
  const outside = cropsFeatures(part.config) ? await featureOfBlack(engine, part, featureShape) : undefined;
  for (const index of only ?? range(0, num)) {
    if (!(index >= 0 && index < num)) throw new ShardError(`shard ${index} is wanted of ${num}`);
    const rows = range(index * size, Math.min((index + 1) * size, samples.labels.length));
    const images = split === "train" ? drawView(part, samples, rows, roundNum) : toFloatNchw(samples.images, rows);
    const { features, logits } = await engine.predict(images);
    const [begin, end] = [rows[0], rows[rows.length - 1] + 1];
    yield {
      key: { clientId: part.clientId, roundNum, split, index },
      content: {
        sampleIds: samples.sampleIds.slice(begin, end),
        features,
        featureShape,
        clientLogits: logits,
        labels: samples.labels.slice(begin, end),
        ...(outside && { outside }),
      },
    };
  }
}

/** Compute the feature of black `[C]`, far from any border; 0 where features leave with noise. */
async function featureOfBlack(engine: Engine, part: ClientPart, shape: FeatureShape): Promise<Float32Array> {
  const [channels, height, width] = shape;
  // It is the same in every shard: noise on it would not hide it.
  if (part.noise.isOn) return new Float32Array(channels);
  const side = part.data.train.images.size;
  const { features } = await engine.predict(new Float32Array(3 * side * side));
  const middle = Math.floor(height / 2) * width + Math.floor(width / 2);
  return Float32Array.from({ length: channels }, (_, channel) => features[channel * height * width + middle]);
}
