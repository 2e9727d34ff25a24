/** What an owner was told of the tap: which network or shape, how many bits; anything else is refused. */

import { ConfigError, UnsafeModelError } from "../errors.js";
import { featureShapeOf } from "../trust/layouts.js";
import { CODEC_BITS } from "../wire/codec.js";
import type { Manifest } from "./manifest.js";

const SHAPE = /^[1-9]\d{0,4}x[1-9]\d{0,4}x[1-9]\d{0,4}$/;
const NAME = /^[a-z][a-z0-9_-]{0,39}$/;

/** What a device accepts of a server; as it stands, any tap, of as many bits as the bundle says. */
export class TapRequirement {
  /**
   * @param requireTap Take part only if the features are those of this network, or of this shape (`16x8x8`).
   * @param maxBits Take part only if each number of the features leaves in so many bits at most.
   * @throws ConfigError The tap is neither a name nor a shape, or the bits are none.
   */
  constructor(
    readonly requireTap = "",
    readonly maxBits = 0,
  ) {
    if (requireTap && !SHAPE.test(requireTap) && !NAME.test(requireTap)) {
      throw new ConfigError(
        `--require-tap is '${requireTap.slice(0, 60)}', expected a network such as resnet8-16x8x8, or channels x height x ` +
          "width such as 16x8x8",
      );
    }
    if (!Number.isInteger(maxBits) || maxBits < 0 || maxBits > 32) {
      throw new ConfigError(`--max-bits is ${maxBits}, expected 1 to 32`);
    }
  }

  /**
   * Refuse a run whose features are others than the owner was told.
   *
   * @throws UnsafeModelError Names the run's tap and what this device was told.
   */
  check(manifest: Manifest, codec: string): void {
    const bits = CODEC_BITS[codec];
    const most = manifest.fields.max_bits;
    if (most !== null && bits > most) {
      throw new UnsafeModelError(
        `the run asks for features as ${codec}, ${bits} bits a number, and its bundle says ${most} at most: nothing was ` +
          "sent. Ask whoever runs the server; somebody between may have changed it",
      );
    }
    const hasTap = !this.requireTap || this.isTapOf(manifest);
    if (hasTap && (!this.maxBits || bits <= this.maxBits)) return;
    const wanted = this.requireTap ? [`${this.tapWords(manifest)} (--require-tap)`] : [];
    if (this.maxBits) wanted.push(`${this.maxBits} bits at most (--max-bits)`);
    throw new UnsafeModelError(
      `the run's tap is ${describedTap(manifest, codec)}; this device was told of ${wanted.join(" and ")}: nothing was ` +
        "sent. Ask whoever runs the server for a run with such a tap, or accept this one",
    );
  }

  private isTapOf(manifest: Manifest): boolean {
    const shape = manifest.featureShape.join("x");
    if (this.requireTap === manifest.edgeNetwork) {
      const known = featureShapeOf(manifest.edgeNetwork, manifest.imageSize);
      return !known || shape === known.join("x");
    }
    return this.requireTap === shape;
  }

  private tapWords(manifest: Manifest): string {
    const known = featureShapeOf(this.requireTap, manifest.imageSize);
    return known ? `${this.requireTap}, which is ${known.join("x")} here` : this.requireTap;
  }
}

/** Say what leaves: `resnet8-16x8x8, 16x8x8, 4 bits a number`. */
export function describedTap(manifest: Manifest, codec: string): string {
  return `${manifest.edgeNetwork}, ${manifest.featureShape.join("x")}, ${CODEC_BITS[codec]} bits a number`;
}
