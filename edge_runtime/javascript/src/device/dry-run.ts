/** What would leave this device, in words and bytes, without sending any of it; `edge_runtime/dry_run.py`. */

import type { Bundle } from "../bundle/bundle.js";
import { describedTap } from "../bundle/tap.js";
import { cropsFeatures, type RunConfig } from "../config/run-config.js";
import { UploadSchedule } from "../config/upload-schedule.js";
import type { PrivateData } from "../data/private-data.js";
import { PortableEngine } from "../engine/portable.js";
import type { OrtRuntime } from "../engine/runtime.js";
import { general } from "../numbers.js";
import { clientSeed, type ClientPart } from "../rounds/client-part.js";
import { encodedShard, shards } from "../rounds/client-shards.js";
import { GuardedEngine } from "../trust/features.js";
import { type FeatureNoise, newKey } from "../wire/feature-noise.js";
import { levelFeatures, wireBody, type Compress } from "../wire/levels/frame.js";

/** What would leave in a round that has an upload; all samples do. The fields of `DryRun` in Python. */
export interface DryRun {
  readonly engine: string;
  readonly tap: string;
  /** Kinds of data that would be sent, in words. */
  readonly leaves: readonly string[];
  /** Kinds of data that would not. */
  readonly stays: readonly string[];
  /** Shape and dtype of each tensor of one shard. */
  readonly tensors: Readonly<Record<string, string>>;
  readonly num_train_samples: number;
  readonly num_validation_samples: number;
  /** The first training shard as it would be sent. */
  readonly shard_bytes: number;
  /** All shards of a round, estimated from that shard. */
  readonly round_bytes: number;
  readonly run_bytes: number;
  readonly rounds: number;
  readonly codec: string;
  readonly compressed: boolean;
  /** How: `zstd`, `gkt-levels` (if the server takes it), or empty. */
  readonly encoding: string;
  readonly feature_clip: number;
  readonly feature_noise: number;
  /** Standard deviation of that shard's features before both, to compare the noise with. */
  readonly feature_spread: number;
}

export interface DryRunOptions {
  readonly ort: OrtRuntime;
  readonly bundle: Bundle;
  readonly data: PrivateData;
  readonly config: RunConfig;
  readonly clientId: string;
  readonly noise: FeatureNoise;
  readonly compress?: Compress | undefined;
  readonly numThreads?: number;
}

/**
 * Make the first shard of round 1 exactly as it would be sent, and measure it.
 *
 * @throws UnsafeModelError Its features are the images, or its graphs would do what nobody agreed to.
 */
export async function dryRun(options: DryRunOptions): Promise<DryRun> {
  const { bundle, data, config, clientId } = options;
  const { manifest } = bundle;
  const noise = options.noise.withKey(newKey());
  const seed = await clientSeed(config.seed, clientId);
  const part: ClientPart = { clientId, data, config, numClasses: manifest.numClasses, noise, seed };
  const opened = await PortableEngine.open(options.ort, manifest, bundle.files, options.numThreads ?? 1);
  const engine = new GuardedEngine(opened, manifest);
  const next = await shards(engine, part, manifest.featureShape, 1, "train").next();
  if (next.done) throw new Error("a device has training samples");
  const shard = next.value;
  const encoded = encodedShard(shard, part);
  const levels = config.compress ? levelFeatures(config.codec, manifest.featureShape) : undefined;
  const body = await wireBody(encoded, levels, config.compress ? options.compress : undefined);
  const shardBytes = body.data.length;
  const { content } = shard;
  const num = content.labels.length;
  const numSamples = data.train.labels.length + data.validation.labels.length;
  const roundBytes = Math.round((shardBytes / num) * numSamples);
  const spread = deviation(content.features);
  const features = `float32 [${[num, ...manifest.featureShape].join(", ")}], sent as ${config.codec}`;
  const tensors: Record<string, string> = {
    sample_ids: `int64 [${num}]`,
    features,
    client_logits: `float32 [${num}, ${manifest.numClasses}]`,
    labels: `int64 [${num}]`,
  };
  if (content.outside) tensors.features_outside = `float32 [${content.outside.length}]`;
  return {
    engine: engine.name,
    tap: describedTap(manifest, config.codec),
    leaves: [
      `feature maps: ${whatOf(engine)}. They show much of the image${blurring(noise, spread)}`,
      ...(cropsFeatures(config)
        ? ["the feature of black, one vector: what the server pads cropped features with"]
        : []),
      "labels of all training and validation images, as they are",
      "the device's predictions (logits) for them",
      "sample ids (numbers), sample counts, training loss, accuracy and speed",
      "the device's name, with a secret that keeps it, and the names of the classes, as they are",
    ],
    stays: ["the images themselves", "all weights of the device's network, extractor included"],
    tensors,
    num_train_samples: data.train.labels.length,
    num_validation_samples: data.validation.labels.length,
    shard_bytes: shardBytes,
    round_bytes: roundBytes,
    run_bytes: roundBytes * UploadSchedule.parse(config.uploads).numUploads(config.rounds),
    rounds: config.rounds,
    codec: config.codec,
    compressed: body.encoding !== "",
    encoding: body.encoding,
    feature_clip: noise.clip,
    feature_noise: noise.noise,
    feature_spread: spread,
  };
}

function whatOf(engine: GuardedEngine): string {
  if (engine.isKnown) return `${engine.knownAs} for every image, which this device has computed itself as well`;
  return `for every image, what the first layers make of it; ${engine.stranger}`;
}

function blurring(noise: FeatureNoise, spread: number): string {
  if (!noise.isOn) return "";
  const parts = noise.clip ? [`limited to -${general(noise.clip)}..${general(noise.clip)}`] : [];
  if (noise.noise) {
    const share = spread ? `, ${general(noise.noise / spread, 2)} times their own` : "";
    parts.push(`with Gaussian noise of deviation ${general(noise.noise)}${share}`);
  }
  return `; ${parts.join(" and ")}. Labels and predictions travel as they are`;
}

function deviation(values: Float32Array): number {
  let [sum, squares] = [0, 0];
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  const mean = sum / values.length;
  return Math.sqrt(Math.max(0, squares / values.length - mean * mean));
}
