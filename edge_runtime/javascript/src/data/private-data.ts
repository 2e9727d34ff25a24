/** A device's private data: images, labels and sample ids; they never leave the device. `docs/data-format.md`. */

import { DatasetError } from "../errors.js";
import { printable } from "../printable.js";
import type { Images } from "./augment.js";
import { npyText, readNpz, writeNpy, writeNpz, type NpyArray } from "./npz.js";

const FORMAT_VERSION = 1;
const REMEDY = "give a device file made by gkt data split or gkt data pack";

/** Labelled images with their ids, by ascending id. */
export interface Samples {
  readonly images: Images;
  readonly labels: BigInt64Array;
  readonly sampleIds: BigInt64Array;
}

/** What one device holds. */
export interface PrivateData {
  readonly train: Samples;
  readonly validation: Samples;
  readonly classNames: readonly string[];
}

/**
 * Read and check one device's file.
 *
 * @param name To call it in errors.
 * @throws DatasetError The file cannot be read, its arrays do not fit together, or a newer gkt made it.
 */
export function readPrivateData(file: Uint8Array, name: string): PrivateData {
  const arrays = readNpz(file, name);
  checkVersion(arrays.get("format_version"), name);
  const names = required(arrays, "class_names", name);
  if (names.kind !== "text") throw new DatasetError(`${name}: class_names is ${names.dtype}, expected text: ${REMEDY}`);
  const classNames = names.texts;
  if (new Set(classNames).size < classNames.length) {
    throw new DatasetError(
      `${name}: class_names holds a name twice: ${printable(classNames.slice(0, 20).join(", "))}: ${REMEDY}`,
    );
  }
  const train = samplesOf(arrays, "", name, classNames.length);
  const validation = samplesOf(arrays, "validation_", name, classNames.length);
  if (train.labels.length < 2) {
    throw new DatasetError(`${name} holds ${train.labels.length} training images, expected at least 2`);
  }
  if (train.images.size !== validation.images.size) {
    throw new DatasetError(`${name}: training and validation images differ in size`);
  }
  const trained = new Set(train.sampleIds);
  if (validation.sampleIds.some((id) => trained.has(id))) {
    throw new DatasetError(`${name}: a sample is in both the training and the validation part`);
  }
  return { train, validation, classNames };
}

/** Give the secret that the sample ids of a packed file follow from; empty if it has none. */
export function ownerKeyOf(file: Uint8Array, name: string): Uint8Array {
  const found = readNpz(file, name).get("owner_key");
  return found?.kind === "bytes" ? found.bytes : new Uint8Array();
}

/** Write one device's file. */
export function writePrivateData(data: PrivateData, ownerKey: Uint8Array): Uint8Array {
  const entries: [string, Uint8Array][] = [
    ["format_version", writeNpy("<i8", [], new BigInt64Array([BigInt(FORMAT_VERSION)]))],
  ];
  for (const [prefix, samples] of [
    ["", data.train],
    ["validation_", data.validation],
  ] as const) {
    const { images, labels, sampleIds } = samples;
    entries.push(
      [`${prefix}images`, writeNpy("|u1", [labels.length, images.size, images.size, 3], images.pixels)],
      [`${prefix}labels`, writeNpy("<i8", [labels.length], labels)],
      [`${prefix}sample_ids`, writeNpy("<i8", [labels.length], sampleIds)],
    );
  }
  entries.push(["class_names", npyText(data.classNames)]);
  if (ownerKey.length) entries.push(["owner_key", writeNpy("|u1", [ownerKey.length], ownerKey)]);
  return writeNpz(new Map(entries));
}

/** Order samples by their ids. */
export function sortedSamples(images: Images, labels: BigInt64Array, sampleIds: BigInt64Array): Samples {
  const order = Array.from(sampleIds.keys()).sort((one, other) => (sampleIds[one] < sampleIds[other] ? -1 : 1));
  if (order.every((row, index) => row === index)) return { images, labels, sampleIds };
  const bytes = images.size * images.size * 3;
  const pixels = new Uint8Array(images.pixels.length);
  order.forEach((row, index) => pixels.set(images.pixels.subarray(row * bytes, (row + 1) * bytes), index * bytes));
  return {
    images: { pixels, size: images.size },
    labels: BigInt64Array.from(order, (row) => labels[row]),
    sampleIds: BigInt64Array.from(order, (row) => sampleIds[row]),
  };
}

function samplesOf(arrays: Map<string, NpyArray>, prefix: string, name: string, classes: number): Samples {
  const images = required(arrays, `${prefix}images`, name);
  const { shape } = images;
  if (shape.length !== 4 || shape[1] !== shape[2] || shape[3] !== 3) {
    throw new DatasetError(`${name}: ${prefix}images is [${shape.join(", ")}], expected [N, S, S, 3]`);
  }
  if (images.kind !== "bytes") {
    throw new DatasetError(
      `${name}: ${prefix}images is ${images.dtype}, expected uint8 (0 to 255): make the file again with gkt data split`,
    );
  }
  const labels = wholeNumbers(arrays, `${prefix}labels`, name, shape[0]);
  const sampleIds = wholeNumbers(arrays, `${prefix}sample_ids`, name, shape[0]);
  const outside = labels.find((label) => label < 0n || label >= BigInt(classes));
  if (outside !== undefined) {
    throw new DatasetError(
      `${name}: ${prefix}labels holds ${outside}, expected 0 to ${classes - 1}: mend the labels or add to class_names, ` +
        "or make the file again with gkt data split",
    );
  }
  if (new Set(sampleIds).size !== sampleIds.length)
    throw new DatasetError(`${name}: ${prefix}sample_ids are not unique`);
  return sortedSamples({ pixels: images.bytes, size: shape[1] }, labels, sampleIds);
}

function required(arrays: Map<string, NpyArray>, key: string, name: string): NpyArray {
  const found = arrays.get(key);
  if (!found) throw new DatasetError(`${name} has no ${key}: ${REMEDY}`);
  return found;
}

function wholeNumbers(arrays: Map<string, NpyArray>, key: string, name: string, num: number): BigInt64Array {
  const found = required(arrays, key, name);
  const values =
    found.kind === "whole"
      ? found.values
      : found.kind === "bytes"
        ? BigInt64Array.from(found.bytes, BigInt)
        : undefined;
  if (!values || found.shape.length !== 1 || found.shape[0] !== num) {
    throw new DatasetError(`${name}: ${key} is ${found.dtype} [${found.shape.join(", ")}], expected integers [${num}]`);
  }
  return values;
}

function checkVersion(found: NpyArray | undefined, name: string): void {
  // Files of the first releases have no number.
  if (!found) return;
  const version = found.kind === "whole" && !found.shape.length ? Number(found.values[0]) : NaN;
  if (!(version >= 1 && version <= FORMAT_VERSION)) {
    throw new DatasetError(
      `${name} has format version ${version}, this gkt-edge reads 1 to ${FORMAT_VERSION}: install the version that made ` +
        "it, or a newer one",
    );
  }
}
