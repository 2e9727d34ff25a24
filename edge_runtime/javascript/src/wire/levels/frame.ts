/** A feature shard as it travels: as it is, as one Zstandard frame, or with its levels coded; `docs/levels-format.md`. */

import { joined } from "../../hashing.js";
import { CODEC_BITS, type FeatureShape } from "../codec.js";
import { encodeLevels, layoutOf, type Layout } from "./coder.js";
import { channelBytes, symbolsOf } from "./packing.js";
import { storedFrame } from "./stored.js";

export const LEVELS_ENCODING = "gkt-levels";
const HEAD_BYTES = 40;
const FEW_BYTES = 1 << 14;

/** Compresses to one Zstandard frame. */
export type Compress = (data: Uint8Array) => Promise<Uint8Array>;

/** The levels that a run's features have. */
export interface LevelFeatures {
  readonly shape: FeatureShape;
  readonly layout: Layout;
}

/** A shard as it travels. */
export interface WireBody {
  readonly data: Uint8Array;
  /** Its content encoding; empty for none. */
  readonly encoding: string;
}

/** Say what levels features have in such a run; undefined where they are not coded. */
export function levelFeatures(codec: string, shape: FeatureShape): LevelFeatures | undefined {
  const bits = CODEC_BITS[codec];
  const layout = bits <= 4 ? layoutOf(bits, shape) : undefined;
  return layout && { shape, layout };
}

/**
 * Make a feature shard ready to travel.
 *
 * @param levels What its levels are, if they are to be coded.
 * @param compress Zstandard; where there is none, a shard without levels goes as it is.
 */
export async function wireBody(
  shard: Uint8Array,
  levels: LevelFeatures | undefined,
  compress: Compress | undefined,
): Promise<WireBody> {
  const squeezed = async (): Promise<WireBody> =>
    compress ? { data: await compress(shard), encoding: "zstd" } : { data: shard, encoding: "" };
  if (!levels) return squeezed();
  const { begin, end, num } = placeOf(shard);
  const frame = await writeFrame(shard, begin, num, levels, compress ?? storedFrame);
  const coded = { data: frame, encoding: LEVELS_ENCODING };
  if (end - begin >= FEW_BYTES) return coded;
  // Tables may take more than they save.
  const other = await squeezed();
  return other.data.length <= coded.data.length ? other : coded;
}

/** Code the levels of a shard, whose packed levels begin at a byte. */
export async function writeFrame(
  shard: Uint8Array,
  begin: number,
  numSamples: number,
  { shape, layout }: LevelFeatures,
  compress: Compress,
): Promise<Uint8Array> {
  const [channels, height, width] = shape;
  const end = begin + numSamples * channels * channelBytes(height * width, layout.bits);
  const rest = await compress(joined([shard.subarray(0, begin), shard.subarray(end)]));
  const lanes = numSamples * layout.lanes;
  const known = new Uint8Array(2 * lanes);
  known.set(rest.subarray(0, known.length));
  const begins = Uint16Array.from({ length: lanes }, (_, lane) => known[2 * lane] | (known[2 * lane + 1] << 8));
  const coded = encodeLevels(symbolsOf(shard.subarray(begin, end), layout.bits), layout, begins);
  const table = await compress(coded.table);
  const head = new DataView(new ArrayBuffer(HEAD_BYTES));
  head.setUint32(0, 0x474b4c56);
  [1, layout.bits, coded.mode, 0].forEach((each, index) => head.setUint8(4 + index, each));
  [numSamples, ...shape, coded.words.length, table.length, rest.length, begin].forEach((each, index) =>
    head.setUint32(8 + 4 * index, each, true),
  );
  const states = new DataView(new ArrayBuffer(4 * coded.states.length));
  coded.states.forEach((state, lane) => states.setUint32(4 * lane, state, true));
  const words = new DataView(new ArrayBuffer(2 * coded.words.length));
  coded.words.forEach((word, index) => words.setUint16(2 * index, word, true));
  return joined([head, table, rest.subarray(known.length), states, words].map(bytesOf));
}

function bytesOf(view: DataView | Uint8Array): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Find the features in a shard of one's own. */
function placeOf(shard: Uint8Array): { readonly begin: number; readonly end: number; readonly num: number } {
  const length = Number(new DataView(shard.buffer, shard.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(shard.subarray(8, 8 + length))) as {
    readonly features: { readonly shape: readonly number[]; readonly data_offsets: readonly [number, number] };
  };
  const { shape, data_offsets: offsets } = header.features;
  return { begin: 8 + length + offsets[0], end: 8 + length + offsets[1], num: shape[0] };
}
