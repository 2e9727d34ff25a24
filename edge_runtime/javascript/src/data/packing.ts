/** One device's data from photos that lie on it: ids and parts by what they show; `gkt_core/data/pack.py`. */

import { ArtifactError, ConfigError, DatasetError } from "../errors.js";
import { blake2b, hex, int64Bytes, joined } from "../hashing.js";
import { roundHalfEven } from "../numbers.js";
import { printable } from "../printable.js";
import type { Manifest } from "../bundle/manifest.js";
import type { Images } from "./augment.js";
import { sortedSamples, type PrivateData, type Samples } from "./private-data.js";
import type { Fit } from "./resize.js";

export const OWNER_KEY_BYTES = 32;
const LEAST = 3;

/** How a device's photos become its data. */
export interface PackOptions {
  /** What stands for a class of the bundle, by its name: dogs for dog. */
  readonly maps: ReadonlyMap<string, string>;
  readonly fit: Fit;
  /** Share of the images that is never trained on. */
  readonly validationShare: number;
}

/** Images with labels, as they were read. */
export interface Labelled {
  readonly images: Images;
  readonly labels: BigInt64Array;
}

/**
 * Number the class that a folder names, in capitals or not; undefined if it is none.
 *
 * macOS writes the same name otherwise than Linux: names are compared composed (NFC).
 */
export function labelOf(
  name: string,
  classNames: readonly string[],
  maps: ReadonlyMap<string, string>,
): number | undefined {
  const composedMaps = new Map([...maps].map(([from, to]) => [from.normalize("NFC"), to]));
  const composed = name.normalize("NFC");
  const wanted = (composedMaps.get(composed) ?? composed).normalize("NFC");
  const names = classNames.map((each) => each.normalize("NFC"));
  if (names.includes(wanted)) return names.indexOf(wanted);
  const folded = names.map((each) => each.toLowerCase());
  const same = folded.filter((each) => each === wanted.toLowerCase());
  return same.length === 1 ? folded.indexOf(wanted.toLowerCase()) : undefined;
}

/**
 * Refuse a bundle that does not name its classes, and maps that lead to none of them.
 *
 * @throws ArtifactError The bundle has no names.
 * @throws ConfigError A map leads to no class of the bundle.
 */
export function checkTarget(manifest: Manifest, options: PackOptions, source: string): void {
  if (!manifest.classNames.length) {
    throw new ArtifactError(
      `the bundle does not name its ${manifest.numClasses} classes, so that the folders in ${source} cannot be matched ` +
        "with them: export it with gkt export --classes or --split",
    );
  }
  for (const [name, className] of options.maps) {
    if (!manifest.classNames.some((each) => each.normalize("NFC") === className.normalize("NFC"))) {
      throw new ConfigError(
        `--map ${name}=${className}: there is no class ${className} in the bundle, expected one of ` +
          printable(manifest.classNames.join(", ")),
      );
    }
  }
}

/**
 * Make one device's data of images.
 *
 * @param ownerKey The owner's secret; the same one gives the same images the same ids.
 * @param before What was packed with this key before: images that were trained on stay in that part.
 * @throws DatasetError There are fewer than three images.
 */
export function packed(
  labelled: Labelled,
  classNames: readonly string[],
  options: PackOptions,
  ownerKey: Uint8Array,
  before?: PrivateData,
): PrivateData {
  const num = labelled.labels.length;
  if (num < LEAST) {
    throw new DatasetError(
      `${num} images of the bundle's classes (${printable(classNames.join(", "))}), expected at least ${LEAST}: two to ` +
        "train and one to validate; --map NAME=CLASS maps what is one of them",
    );
  }
  const digests = digestsOf(labelled.images, num, ownerKey);
  const ids = sampleIdsOf(digests);
  const held = heldOut(digests, ids, options.validationShare, before);
  return {
    train: rowsOf(labelled, ids, held, false),
    validation: rowsOf(labelled, ids, held, true),
    classNames,
  };
}

function rowsOf(labelled: Labelled, ids: BigInt64Array, held: readonly boolean[], wanted: boolean): Samples {
  const { size, pixels } = labelled.images;
  const bytes = size * size * 3;
  const rows = Array.from(held.keys()).filter((row) => held[row] === wanted);
  return sortedSamples(
    { pixels: joined(rows.map((row) => pixels.subarray(row * bytes, (row + 1) * bytes))), size },
    BigInt64Array.from(rows, (row) => labelled.labels[row]),
    BigInt64Array.from(rows, (row) => ids[row]),
  );
}

/** Hash each image with the owner's key. */
export function digestsOf(images: Images, num: number, ownerKey: Uint8Array): Uint8Array[] {
  const bytes = images.size * images.size * 3;
  return Array.from({ length: num }, (_, row) =>
    blake2b(images.pixels.subarray(row * bytes, (row + 1) * bytes), { key: ownerKey, dkLen: 32 }),
  );
}

/** Number samples by what they show, each at least 0; the second of two equal ones counts on. */
export function sampleIdsOf(digests: readonly Uint8Array[]): BigInt64Array {
  const seen = new Map<string, number>();
  const taken = new Set<bigint>();
  return BigInt64Array.from(digests, (digest) => {
    const name = hex(digest);
    let count = seen.get(name) ?? 0;
    // One in 2^63 for each pair; counted on all the same.
    while (taken.has(idOf(digest, count))) count += 1;
    const id = idOf(digest, count);
    seen.set(name, count + 1);
    taken.add(id);
    return id;
  });
}

function idOf(digest: Uint8Array, count: number): bigint {
  const hashed = blake2b(joined([digest, int64Bytes(count)]), { dkLen: 8 });
  return new DataView(hashed.buffer, hashed.byteOffset).getBigUint64(0, true) >> 1n;
}

/** Choose the validation part by what images show: equal ones stay together, always. */
export function heldOut(
  digests: readonly Uint8Array[],
  ids: BigInt64Array,
  share: number,
  before?: PrivateData,
): boolean[] {
  const num = digests.length;
  const wanted = Math.min(Math.max(1, roundHalfEven(num * share)), num - 2);
  let held = new Array<boolean>(num).fill(false);
  const hasPart = new Array<boolean>(num).fill(false);
  const groups = new Map<string, number[]>();
  digests.forEach((digest, row) => {
    const name = hex(digest);
    groups.set(name, [...(groups.get(name) ?? []), row]);
  });
  if (before) {
    const [trained, validated] = [new Set(before.train.sampleIds), new Set(before.validation.sampleIds)];
    for (const rows of groups.values()) {
      const wasTrained = rows.some((row) => trained.has(ids[row]));
      const wasHeld = rows.some((row) => validated.has(ids[row]));
      for (const row of rows) {
        hasPart[row] = wasTrained || wasHeld;
        held[row] = wasHeld && !wasTrained;
      }
    }
  }
  const count = (): number => held.filter(Boolean).length;
  for (const name of [...groups.keys()].sort()) {
    const rows = groups.get(name) as number[];
    if (!rows.some((row) => hasPart[row]) && count() + rows.length <= wanted) rows.forEach((row) => (held[row] = true));
  }
  if (!count() || num - count() < 2) {
    // Nearly all images are one, or a few: some of each stay in both parts, rather than a class in one.
    held = new Array<boolean>(num).fill(false);
    for (let index = 1; index <= wanted; index++) held[roundHalfEven((index * (num - 1)) / (wanted + 1))] = true;
  }
  return held;
}
