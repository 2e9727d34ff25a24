/** A folder of photos, one folder a class, into a device's data; `gkt_core/data/reading/image_folder.py`. */

import { promises as fs } from "node:fs";
import path from "node:path";
import type { Manifest } from "../bundle/manifest.js";
import { checkTarget, labelOf, OWNER_KEY_BYTES, packed, type Labelled, type PackOptions } from "../data/packing.js";
import { ownerKeyOf, readPrivateData, writePrivateData, type PrivateData } from "../data/private-data.js";
import { fitted } from "../data/resize.js";
import { DatasetError } from "../errors.js";
import { joined, randomBytes, sha256Hex } from "../hashing.js";
import { printable } from "../printable.js";
import { isObject, parseJsonBytes } from "../json.js";
import { type Store, writeText } from "../state/store.js";
import { message } from "./files-store.js";
import { sharpModule } from "./packages.js";

const PACKED = "packed.npz";
const ABOUT = "packed.json";
const SUFFIXES = new Set([
  ".png",
  ".jpg",
  ".jpeg",
  ".jpe",
  ".jfif",
  ".gif",
  ".webp",
  ".avif",
  ".tif",
  ".tiff",
  ".heic",
  ".heif",
  ".hif",
]);
// Brands of ISO/IEC 23008-12, as in `gkt_core/data/reading/unknown_files.py`; the last ones are of any coding.
const HEIC = new Set(["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1", "mif2"]);
const AVIF = ["avif", "avis"];
const HEAD_BYTES = 512;
const SYSTEM = new Set(["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"]);
const MOST_PIXELS = 178_956_970;
const MOST_NAMED = 5;

/** Why files were not taken, by reason. */
type LeftOut = Map<string, string[]>;

/** A picture cannot be read; the message is the reason, and the same for all files of the kind. */
class UnreadableImageError extends Error {
  override name = "UnreadableImageError";
}

/**
 * Pack photos for a bundle, or take what was packed before if nothing changed since.
 *
 * Packed again, an image keeps its id and its part, wherever its file lies now.
 *
 * @param store The state; undefined for a guest, of whom nothing is kept.
 * @param note Told what was taken and left out, in lines.
 * @throws DatasetError The images cannot be read, or what was packed before.
 * @throws ArtifactError The bundle does not name its classes.
 */
export async function packedFolder(
  folder: string,
  manifest: Manifest,
  options: PackOptions,
  store: Store | undefined,
  note: (line: string) => void,
): Promise<PrivateData> {
  checkTarget(manifest, options, folder);
  const files = await photosOf(folder);
  const about = await aboutOf(folder, files, manifest, options);
  const before = await store?.read(PACKED);
  const earlier = before && readPrivateData(before, PACKED);
  const kept = earlier && before ? ownerKeyOf(before, PACKED) : new Uint8Array();
  if (earlier && (await noted(store)) === about) return earlier;
  if (earlier) note(`${folder}, or how it is to be packed, has changed: packed again`);
  const ownerKey = kept.length ? kept : randomBytes(OWNER_KEY_BYTES);
  const leftOut: LeftOut = new Map();
  const labelled = await read(folder, files, manifest, options, leftOut);
  for (const line of reportLines(labelled.labels.length, leftOut)) note(line);
  const data = packed(labelled, manifest.classNames, options, ownerKey, earlier);
  if (store) {
    await store.write(PACKED, writePrivateData(data, ownerKey), true);
    await writeText(
      store,
      ABOUT,
      JSON.stringify({ about, source: folder, left_out: Object.fromEntries(leftOut) }, null, 2),
    );
  }
  return data;
}

interface Found {
  readonly className: string;
  readonly file: string;
}

/** List every file of the class folders, in an order that is the same everywhere. */
async function photosOf(folder: string): Promise<Found[]> {
  const found: Found[] = [];
  try {
    for (const entry of await sortedEntries(folder)) {
      if (isSystem(entry)) continue;
      const inner = path.join(folder, entry);
      if (!(await fs.stat(inner)).isDirectory()) {
        found.push({ className: "", file: entry });
        continue;
      }
      for (const file of await filesBelow(inner, new Set([await identityOf(inner)]))) {
        found.push({ className: entry, file: path.join(entry, path.relative(inner, file)) });
      }
    }
  } catch (error) {
    throw new DatasetError(`cannot read the image folder ${folder}: ${message(error)}`, { cause: error });
  }
  return found;
}

async function filesBelow(folder: string, seen: Set<string>): Promise<string[]> {
  const files: string[] = [];
  for (const entry of await sortedEntries(folder)) {
    const child = path.join(folder, entry);
    if (isSystem(entry)) continue;
    const status = await fs.stat(child).catch(() => undefined);
    if (!status?.isDirectory()) {
      files.push(child);
      continue;
    }
    // Links may lead in a circle.
    const identity = await identityOf(child);
    if (seen.has(identity)) continue;
    seen.add(identity);
    files.push(...(await filesBelow(child, seen)));
  }
  return files;
}

async function sortedEntries(folder: string): Promise<string[]> {
  return (await fs.readdir(folder)).sort();
}

