/**
 * Photos into squares of a bundle's size, as the device in Python fits them: upright, on white, cut to the middle.
 *
 * Scaling is that of every language (`data/resize.ts`). What differs from Python: the browser's own decoders (a level here
 * and there in a JPEG), and photos of more than {@link MOST_PIXELS}, which the browser scales down first, as phones do not
 * hold larger canvases. So the same photo may be another sample on another device.
 */

import { fitted, type Fit } from "../data/resize.js";
import { lying, turn } from "./webp.js";

/** Of a canvas, what every phone holds. */
export const MOST_PIXELS = 16_000_000;
const HEIC = /\.(heic|heif|hif)$/i;

/** Why a photo was not taken. */
export type Unreadable = "heic" | "damaged";

/** A photo cannot be read. */
export class UnreadablePhotoError extends Error {
  override name = "UnreadablePhotoError";

  constructor(
    readonly reason: Unreadable,
    options?: ErrorOptions,
  ) {
    super(reason, options);
  }
}

/**
 * Read a photo.
 *
 * @returns `[S, S, 3]`, RGB.
 * @throws UnreadablePhotoError The browser cannot read it.
 */
export async function readPhoto(file: File, size: number, fit: Fit): Promise<Uint8Array> {
  let bitmap: ImageBitmap;
  const { photo, orientation } = await lying(file);
  try {
    bitmap = await createImageBitmap(photo, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch (error) {
    const isHeic = HEIC.test(file.name) || /hei[cf]/i.test(file.type);
    throw new UnreadablePhotoError(isHeic ? "heic" : "damaged", { cause: error });
  }
  try {
    const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
    const drawn = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale)));
    const [width, height] = orientation > 4 ? [drawn[1], drawn[0]] : drawn;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new UnreadablePhotoError("damaged");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, width, height);
    turn(context, orientation, drawn[0], drawn[1]);
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(bitmap, 0, 0, drawn[0], drawn[1]);
    const { data } = context.getImageData(0, 0, width, height);
    const pixels = new Uint8Array(width * height * 3);
    for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
      pixels[to] = data[from];
      pixels[to + 1] = data[from + 1];
      pixels[to + 2] = data[from + 2];
    }
    return fitted({ pixels, width, height }, size, fit);
  } finally {
    bitmap.close();
  }
}
