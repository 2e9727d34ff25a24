/** How much a device's features have changed since its last upload, on a few fixed samples; `gkt_core/rounds/drift.py`. */

import { UploadSchedule } from "../config/upload-schedule.js";
import { range, toFloatNchw } from "../data/augment.js";
import type { Engine } from "../engine/engine.js";
import type { ClientPart } from "./client-part.js";

const DRIFT_SAMPLES = 64;

/** Compute the features of a device's first samples, as the images are. */
export async function fixedFeatures(engine: Engine, part: ClientPart): Promise<Float32Array> {
  const { images, labels } = part.data.train;
  const rows = range(0, Math.min(DRIFT_SAMPLES, labels.length));
  return (await engine.predict(toFloatNchw(images, rows))).features;
}

/** Compute `|after - before| / |before|` over all values; infinite where all were 0 and are not. */
export function relativeChange(before: Float32Array, after: Float32Array): number {
  let [difference, scale] = [0, 0];
  for (let index = 0; index < before.length; index++) {
    difference += (after[index] - before[index]) ** 2;
    scale += before[index] ** 2;
  }
  if (scale === 0) return difference === 0 ? 0 : Infinity;
  return Math.sqrt(difference) / Math.sqrt(scale);
}

/**
 * Say whether a device uploads after its training in a round.
 *
 * @param lastRound The round of the last upload that the server has of it; 0 for none.
 * @param then What {@link fixedFeatures} gave for that one; undefined if it is not known.
 */
export async function uploadsNow(
  engine: Engine,
  part: ClientPart,
  roundNum: number,
  lastRound: number,
  then: Float32Array | undefined,
): Promise<boolean> {
  const schedule = UploadSchedule.parse(part.config.uploads);
  const isCompared = schedule.drift !== undefined && then !== undefined;
  const drift = isCompared ? relativeChange(then, await fixedFeatures(engine, part)) : undefined;
  return schedule.isDue(roundNum, lastRound, drift);
}