async function identityOf(folder: string): Promise<string> {
  return fs.realpath(folder);
}

function isSystem(name: string): boolean {
  return name.startsWith(".") || SYSTEM.has(name.toLowerCase());
}

async function read(
  folder: string,
  files: readonly Found[],
  manifest: Manifest,
  options: PackOptions,
  leftOut: LeftOut,
): Promise<Labelled> {
  const pixels: Uint8Array[] = [];
  const labels: bigint[] = [];
  const leave = (reason: string, name: string): void =>
    void leftOut.set(reason, [...(leftOut.get(reason) ?? []), name]);
  for (const { className, file } of files) {
    const suffix = path.extname(file).toLowerCase();
    if (!SUFFIXES.has(suffix)) {
      leave(`no image that is known (${printable(suffix) || "without a suffix"})`, file);
      continue;
    }
    const label = className ? labelOf(className, manifest.classNames, options.maps) : undefined;
    if (label === undefined) {
      leave(className ? `no class of the bundle: ${printable(className)}/` : "in no class folder", file);
      continue;
    }
    try {
      pixels.push(await readPhoto(path.join(folder, file), manifest.imageSize, options));
      labels.push(BigInt(label));
    } catch (error) {
      if (!(error instanceof UnreadableImageError)) throw error;
      leave(error.message, file);
    }
  }
  return { images: { pixels: joined(pixels), size: manifest.imageSize }, labels: BigInt64Array.from(labels) };
}

/** Read a picture: upright, on white, 8 bits a channel, square. */
async function readPhoto(file: string, size: number, options: PackOptions): Promise<Uint8Array> {
  if (await isHeic(file)) {
    throw new UnreadableImageError(
      "HEIC, which this program does not read: save it as JPEG, or pack it with gkt data pack",
    );
  }
  const sharp = await sharpModule();
  try {
    const { data, info } = await sharp(file, { failOn: "error", limitInputPixels: MOST_PIXELS, ignoreIcc: true })
      .rotate()
      .flatten({ background: "#ffffff" })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new UnreadableImageError(`${info.channels} channels, expected 3`);
    const pixels = new Uint8Array(data.buffer, data.byteOffset, data.length);
    return fitted({ pixels, width: info.width, height: info.height }, size, options.fit);
  } catch (error) {
    if (error instanceof UnreadableImageError) throw error;
    const reason = /pixel limit/.test(message(error))
      ? `more than ${MOST_PIXELS} pixels`
      : "damaged, cut short, or no image at all";
    throw new UnreadableImageError(reason, { cause: error });
  }
}

/** Say whether a file is HEIC, by its content: phones call it .jpg, and JPEG .heic, as well. */
async function isHeic(file: string): Promise<boolean> {
  const head = Buffer.alloc(HEAD_BYTES);
  try {
    const opened = await fs.open(file);
    try {
      await opened.read(head, 0, HEAD_BYTES, 0);
    } finally {
      await opened.close();
    }
  } catch {
    return false; // Whoever reads it says why it cannot be read.
  }
  if (head.toString("latin1", 4, 8) !== "ftyp") return false;
  const end = Math.min(head.readUInt32BE(0), HEAD_BYTES);
  const brands = new Set([head.toString("latin1", 8, 12)]);
  for (let begin = 16; begin + 4 <= end; begin += 4) brands.add(head.toString("latin1", begin, begin + 4));
  return [...brands].some((brand) => HEIC.has(brand)) && !AVIF.some((brand) => brands.has(brand));
}

function reportLines(taken: number, leftOut: LeftOut): string[] {
  const num = [...leftOut.values()].reduce((sum, names) => sum + names.length, 0);
  const lines = [`images taken: ${taken}; files left out: ${num}`];
  for (const [reason, names] of [...leftOut].sort()) {
    const shown = names
      .slice(0, MOST_NAMED)
      .map((name) => printable(name))
      .join(", ");
    const more = names.length > MOST_NAMED ? ` and ${names.length - MOST_NAMED} more` : "";
    lines.push(`left out, ${names.length}: ${reason}: ${shown}${more}`);
  }
  return lines;
}

/** Say what was packed, in a hash that changes when files do, or how they are to be read. */
async function aboutOf(
  folder: string,
  files: readonly Found[],
  manifest: Manifest,
  options: PackOptions,
): Promise<string> {
  const how = [
    path.resolve(folder),
    manifest.classNames,
    manifest.imageSize,
    options.fit,
    options.validationShare,
    [...options.maps],
  ];
  const lines = [JSON.stringify(how)];
  for (const { file } of files) {
    const status = await fs.stat(path.join(folder, file), { bigint: true }).catch(() => undefined);
    if (status) lines.push(`${file} ${status.size} ${status.mtimeNs}`);
  }
  return sha256Hex(lines.join("\n"));
}

async function noted(store: Store | undefined): Promise<string> {
  const data = await store?.read(ABOUT);
  try {
    const values = data && parseJsonBytes(data, "what was packed");
    return isObject(values) && typeof values.about === "string" ? values.about : "";
  } catch {
    return "";
  }
}
