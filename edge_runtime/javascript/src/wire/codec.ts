/** Features <-> arrays that travel: fp32, fp16, whole numbers of 8 to 1 bits, a scale a channel; `gkt_core/wire/codec.py`. */

import { CodecError } from "../errors.js";
import { allFinite, fromHalf, roundHalfEven, toHalf } from "../numbers.js";
import { clippedRange } from "./levels/clipping.js";
import { channelBytes, pack, unpack } from "./levels/packing.js";

export const CODEC_BITS: Readonly<Record<string, number>> = {
  fp32: 32,
  fp16: 16,
  uint8: 8,
  uint4: 4,
  uint3: 3,
  uint2: 2,
  uint1: 1,
};
export type FeatureShape = readonly [channels: number, height: number, width: number];

/** Whose few levels lie where they round least; those of the others reach from the least value to the greatest. */
const MOST_CLIPPED_BITS = 3;
const LARGEST_HALF = 65504;
const LARGEST_FLOAT = 3.4028234663852886e38;
const TINIEST_FLOAT = 1.1754943508222875e-38;

/** Features as they travel. */
export interface EncodedFeatures {
  readonly codec: string;
  /** In the codec's type; of 4 bits and fewer several neighbours a byte, the first one in its lowest bits. */
  readonly values: Float32Array | Uint16Array | Uint8Array;
  /** Shape of one sample as it travels. */
  readonly sampleShape: readonly number[];
  /** `[C]`: the step between two levels of each channel; ones for floats. */
  readonly scale: Float32Array;
  /** `[C]`: the value of level 0 of each channel; zeros for floats. */
  readonly offset: Float32Array;
}

/**
 * Encode features `[N, C, H, W]`, row-major.
 *
 * @throws CodecError The codec is unknown, or the features are ill-shaped, not finite or beyond its range.
 */
export function encode(features: Float32Array, shape: FeatureShape, codec: string): EncodedFeatures {
  const [channels, height, width] = shape;
  const pixels = height * width;
  if (!Object.hasOwn(CODEC_BITS, codec)) {
    throw new CodecError(
      `unknown codec '${codec.slice(0, 40)}', expected one of ${Object.keys(CODEC_BITS).join(", ")}`,
    );
  }
  if (codec === "uint4" && pixels % 2) {
    throw new CodecError(`uint4 packs pairs of pixels and cannot pack ${height}x${width}: choose uint8`);
  }
  if (!features.length || features.length % (channels * pixels)) {
    throw new CodecError(`${features.length} features, expected a multiple of ${channels}x${height}x${width}`);
  }
  if (!allFinite(features)) {
    throw new CodecError("features hold NaN or infinity: the local training diverged, lower edge_lr");
  }
  const scale = new Float32Array(channels).fill(1);
  const offset = new Float32Array(channels);
  if (codec === "fp32") return { codec, values: features.slice(), sampleShape: shape, scale, offset };
  if (codec === "fp16") {
    const largest = features.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    if (largest > LARGEST_HALF) {
      throw new CodecError(`features reach ${largest.toPrecision(3)}, beyond fp16: choose fp32 or uint8`);
    }
    return { codec, values: Uint16Array.from(features, toHalf), sampleShape: shape, scale, offset };
  }
  const bits = CODEC_BITS[codec];
  chooseScales(features, channels, pixels, bits, scale, offset);
  const levels = quantised(features, channels, pixels, 2 ** bits - 1, scale, offset);
  if (bits === 8) return { codec, values: levels, sampleShape: shape, scale, offset };
  const sampleShape = [channels, channelBytes(pixels, bits)];
  return { codec, values: pack(levels, pixels, bits), sampleShape, scale, offset };
}

/** Decode to features `[N, C, H, W]`: what the server sees. */
export function decode(encoded: EncodedFeatures, shape: FeatureShape): Float32Array {
  const [channels, height, width] = shape;
  const pixels = height * width;
  const { values, scale, offset } = encoded;
  if (encoded.codec === "fp32") return Float32Array.from(values);
  if (encoded.codec === "fp16") return Float32Array.from(values, fromHalf);
  const bits = CODEC_BITS[encoded.codec];
  const levels = bits === 8 ? values : unpack(values as Uint8Array, pixels, bits);
  const decoded = new Float32Array(levels.length);
  for (let index = 0; index < levels.length; index++) {
    const channel = Math.floor(index / pixels) % channels;
    decoded[index] = Math.fround(levels[index] * scale[channel]) + offset[channel];
  }
  return decoded;
}

function chooseScales(
  features: Float32Array,
  channels: number,
  pixels: number,
  bits: number,
  scale: Float32Array,
  offset: Float32Array,
): void {
  const levels = 2 ** bits - 1;
  for (let channel = 0; channel < channels; channel++) {
    const values = ofChannel(features, channels, pixels, channel);
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (bits <= MOST_CLIPPED_BITS) [low, high] = clippedRange(values, [low, high], levels);
    // In float64, so that the difference of large values neither overflows nor rounds to no levels.
    const step = (high - low) / levels;
    scale[channel] = Math.max(Math.fround(step > 0 ? step : 1), TINIEST_FLOAT);
    offset[channel] = low;
    // Decoding multiplies before it adds: both the product and the sum must fit.
    const span = scale[channel] * levels;
    if (!(Math.max(span, Math.abs(span + offset[channel])) < LARGEST_FLOAT)) {
      throw new CodecError("the features of a channel span more than float32 can decode: choose fp32");
    }
  }
}

/** Give a channel's values, in the order of the samples. */
function ofChannel(features: Float32Array, channels: number, pixels: number, channel: number): Float32Array {
  const values = new Float32Array(features.length / channels);
  for (let to = 0, from = channel * pixels; to < values.length; to += pixels, from += channels * pixels) {
    values.set(features.subarray(from, from + pixels), to);
  }
  return values;
}

function quantised(
  features: Float32Array,
  channels: number,
  pixels: number,
  levels: number,
  scale: Float32Array,
  offset: Float32Array,
): Uint8Array {
  const result = new Uint8Array(features.length);
  for (let begin = 0, channel = 0; begin < features.length; begin += pixels, channel = (channel + 1) % channels) {
    const [step, low] = [scale[channel], offset[channel]];
    for (let index = begin; index < begin + pixels; index++) {
      // Each operation in float32, as numpy has it.
      const quotient = Math.fround(Math.fround(features[index] - low) / step);
      result[index] = Math.min(levels, Math.max(0, roundHalfEven(quotient)));
    }
  }
  return result;
}
