/**
 * A Zstandard frame that holds data as they are (RFC 8878, 3.1.1): where a page has no Zstandard.
 *
 * No package that compresses is small enough for a page: the smallest kept one adds 185 kB. What of a frame of levels is
 * Zstandard is a hundredth of it, so that hardly a byte is lost.
 */

import { joined } from "../../hashing.js";

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];
/** One segment, whose size has four bytes. */
const DESCRIPTOR = 0xa0;
const MOST_BLOCK = 1 << 17;

/** Wrap data into one frame of raw blocks. */
export async function storedFrame(data: Uint8Array): Promise<Uint8Array> {
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, data.length, true);
  const parts: Uint8Array[] = [Uint8Array.from([...MAGIC, DESCRIPTOR]), size];
  let begin = 0;
  do {
    const block = data.subarray(begin, begin + MOST_BLOCK);
    begin += MOST_BLOCK;
    const head = (block.length << 3) | (begin >= data.length ? 1 : 0);
    parts.push(Uint8Array.from([head & 255, (head >> 8) & 255, head >> 16]), block);
  } while (begin < data.length);
  return joined(parts);
}
