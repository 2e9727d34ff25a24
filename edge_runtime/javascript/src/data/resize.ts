/**
 * Pictures into squares, pixel for pixel as Pillow's bilinear filter does it, so that a photo is the same sample in
 * every language: https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c.
 */

import { roundHalfEven } from "../numbers.js";

export const FITS = ["crop", "pad", "stretch"] as const;
export type Fit = (typeof FITS)[number];

/** A picture in RGB, `[height, width, 3]`. */
export interface Picture {
  readonly pixels: Uint8Array;
  readonly height: number;
  readonly width: number;
}

type Box = readonly [left: number, top: number, right: number, bottom: number];
const PRECISION_BITS = 22;

/** Scale a picture to a square: cut to the middle, black added, or stretched. */
export function fitted(picture: Picture, size: number, fit: Fit): Uint8Array {
  const { width, height } = picture;
  if (width === size && height === size) return picture.pixels;
  if (fit === "crop") {
    const side = Math.min(width, height);
    const [left, top] = [Math.floor((width - side) / 2), Math.floor((height - side) / 2)];
    return resized(picture, size, size, [left, top, left + side, top + side]);
  }
  const whole: Box = [0, 0, width, height];
  if (fit === "stretch") return resized(picture, size, size, whole);
  const side = Math.max(width, height);
  // Of a line, one pixel is left.
  const innerWidth = Math.max(1, roundHalfEven((size * width) / side));
  const innerHeight = Math.max(1, roundHalfEven((size * height) / side));
  const small = resized(picture, innerWidth, innerHeight, whole);
  const [left, top] = [Math.floor((size - innerWidth) / 2), Math.floor((size - innerHeight) / 2)];
  const padded = new Uint8Array(size * size * 3);
  for (let row = 0; row < innerHeight; row++) {
    padded.set(small.subarray(row * innerWidth * 3, (row + 1) * innerWidth * 3), ((top + row) * size + left) * 3);
  }
  return padded;
}

/** Scale a part of a picture. */
function resized(picture: Picture, width: number, height: number, box: Box): Uint8Array {
  const [left, top, right, bottom] = box;
  let { pixels } = picture;
  let rowBegin = 0;
  let rowPixels = picture.width;
  const vertical = coefficients(picture.height, top, bottom, height);
  if (width !== picture.width || left !== 0 || right !== width) {
    // Rows that no row of the result is made of are left out.
    rowBegin = vertical[0].begin;
    const last = vertical[vertical.length - 1];
    const rows = last.begin + last.weights.length - rowBegin;
    const source = pixels.subarray(rowBegin * picture.width * 3, (rowBegin + rows) * picture.width * 3);
    pixels = weighted(source, rows, picture.width, coefficients(picture.width, left, right, width));
    rowPixels = width;
  }
  if (height === picture.height && top === 0 && bottom === height) return pixels.slice();
  const result = new Uint8Array(width * height * 3);
  const rowBytes = rowPixels * 3;
  vertical.forEach(({ begin, weights }, row) => {
    for (let place = 0; place < rowBytes; place++) {
      let sum = 1 << (PRECISION_BITS - 1);
      weights.forEach((weight, index) => (sum += pixels[(begin - rowBegin + index) * rowBytes + place] * weight));
      result[row * rowBytes + place] = clipped(sum);
    }
  });
  return result;
}

/** Scale each row. */
function weighted(pixels: Uint8Array, rows: number, width: number, columns: readonly Coefficients[]): Uint8Array {
  const result = new Uint8Array(rows * columns.length * 3);
  let place = 0;
  for (let row = 0; row < rows; row++) {
    for (const { begin, weights } of columns) {
      for (let colour = 0; colour < 3; colour++) {
        let sum = 1 << (PRECISION_BITS - 1);
        const source = (row * width + begin) * 3 + colour;
        for (let index = 0; index < weights.length; index++) sum += pixels[source + index * 3] * weights[index];
        result[place++] = clipped(sum);
      }
    }
  }
  return result;
}

function clipped(sum: number): number {
  return Math.min(255, Math.max(0, sum >> PRECISION_BITS));
}

/** From which pixel on a pixel of the result is made, and with which weights, in 2^-22. */
interface Coefficients {
  readonly begin: number;
  readonly weights: readonly number[];
}

function coefficients(size: number, first: number, last: number, outSize: number): Coefficients[] {
  const scale = (last - first) / outSize;
  const filterScale = Math.max(1, scale);
  return Array.from({ length: outSize }, (_, index) => {
    const center = first + (index + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - filterScale + 0.5));
    const end = Math.min(size, Math.trunc(center + filterScale + 0.5));
    const triangle: number[] = [];
    let total = 0;
    for (let place = begin; place < end; place++) {
      const weight = Math.max(0, 1 - Math.abs((place - center + 0.5) * (1 / filterScale)));
      triangle.push(weight);
      total += weight;
    }
    const weights = triangle.map((weight) =>
      Math.trunc(0.5 + (total ? weight / total : weight) * (1 << PRECISION_BITS)),
    );
    return { begin, weights };
  });
}
