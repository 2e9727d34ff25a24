/** Levels of 1 to 4 bits as bytes, low bits first, and as symbols of at most four bits; `gkt_core/wire/levels/packing.py`. */

/** So many neighbouring levels fill so many whole bytes. */
const GROUPS: Readonly<Record<number, readonly [levels: number, bytes: number]>> = {
  1: [8, 1],
  2: [4, 1],
  3: [8, 3],
  4: [2, 1],
};

/** Say how many neighbouring levels share how many bytes. */
export function groupOf(bits: number): readonly [levels: number, bytes: number] {
  return GROUPS[bits];
}

/** Say how many bytes the levels of one channel take. */
export function channelBytes(pixels: number, bits: number): number {
  const [inGroup, numBytes] = GROUPS[bits];
  return Math.ceil(pixels / inGroup) * numBytes;
}

/** Pack levels, channel by channel of so many pixels; what is left of a channel's last bytes stays 0. */
export function pack(levels: Uint8Array, pixels: number, bits: number): Uint8Array {
  const size = channelBytes(pixels, bits);
  const packed = new Uint8Array((levels.length / pixels) * size);
  for (let index = 0, begin = 0; index < levels.length; index += pixels, begin += size) {
    for (let pixel = 0; pixel < pixels; pixel++) {
      const bit = pixel * bits;
      const wide = levels[index + pixel] << (bit & 7);
      packed[begin + (bit >> 3)] |= wide;
      // A level of three bits may reach over the end of a byte.
      if (wide > 255) packed[begin + (bit >> 3) + 1] |= wide >> 8;
    }
  }
  return packed;
}

/** Undo {@link pack}. */
export function unpack(packed: Uint8Array, pixels: number, bits: number): Uint8Array {
  const size = channelBytes(pixels, bits);
  const levels = new Uint8Array((packed.length / size) * pixels);
  const mask = (1 << bits) - 1;
  for (let index = 0, begin = 0; index < levels.length; index += pixels, begin += size) {
    for (let pixel = 0; pixel < pixels; pixel++) {
      const bit = pixel * bits;
      const place = begin + (bit >> 3);
      levels[index + pixel] = ((packed[place] | ((packed[place + 1] ?? 0) << 8)) >> (bit & 7)) & mask;
    }
  }
  return levels;
}

/** Say how many neighbouring levels of a row are one symbol: those of 1 and 2 bits that fill four. */
export function levelsInSymbol(bits: number): number {
  return bits < 3 ? 4 / bits : 1;
}

/** Give the symbols of packed bytes: their halves, or of 3 bits the levels. */
export function symbolsOf(packed: Uint8Array, bits: number): Uint8Array {
  return bits === 3 ? unpack(packed, (packed.length * 8) / 3, 3) : unpack(packed, packed.length * 2, 4);
}
