/**
 * Augmented views: a pure function of (seed, sample_id, round_num), the bits of `gkt_core/data/augment.py`.
 *
 * The server's soft labels belong to one view of an image, so a view can be drawn again at any time, in any order,
 * for any subset of samples.
 */

const MASK = (1n << 64n) - 1n;
const GOLDEN_GAMMA = 0x9e3779b97f4a7c15n;
const LOW_24 = 0xffffffn;
const ORDER = 0x6f72646572n;

/** Images `[N, S, S, 3]` of bytes, row-major. */
export interface Images {
  readonly pixels: Uint8Array;
  /** Height and width. */
  readonly size: number;
}

/** What says how views are drawn. */
export interface ViewOptions {
  readonly seed: bigint;
  readonly roundNum: number | bigint;
  /** Pixels of padding on each side; 0 for no crop. */
  readonly cropPadding: number;
  /** Whether half of the views are mirrored. */
  readonly horizontalFlip: boolean;
}

/** Mix bits; the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
function mix(state: bigint): bigint {
  state = ((state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  state = ((state ^ (state >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return state ^ (state >> 31n);
}

/** Hash the name of each view of the samples to 64 uniform bits. */
export function viewHash(seed: bigint, sampleIds: Iterable<bigint>, roundNum: number | bigint): bigint[] {
  const begin = mix((BigInt.asUintN(64, seed) + GOLDEN_GAMMA) & MASK);
  const round = BigInt.asUintN(64, BigInt(roundNum));
  return Array.from(sampleIds, (id) => {
    const state = mix(((begin ^ BigInt.asUintN(64, id)) + GOLDEN_GAMMA) & MASK);
    return mix(((state ^ round) + GOLDEN_GAMMA) & MASK);
  });
}

/** Say which part of a padded image a view is: its first row and column, and whether it is mirrored. */
export interface ViewPlace {
  readonly top: number;
  readonly left: number;
  readonly flip: boolean;
}

/** Find the place of each view. */
export function viewPlaces(sampleIds: Iterable<bigint>, options: ViewOptions): ViewPlace[] {
  const offsets = BigInt(2 * options.cropPadding + 1);
  return viewHash(options.seed, sampleIds, options.roundNum).map((bits) => ({
    top: Number((bits & LOW_24) % offsets),
    left: Number(((bits >> 24n) & LOW_24) % offsets),
    flip: options.horizontalFlip && bits >> 63n === 1n,
  }));
}

const SCALED = Float32Array.from({ length: 256 }, (_, level) => level / 255);

/**
 * Draw the view of some images that belongs to a round (section 4.1: random crop and flip), padded with black.
 *
 * @param rows Which images.
 * @param sampleIds Of all images.
 * @returns `[n, 3, S, S]` in 0..1.
 */
export function augmentedView(
  images: Images,
  rows: readonly number[],
  sampleIds: BigInt64Array,
  options: ViewOptions,
): Float32Array {
  const { size, pixels } = images;
  const area = size * size;
  const view = new Float32Array(rows.length * 3 * area);
  viewPlaces(
    rows.map((row) => sampleIds[row]),
    options,
  ).forEach(({ top, left, flip }, index) => {
    for (let y = 0; y < size; y++) {
      const sourceY = y + top - options.cropPadding;
      if (sourceY < 0 || sourceY >= size) continue;
      for (let x = 0; x < size; x++) {
        const sourceX = (flip ? size - 1 - x : x) + left - options.cropPadding;
        if (sourceX < 0 || sourceX >= size) continue;
        const source = ((rows[index] * size + sourceY) * size + sourceX) * 3;
        const target = index * 3 * area + y * size + x;
        for (let colour = 0; colour < 3; colour++) view[target + colour * area] = SCALED[pixels[source + colour]];
      }
    }
  });
  return view;
}

/** Make of some images, as they are, what networks take: `[n, 3, S, S]` in 0..1. */
export function toFloatNchw(images: Images, rows: readonly number[]): Float32Array {
  const { size, pixels } = images;
  const area = size * size;
  const result = new Float32Array(rows.length * 3 * area);
  rows.forEach((row, index) => {
    for (let place = 0; place < area; place++) {
      for (let colour = 0; colour < 3; colour++) {
        result[(index * 3 + colour) * area + place] = SCALED[pixels[(row * area + place) * 3 + colour]];
      }
    }
  });
  return result;
}

/**
 * Give the order in which one epoch visits the samples, the same on every machine.
 *
 * @param seed Of the run, with whatever tells this owner's order from another's mixed in.
 * @param roundNum From 1.
 * @param epoch Within the round, from 1.
 */
export function batchOrder(numExamples: number, seed: bigint, roundNum: number, epoch: number): number[] {
  const numbers = range(0, numExamples);
  const keys = viewHash(seed ^ ORDER, numbers.map(BigInt), BigInt(roundNum) * 65536n + BigInt(epoch));
  // Stable, as JavaScript's sort is.
  return numbers.sort((one, other) => (keys[one] < keys[other] ? -1 : keys[one] > keys[other] ? 1 : 0));
}

/** Cut an epoch's order into batches; a last batch of one sample joins the batch before it. */
export function batches<T>(order: readonly T[], batchSize: number): T[][] {
  const cuts: number[] = [];
  for (let cut = batchSize; cut < order.length; cut += batchSize) cuts.push(cut);
  if (cuts.length && order.length - cuts[cuts.length - 1] === 1) cuts.pop();
  return [0, ...cuts].map((begin, index) => order.slice(begin, cuts[index] ?? order.length));
}

/** List the whole numbers from begin to before end. */
export function range(begin: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - begin) }, (_, index) => begin + index);
}
