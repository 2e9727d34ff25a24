/**
 * What somebody who gets features could make of them: pixels by a linear map, fitted to images whose features are known.
 *
 * That is the least a server can do that has pictures of the kind: a ridge regression from a place's features, and those
 * around it, to the pixels there. Networks that are trained for it get further, so the result is a lower bound.
 */

import type { FeatureShape } from "../wire/codec.js";

const MOST_PLACES = 4000;
const MOST_CHANNELS_WITH_NEIGHBOURS = 64;
// Relative to the mean of the diagonal: features of dead channels would leave nothing to solve.
const RIDGE = 1e-4;

/** Images that were made of features. */
export interface Rebuilt {
  /** `[3, S, S]` in 0..1 each, as {@link toFloatNchw} has them. */
  readonly images: readonly Float32Array[];
  /** Share of the variance of the true pixels that is in them, 0..1. */
  readonly explained: number;
}

/**
 * Fit the map to all images but the first few, and make those of their features.
 *
 * @param images `[n, 3, S, S]` in 0..1.
 * @param features `[n, C, H, W]`, as they arrive.
 * @param numShown How many of the first are made; of fewer than that and one more, the map is fitted to what is shown.
 * @returns Undefined where features have no place in the image: their sides do not divide the image's.
 */
export function rebuilt(
  images: Float32Array,
  side: number,
  features: Float32Array,
  shape: FeatureShape,
  numShown: number,
): Rebuilt | undefined {
  const [channels, height, width] = shape;
  if (height !== width || side % height) return undefined;
  const num = images.length / (3 * side * side);
  const around = channels <= MOST_CHANNELS_WITH_NEIGHBOURS ? 1 : 0;
  const layout: Layout = { channels, height, around, stride: side / height, side };
  const fitted = num > numShown ? { begin: numShown, end: num } : { begin: 0, end: num };
  const weights = regression(images, features, layout, fitted.begin, fitted.end);
  const shown = Array.from({ length: Math.min(numShown, num) }, (_, image) => made(features, layout, image, weights));
  return { images: shown, explained: explained(images, shown) };
}

interface Layout {
  readonly channels: number;
  readonly height: number;
  /** Places on each side that count too. */
  readonly around: number;
  /** Pixels a place. */
  readonly stride: number;
  readonly side: number;
}

function numRegressors({ channels, around }: Layout): number {
  return channels * (2 * around + 1) ** 2 + 1;
}

/** Write the regressors of a place: its features, those around it (zeros outside), and a one. */
function place(features: Float32Array, layout: Layout, image: number, y: number, x: number, into: Float64Array): void {
  const { channels, height, around } = layout;
  let index = 0;
  for (let channel = 0; channel < channels; channel++) {
    const plane = (image * channels + channel) * height * height;
    for (let down = -around; down <= around; down++) {
      for (let right = -around; right <= around; right++) {
        const isInside = y + down >= 0 && y + down < height && x + right >= 0 && x + right < height;
        into[index++] = isInside ? features[plane + (y + down) * height + x + right] : 0;
      }
    }
  }
  into[index] = 1;
}

/** Where a pixel of a place lies in `[n, 3, S, S]`. */
function pixel({ side, stride }: Layout, image: number, y: number, x: number, output: number): number {
  const colour = Math.floor(output / stride ** 2);
  const row = Math.floor(output / stride) % stride;
  return ((image * 3 + colour) * side + y * stride + row) * side + x * stride + (output % stride);
}

/** Solve the normal equations; `[outputs][regressors]`. */
function regression(
  images: Float32Array,
  features: Float32Array,
  layout: Layout,
  begin: number,
  end: number,
): Float64Array[] {
  const { height, stride } = layout;
  const size = numRegressors(layout);
  const numOutputs = 3 * stride ** 2;
  const gram = new Float64Array(size * size);
  const mixed = Array.from({ length: numOutputs }, () => new Float64Array(size));
  const row = new Float64Array(size);
  const total = (end - begin) * height * height;
  const step = Math.max(1, Math.floor(total / MOST_PLACES));
  for (let index = 0; index < total; index += step) {
    const image = begin + Math.floor(index / (height * height));
    const [y, x] = [Math.floor(index / height) % height, index % height];
    place(features, layout, image, y, x, row);
    for (let first = 0; first < size; first++) {
      const value = row[first];
      if (value === 0) continue;
      const line = first * size;
      for (let second = 0; second <= first; second++) gram[line + second] += value * row[second];
      for (let output = 0; output < numOutputs; output++) {
        mixed[output][first] += value * images[pixel(layout, image, y, x, output)];
      }
    }
  }
  let trace = 0;
  for (let index = 0; index < size; index++) trace += gram[index * size + index];
  for (let index = 0; index < size; index++) gram[index * size + index] += (RIDGE * trace) / size + 1e-12;
  factorise(gram, size);
  for (const each of mixed) solve(gram, size, each);
  return mixed;
}

/** Replace the lower half of a positive definite matrix by its Cholesky factor. */
function factorise(matrix: Float64Array, size: number): void {
  for (let row = 0; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      let sum = matrix[row * size + column];
      for (let index = 0; index < column; index++) sum -= matrix[row * size + index] * matrix[column * size + index];
      matrix[row * size + column] =
        row === column ? Math.sqrt(Math.max(sum, 1e-30)) : sum / matrix[column * size + column];
    }
  }
}

/** Solve with that factor, in place. */
function solve(factor: Float64Array, size: number, values: Float64Array): void {
  for (let row = 0; row < size; row++) {
    for (let index = 0; index < row; index++) values[row] -= factor[row * size + index] * values[index];
    values[row] /= factor[row * size + row];
  }
  for (let row = size - 1; row >= 0; row--) {
    for (let index = row + 1; index < size; index++) values[row] -= factor[index * size + row] * values[index];
    values[row] /= factor[row * size + row];
  }
}

function made(features: Float32Array, layout: Layout, image: number, weights: readonly Float64Array[]): Float32Array {
  const { height, side } = layout;
  const result = new Float32Array(3 * side * side);
  const row = new Float64Array(numRegressors(layout));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < height; x++) {
      place(features, layout, image, y, x, row);
      weights.forEach((each, output) => {
        let sum = 0;
        for (let index = 0; index < row.length; index++) sum += each[index] * row[index];
        result[pixel(layout, 0, y, x, output)] = Math.min(1, Math.max(0, sum));
      });
    }
  }
  return result;
}

function explained(images: Float32Array, shown: readonly Float32Array[]): number {
  const num = shown.reduce((sum, each) => sum + each.length, 0);
  const mean = images.subarray(0, num).reduce((sum, value) => sum + value, 0) / num;
  let [wrong, spread, index] = [0, 0, 0];
  for (const each of shown) {
    for (const value of each) {
      wrong += (value - images[index]) ** 2;
      spread += (images[index++] - mean) ** 2;
    }
  }
  return spread ? Math.max(0, 1 - wrong / spread) : 0;
}
