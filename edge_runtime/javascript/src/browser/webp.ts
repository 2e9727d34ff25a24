/** How a WebP photo lies: browsers turn JPEG, PNG and AVIF as their EXIF says, and not all of them WebP. */

const ORIENTATION = 0x0112;
const HAS_EXIF = 0x08;

/** A photo without word of how it lies, and that word: 1 for upright, up to 8, as EXIF has it. */
export interface Lying {
  readonly photo: Blob;
  readonly orientation: number;
}

/** Take the word of how it lies out of a WebP photo; other photos stay as they are. */
export async function lying(photo: Blob): Promise<Lying> {
  const upright = { photo, orientation: 1 };
  if (textAt(new Uint8Array(await photo.slice(0, 12).arrayBuffer()), 8) !== "WEBP") return upright;
  const data = new Uint8Array(await photo.arrayBuffer());
  const view = new DataView(data.buffer);
  let orientation = 1;
  const kept: Uint8Array<ArrayBuffer>[] = [];
  for (let begin = 12; begin + 8 <= data.length;) {
    const size = view.getUint32(begin + 4, true);
    // Chunks fill whole pairs of bytes.
    const end = Math.min(data.length, begin + 8 + size + (size % 2));
    const name = textAt(data, begin);
    if (name === "EXIF") orientation = orientationOf(data.subarray(begin + 8, end));
    else kept.push(data.subarray(begin, end));
    if (name === "VP8X") data[begin + 8] &= ~HAS_EXIF;
    begin = end;
  }
  if (orientation === 1) return upright;
  view.setUint32(4, 4 + kept.reduce((sum, chunk) => sum + chunk.length, 0), true);
  return { photo: new Blob([data.subarray(0, 12), ...kept], { type: "image/webp" }), orientation };
}

/** Turn a canvas so that an image of this size, drawn at its corner, stands upright in it. */
export function turn(context: CanvasRenderingContext2D, orientation: number, width: number, height: number): void {
  const turns: Readonly<Record<number, readonly [number, number, number, number, number, number]>> = {
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  };
  const found = turns[orientation];
  if (found) context.setTransform(...found);
}

/** Read the orientation of EXIF's first directory; 1 where it says none, or nonsense. */
function orientationOf(exif: Uint8Array): number {
  // Some writers put JPEG's mark before it.
  const tiff = textAt(exif, 0) === "Exif" ? exif.subarray(6) : exif;
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.length);
  try {
    const isLittle = textAt(tiff, 0).startsWith("II");
    const directory = view.getUint32(4, isLittle);
    const num = view.getUint16(directory, isLittle);
    for (let entry = directory + 2; entry < directory + 2 + 12 * num; entry += 12) {
      if (view.getUint16(entry, isLittle) !== ORIENTATION) continue;
      const value = view.getUint16(entry + 8, isLittle);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    // Directories that lead out of the file.
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

function textAt(data: Uint8Array, begin: number): string {
  return String.fromCharCode(...data.subarray(begin, begin + 4));
}
