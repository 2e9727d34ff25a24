/**
 * Levels of a shard into the words of a coder that expects each from its neighbours; `coder.py` and `rans.py`.
 *
 * A device writes frames and never reads one.
 */

import { contextTable, NUM_MODES, WIDTH } from "./contexts.js";
import { groupOf, levelsInSymbol } from "./packing.js";
import { readTable, tableBytes, TOTAL } from "./tables.js";

const LEAST_STEPS = 128;
const MOST_STEPS = 1024;
const WORD = 65_536;
/** What an entry of a table takes once it is compressed, about. */
const ENTRY_BYTES = 0.75;

/** How the symbols of samples lie in lanes. */
export interface Layout {
  readonly bits: number;
  /** Symbols of a row. */
  readonly width: number;
  /** Rows of a channel within a lane. */
  readonly rows: number;
  /** Lanes of a sample. */
  readonly lanes: number;
  /** Symbols of a lane. */
  readonly steps: number;
}

/** Lay out features `[C, H, W]`; undefined where symbols or bytes reach over an end. */
export function layoutOf(
  bits: number,
  [channels, height, width]: readonly [number, number, number],
): Layout | undefined {
  const size = levelsInSymbol(bits);
  if (width % size || (height * width) % groupOf(bits)[0]) return undefined;
  const symbols = width / size;
  const rows = Math.max(...divisors(height).filter((each) => each === 1 || each * symbols <= MOST_STEPS));
  let together = 1;
  if (rows === height) {
    const enough = divisors(channels).filter((each) => each * height * symbols >= LEAST_STEPS);
    together = enough.length ? Math.min(...enough) : channels;
  }
  const lanes = (channels / together) * (height / rows);
  return { bits, width: symbols, rows, lanes, steps: (channels * height * symbols) / lanes };
}

/** Levels as they travel. */
export interface CodedLevels {
  readonly mode: number;
  readonly table: Uint8Array;
  readonly states: Uint32Array;
  /** In the order in which the decoder takes them. */
  readonly words: Uint16Array;
}

/**
 * Code the symbols of all samples.
 *
 * @param begins A word for each lane, which the decoder gives back.
 */
export function encodeLevels(symbols: Uint8Array, layout: Layout, begins: Uint16Array): CodedLevels {
  const places = neighbours(symbols, layout);
  const counts = new Uint32Array(WIDTH ** 4);
  for (const place of places) counts[place]++;
  const { mode, table } = chosen(counts, layout.bits);
  const contexts = contextTable(layout.bits, mode).table;
  for (let index = 0; index < places.length; index++) {
    const place = places[index];
    places[index] = contexts[place >> 4] * WIDTH + (place & 15);
  }
  return { mode, table, ...coded(places, layout.steps, readTable(table), begins) };
}

/** Give each symbol with those beside it: left, above, corner and itself, four bits each. */
function neighbours(symbols: Uint8Array, { width, rows, steps }: Layout): Uint16Array {
  const places = new Uint16Array(symbols.length);
  const size = rows * width;
  for (let index = 0; index < symbols.length; index++) {
    const place = (index % steps) % size;
    const hasLeft = place % width > 0;
    const hasAbove = place >= width;
    places[index] =
      (hasLeft ? symbols[index - 1] << 12 : 0) |
      (hasAbove ? symbols[index - width] << 8 : 0) |
      (hasLeft && hasAbove ? symbols[index - width - 1] << 4 : 0) |
      symbols[index];
  }
  return places;
}

/** Choose the contexts that take the fewest bytes, their tables included. */
function chosen(counts: Uint32Array, bits: number): { readonly mode: number; readonly table: Uint8Array } {
  let best = { mode: 0, bytes: Infinity, ofMode: new Float64Array() };
  for (let mode = 0; mode < NUM_MODES; mode++) {
    const { table, num } = contextTable(bits, mode);
    const ofMode = new Float64Array(num * WIDTH);
    counts.forEach((count, place) => {
      if (count) ofMode[table[place >> 4] * WIDTH + (place & 15)] += count;
    });
    let told = 0;
    for (let begin = 0; begin < ofMode.length; begin += WIDTH) {
      const row = ofMode.subarray(begin, begin + WIDTH);
      const sum = row.reduce((one, other) => one + other, 0);
      for (const count of row) if (count) told -= count * Math.log2(count / sum);
    }
    const bytes = told / 8 + ENTRY_BYTES * ofMode.filter((count) => count > 0).length;
    if (bytes < best.bytes) best = { mode, bytes, ofMode };
  }
  return { mode: best.mode, table: tableBytes(best.ofMode) };
}

/** Code backwards, from the last step to the first, and in each step from the last lane to the first. */
function coded(
  places: Uint16Array,
  steps: number,
  frequencies: Uint16Array,
  begins: Uint16Array,
): { readonly states: Uint32Array; readonly words: Uint16Array } {
  const starts = new Uint16Array(frequencies.length);
  for (let place = 0; place < starts.length; place++) {
    starts[place] = place % WIDTH ? starts[place - 1] + frequencies[place - 1] : 0;
  }
  const states = Float64Array.from(begins, (begin) => WORD + begin);
  // A symbol writes one word at most.
  const words = new Uint16Array(places.length);
  let first = words.length;
  for (let step = steps - 1; step >= 0; step--) {
    for (let lane = states.length - 1; lane >= 0; lane--) {
      const place = places[lane * steps + step];
      const frequency = frequencies[place];
      let state = states[lane];
      if (state >= frequency * 2 ** 20) {
        words[--first] = state % WORD;
        state = Math.floor(state / WORD);
      }
      states[lane] = Math.floor(state / frequency) * TOTAL + (state % frequency) + starts[place];
    }
  }
  return { states: Uint32Array.from(states), words: words.slice(first) };
}

function divisors(number: number): number[] {
  return Array.from({ length: number }, (_, index) => index + 1).filter((each) => number % each === 0);
}
