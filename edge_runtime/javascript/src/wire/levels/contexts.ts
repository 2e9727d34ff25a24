/** What a symbol is expected to be, from its neighbours: `docs/levels-format.md`, `contexts.py`. */

export const WIDTH = 16;
export const NUM_MODES = 4;
const NEIGHBOURHOODS = WIDTH ** 3;
/** Borders of the unrest of a neighbourhood, by mode. */
const UNREST: Readonly<Record<number, readonly number[]>> = { 2: [1, 3], 3: [1, 2, 3, 5] };

/** Give the context of each neighbourhood, at `left * 256 + above * 16 + corner`, and their number. */
export function contextTable(bits: number, mode: number): { readonly table: Uint16Array; readonly num: number } {
  const table = new Uint16Array(NEIGHBOURHOODS);
  let most = 0;
  for (let place = 0; place < NEIGHBOURHOODS; place++) {
    const [left, above, corner] = [place >> 8, (place >> 4) & 15, place & 15];
    table[place] =
      mode === 0 ? 0 : bits < 3 ? ofSeveral(bits, mode, left, above) : ofOne(bits, mode, left, above, corner);
    most = Math.max(most, table[place]);
  }
  return { table, num: most + 1 };
}

/** A symbol of 1 and 2 bits is several levels: the last one to the left, and those above, or their sum. */
function ofSeveral(bits: number, mode: number, left: number, above: number): number {
  const last = left >> (4 - bits);
  let sum = 0;
  for (let shift = 0; shift < 4; shift += bits) sum += (above >> shift) & ((1 << bits) - 1);
  const beside = mode === 1 ? 0 : mode === 2 ? sum : above;
  return (beside << bits) | last;
}

/** A symbol of 3 and 4 bits is a level, which is guessed as LOCO-I does. */
function ofOne(bits: number, mode: number, left: number, above: number, corner: number): number {
  const between = Math.max(Math.min(left, above), Math.min(Math.max(left, above), left + above - corner));
  const guess = Math.min(between, (1 << bits) - 1);
  if (mode === 1) return guess;
  const unrest = Math.abs(left - corner) + Math.abs(above - corner);
  const borders = UNREST[mode];
  return guess * (borders.length + 1) + borders.filter((border) => border <= unrest).length;
}
