/** Noise on features: a pure function of (key, sample_id, round_num); `gkt_core/wire/feature_noise.py` says why. */

import { ConfigError } from "../errors.js";
import { int64Bytes, joined, randomBytes, shake256 } from "../hashing.js";
import { general } from "../numbers.js";

export const KEY_BYTES = 32;
const MOST = 1_000_000;
const NAME = new TextEncoder().encode("gkt feature noise");

/** What happens to a device's features before they leave it: clipped first, then blurred. */
export class FeatureNoise {
  /**
   * @param clip Features are limited to -clip..clip; 0 for no limit.
   * @param noise Standard deviation of the Gaussian noise, in the unit of the features; 0 for none.
   * @param key The secret that the noise is drawn from.
   * @throws ConfigError A value is negative or no number.
   */
  constructor(
    readonly clip = 0,
    readonly noise = 0,
    readonly key: Uint8Array = new Uint8Array(),
  ) {
    for (const [name, value] of [
      ["--feature-clip", clip],
      ["--feature-noise", noise],
    ] as const) {
      if (!(value >= 0 && value <= MOST)) throw new ConfigError(`${name} is ${value}, expected 0 to ${MOST}`);
    }
  }

  /** Say whether features are changed at all. */
  get isOn(): boolean {
    return this.clip > 0 || this.noise > 0;
  }

  /** Say what happens, for a person. */
  get words(): string {
    return `features clipped at ${general(this.clip)} and with noise ${general(this.noise)}`;
  }

  withKey(key: Uint8Array): FeatureNoise {
    return new FeatureNoise(this.clip, this.noise, key);
  }

  /**
   * Clip and blur a copy of features `[n, ...]` as they leave the device in a round.
   *
   * @throws ConfigError There is noise, and no key to draw it from.
   */
  blur(features: Float32Array, sampleIds: BigInt64Array, roundNum: number): Float32Array {
    const changed = features.slice();
    if (this.clip) {
      const limit = Math.fround(this.clip);
      for (let index = 0; index < changed.length; index++) {
        changed[index] = Math.min(limit, Math.max(-limit, changed[index]));
      }
    }
    if (!this.noise) return changed;
    if (this.key.length !== KEY_BYTES) {
      throw new ConfigError(`the key of the feature noise has ${this.key.length} bytes, expected ${KEY_BYTES}`);
    }
    const size = changed.length / sampleIds.length;
    const deviation = Math.fround(this.noise);
    sampleIds.forEach((sampleId, row) => {
      const drawn = gaussian(this.key, sampleId, roundNum, size);
      for (let index = 0; index < size; index++) {
        const place = row * size + index;
        changed[place] = changed[place] + Math.fround(deviation * drawn[index]);
      }
    });
    return changed;
  }
}

/** Draw a sample's normal numbers of a round (Box and Muller, 1958, on SHAKE-256). */
export function gaussian(key: Uint8Array, sampleId: bigint, roundNum: number, num: number): Float32Array {
  const pairs = Math.ceil(num / 2);
  const seed = joined([NAME, key, int64Bytes(sampleId), int64Bytes(roundNum)]);
  const digest = shake256(seed, { dkLen: 8 * pairs });
  const view = new DataView(digest.buffer, digest.byteOffset, digest.length);
  const drawn = new Float32Array(2 * pairs);
  for (let index = 0; index < pairs; index++) {
    // Never 0, whose logarithm is none.
    const radius = Math.sqrt(-2 * Math.log((view.getUint32(4 * index, true) + 0.5) / 2 ** 32));
    const angle = 2 * Math.PI * ((view.getUint32(4 * (pairs + index), true) + 0.5) / 2 ** 32);
    drawn[index] = radius * Math.cos(angle);
    drawn[pairs + index] = radius * Math.sin(angle);
  }
  return drawn.subarray(0, num);
}

/** Draw a secret for one device. */
export function newKey(): Uint8Array {
  return randomBytes(KEY_BYTES);
}
