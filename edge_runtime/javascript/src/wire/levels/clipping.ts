/** Where the few levels of 1 to 3 bits lie: at the percentiles that round a channel's values least; `clipping.py`. */

import { roundHalfEven } from "../../numbers.js";

/** Shares of a channel's values that may be clipped at an end. */
const SHARES = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5];
const LOOKED_AT = 2048;
const TINIEST_FLOAT = 1.1754943508222875e-38;

/** The values of a channel's first and last level. */
export type Range = readonly [low: number, high: number];

/**
 * Choose the values of the first and the last level of a channel.
 *
 * @param values All values of the channel, in the order of the samples, finite.
 * @param range The least and the greatest of them.
 * @param levels The last level, which is as many steps from the first.
 */
export function clippedRange(values: Float32Array, range: Range, levels: number): Range {
  // An odd step takes columns in turn, where rows have an even number of them.
  const step = Math.ceil(values.length / LOOKED_AT) | 1;
  const lookedAt = Float64Array.from({ length: Math.ceil(values.length / step) }, (_, index) => values[index * step]);
  lookedAt.sort();
  const last = lookedAt.length - 1;
  const highs = SHARES.map((share) => lookedAt[roundHalfEven((1 - share) * last)]);
  const lows = SHARES.map((share) => lookedAt[roundHalfEven(share * last)]);
  let best = range;
  let bestError = errorOf(lookedAt, best, levels);
  // The upper end first: of features behind a ReLU the lower one is at 0 already.
  for (const [isHigh, candidates] of [[true, highs] as const, [false, lows] as const, [true, highs] as const]) {
    for (const each of candidates) {
      const chosen: Range = isHigh ? [best[0], each] : [each, best[1]];
      const error = chosen[1] > chosen[0] ? errorOf(lookedAt, chosen, levels) : Infinity;
      if (error < bestError) [best, bestError] = [chosen, error];
    }
  }
  return best;
}

/** Sum the squares of what rounding to levels changes. */
function errorOf(values: Float64Array, [low, high]: Range, levels: number): number {
  const step = Math.max((high - low) / levels, TINIEST_FLOAT);
  // In steps: squares of large values would overflow.
  const squares = values.map((value) => {
    const place = (value - low) / step;
    return (place - Math.min(levels, Math.max(0, roundHalfEven(place)))) ** 2;
  });
  return sumOf(squares, 0, squares.length) * step * step;
}

/** Sum as numpy does, in pairs, so that equal values are equal in both languages. */
function sumOf(values: Float64Array, begin: number, num: number): number {
  if (num < 8) {
    let sum = num ? values[begin] : 0;
    for (let index = 1; index < num; index++) sum += values[begin + index];
    return sum;
  }
  if (num > 128) {
    let half = Math.floor(num / 2);
    half -= half % 8;
    return sumOf(values, begin, half) + sumOf(values, begin + half, num - half);
  }
  const sums = values.slice(begin, begin + 8);
  const whole = num - (num % 8);
  for (let index = 8; index < whole; index += 8) {
    for (let lane = 0; lane < 8; lane++) sums[lane] += values[begin + index + lane];
  }
  let sum = sums[0] + sums[1] + (sums[2] + sums[3]) + (sums[4] + sums[5] + (sums[6] + sums[7]));
  for (let index = whole; index < num; index++) sum += values[begin + index];
  return sum;
}
