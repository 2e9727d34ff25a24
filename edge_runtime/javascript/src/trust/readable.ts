/** How much of the pixels of noise a linear map can read off its features; `edge_runtime/trust/features.py`. */

import type { FeatureShape } from "../wire/codec.js";

export const PLACES_A_CHANNEL = 8;
const LEAST_TO_COMPARE = 24;
const PIXELS_TO_COMPARE = 64;
/** Columns of a matrix, each as long as it has rows. */
type Columns = Float64Array[];

/**
 * Say how well the best-readable pixel of noise follows from the features of its place, linearly.
 *
 * @param noise `[n, 3, S, S]`, each value drawn by itself.
 * @param features `[n, C, H, W]` of it.
 * @returns The largest coefficient of determination, 0..1, over pixels around a place and their channels; where there
 *   are too few places for that, the largest of one feature and one pixel, anywhere.
 */
export function readableShare(noise: Float32Array, side: number, features: Float32Array, shape: FeatureShape): number {
  const [channels, height, width] = shape;
  const num = noise.length / (3 * side * side);
  const stride = Math.floor(side / height);
  const inner = height - 2;
  const rows = num * Math.max(inner, 0) ** 2;
  if (height !== width || side % height || rows < PLACES_A_CHANNEL * channels) {
    return copiedShare(noise, features, num);
  }
  const base = orthonormal(
    columns(channels, rows, (channel, row) => {
      const [image, y, x] = place(row, inner);
      return features[((image * channels + channel) * height + y + 1) * width + x + 1];
    }),
  );
  const free = rows / (rows - channels - 1);
  let most = 0;
  for (let down = -1; down <= stride; down++) {
    for (let right = -1; right <= stride; right++) {
      const pixels = columns(3, rows, (colour, row) => {
        const [image, y, x] = place(row, inner);
        return noise[((image * 3 + colour) * side + (y + 1) * stride + down) * side + (x + 1) * stride + right];
      });
      for (const pixel of pixels) {
        const explained = base.reduce((sum, each) => sum + dot(each, pixel) ** 2, 0) / dot(pixel, pixel);
        // As many channels explain some of anything: that part is taken off.
        most = Math.max(most, 1 - (1 - explained) * free);
      }
    }
  }
  return most;
}

/** Compare some pixels with every feature, over the images: of few images much is alike by chance. */
function copiedShare(noise: Float32Array, features: Float32Array, num: number): number {
  if (num < LEAST_TO_COMPARE) return 0;
  const [numPixels, numFeatures] = [noise.length / num, features.length / num];
  const step = Math.max(1, Math.floor(numPixels / PIXELS_TO_COMPARE));
  const pixels = columns(Math.ceil(numPixels / step), num, (pixel, image) => noise[image * numPixels + pixel * step]);
  let most = 0;
  for (let feature = 0; feature < numFeatures; feature++) {
    const [values] = columns(1, num, (_, image) => features[image * numFeatures + feature]);
    const length = Math.max(dot(values, values), 1e-24);
    for (const pixel of pixels) most = Math.max(most, dot(pixel, values) ** 2 / length / dot(pixel, pixel));
  }
  return most;
}

function place(row: number, inner: number): [number, number, number] {
  return [Math.floor(row / inner ** 2), Math.floor(row / inner) % inner, row % inner];
}

/** Make columns, each less its mean. */
function columns(num: number, rows: number, value: (column: number, row: number) => number): Columns {
  return Array.from({ length: num }, (_, column) => {
    const values = Float64Array.from({ length: rows }, (_, row) => value(column, row));
    const mean = values.reduce((sum, each) => sum + each, 0) / rows;
    return values.map((each) => each - mean);
  });
}

/** Give orthonormal columns that span those of the matrix (Gram and Schmidt, twice). */
function orthonormal(matrix: Columns): Columns {
  const largest = Math.max(1e-30, ...matrix.map((column) => dot(column, column)));
  const base: Columns = [];
  for (const column of matrix) {
    const rest = column.slice();
    for (let pass = 0; pass < 2; pass++) {
      for (const each of base) {
        const share = dot(each, rest);
        for (let row = 0; row < rest.length; row++) rest[row] -= share * each[row];
      }
    }
    const length = dot(rest, rest);
    if (length > largest * 1e-10) base.push(rest.map((each) => each / Math.sqrt(length)));
  }
  return base;
}

function dot(one: Float64Array, other: Float64Array): number {
  let sum = 0;
  for (let row = 0; row < one.length; row++) sum += one[row] * other[row];
  return sum;
}
