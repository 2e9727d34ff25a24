/** What would leave this device, and a picture of what its receiver could make of that; nothing is sent. */

import { toFloatNchw, range } from "../data/augment.js";
import { PortableEngine } from "../engine/portable.js";
import { GuardedEngine } from "../trust/features.js";
import { rebuilt } from "../trust/rebuilt.js";
import { decode, encode } from "../wire/codec.js";
import { newKey } from "../wire/feature-noise.js";
import { dryRun, type DryRun, type DryRunOptions } from "./dry-run.js";

const MOST_SHOWN = 4;
const MOST_FITTED = 64;

/** One image beside what could be made of its features. */
export interface Pair {
  /** `[3, S, S]` in 0..1. */
  readonly image: Float32Array;
  readonly rebuilt: Float32Array;
}

/** A dry run with pictures. */
export interface Preview {
  readonly dry: DryRun;
  /** Empty where features have no place in the image. */
  readonly pairs: readonly Pair[];
  /** Share of the variance of the pixels that is in what was rebuilt, 0..1. */
  readonly explained: number;
}

/**
 * Do a dry run, and rebuild some of the device's images from their features as the server would decode them.
 *
 * @throws UnsafeModelError As of {@link dryRun}.
 */
export async function preview(options: DryRunOptions): Promise<Preview> {
  const dry = await dryRun(options);
  const { bundle, data, config } = options;
  const { manifest } = bundle;
  const opened = await PortableEngine.open(options.ort, manifest, bundle.files, options.numThreads ?? 1);
  const engine = new GuardedEngine(opened, manifest);
  const rows = range(0, Math.min(data.train.labels.length, MOST_SHOWN + MOST_FITTED));
  const images = toFloatNchw(data.train.images, rows);
  const { features } = await engine.predict(images);
  const sampleIds = data.train.sampleIds.slice(0, rows.length);
  const blurred = options.noise.withKey(newKey()).blur(features, sampleIds, 1);
  const arrived = decode(encode(blurred, manifest.featureShape, config.codec), manifest.featureShape);
  const numShown = Math.min(MOST_SHOWN, Math.floor(rows.length / 2));
  const made = rebuilt(images, manifest.imageSize, arrived, manifest.featureShape, numShown);
  const values = 3 * manifest.imageSize ** 2;
  const pairs = (made?.images ?? []).map((each, index) => ({
    image: images.slice(index * values, (index + 1) * values),
    rebuilt: each,
  }));
  return { dry, pairs, explained: made?.explained ?? 0 };
}
