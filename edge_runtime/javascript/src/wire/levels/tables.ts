/** Frequencies of symbols as they travel: a byte each, which says them within some percent; `tables.py`. */

import { argmax } from "../../numbers.js";
import { WIDTH } from "./contexts.js";

export const TOTAL = 4096;
/** Byte v > 0 stands for this weight: eight steps to a factor of two, from 1 to the sum of all frequencies. */
const WEIGHTS = Array.from({ length: 97 }, (_, step) => (8 + (step % 8)) * 2 ** Math.floor(step / 8));
const BORDERS = WEIGHTS.slice(1).map((weight, step) => Math.floor((weight + WEIGHTS[step]) / 2));

/** Write how often symbols occurred, `[contexts, 16]`; what occurred keeps a frequency above 0. */
export function tableBytes(counts: Float64Array): Uint8Array {
  const written = new Uint8Array(counts.length);
  for (let begin = 0; begin < counts.length; begin += WIDTH) {
    const sum = Math.max(1, total(counts, begin));
    for (let place = begin; place < begin + WIDTH; place++) {
      if (!counts[place]) continue;
      const wanted = Math.floor((counts[place] * 8 * TOTAL) / sum);
      written[place] = BORDERS.filter((border) => border <= wanted).length + 1;
    }
  }
  return written;
}

/** Make frequencies `[contexts, 16]`, each row a sum of {@link TOTAL}, in whole numbers. */
export function readTable(written: Uint8Array): Uint16Array {
  const shares = new Uint16Array(written.length);
  const weights = Float64Array.from(written, (each) => (each ? WEIGHTS[each - 1] : 0));
  for (let begin = 0; begin < written.length; begin += WIDTH) {
    const sum = total(weights, begin);
    if (!sum) {
      shares[begin] = TOTAL;
      continue;
    }
    for (let place = begin; place < begin + WIDTH; place++) {
      if (weights[place]) shares[place] = Math.max(1, Math.floor((weights[place] * TOTAL) / sum));
    }
    const lack = TOTAL - total(shares, begin);
    shares[begin + argmax(shares, begin, begin + WIDTH)] += lack;
  }
  return shares;
}

function total(values: Float64Array | Uint16Array, begin: number): number {
  let sum = 0;
  for (let place = begin; place < begin + WIDTH; place++) sum += values[place];
  return sum;
}
