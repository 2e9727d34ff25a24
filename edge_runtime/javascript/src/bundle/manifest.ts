/** The manifest of an artifact bundle: what it holds, for which network and settings, with hashes. */

import { ArtifactError, ConfigError, MessageError, UnsafeModelError } from "../errors.js";
import { sha256Hex } from "../hashing.js";
import { indentedText, isObject, JsonNumber, type Json, type JsonObject } from "../json.js";
import { printable, shownAscii } from "../printable.js";
import type { FeatureShape } from "../wire/codec.js";
import { anyObject, dictionary, list, orNull, real, record, text, truth, whole } from "../wire/reading.js";

export const MANIFEST_NAME = "manifest.json";
export const FORMAT_VERSION = 3;
/** What an engine's files may have together: the largest that gkt exports have a hundredth. */
export const MOST_BUNDLE_BYTES = 1 << 30;
export const TRAIN_STEP = "train_step.onnx";
export const PREDICT = "predict.onnx";
export const INITIAL_STATE = "initial_state.safetensors";
export const COMBINED_TEMPLATE = "combined_template.onnx";
export const PORTABLE = "portable";
/** What a device with the portable engine needs; this client has no other. */
export const PORTABLE_FILES = [TRAIN_STEP, PREDICT, INITIAL_STATE] as const;

const ENGINES = ["portable", "ort_training"];
const SHA256 = /^[0-9a-f]{64}$/;
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const NETWORK_NAME = /^[a-z][a-z0-9_-]{0,39}$/;

export interface FileEntry {
  readonly sha256: string;
  readonly num_bytes: number;
}

/** Where a tensor's bytes lie in a template file: float32, little-endian, row-major. */
export interface TensorSlot {
  readonly offset: number;
  readonly shape: readonly number[];
}

/** Where a tensor lies in a flat state vector of the portable step, in elements. */
export interface VectorSlot extends TensorSlot {
  readonly vector: string;
}

/** The flat vectors that the portable training step takes and gives back. */
export interface PortableState {
  readonly vectors: ReadonlyMap<string, number>;
  readonly dtypes: ReadonlyMap<string, string>;
  readonly slots: ReadonlyMap<string, VectorSlot>;
}

interface Fields {
  format_version: number;
  edge_network: string;
  server_network: string;
  num_classes: number;
  image_size: number;
  features: number[];
  pixel_mean: number[];
  pixel_std: number[];
  class_names: string[];
  temperature: number;
  optimizer: string;
  optimizer_settings: JsonObject;
  opset: number;
  seed: Json;
  batch_norms: Json[];
  template_slots: Map<string, TensorSlot>;
  files: Map<string, FileEntry>;
  versions: JsonObject;
  engines: string[];
  runtime_does: JsonObject;
  onnx_versions: JsonObject;
  tensors: JsonObject;
  portable_state: JsonObject;
  verification: JsonObject;
  bounds: Map<string, number>;
  memory: Json;
  horizontal_flip: boolean | null;
  max_bits: number | null;
}

const any = (value: Json): Json => value;
const length = whole(0, 2 ** 31);
const slotFields = { offset: whole(0), shape: list(length) };

const READ = record<Fields>(
  "Manifest",
  {
    format_version: whole(),
    edge_network: text,
    server_network: text,
    num_classes: whole(2, 100_000),
    image_size: whole(8, 256),
    features: list(whole(1, 65_536)),
    pixel_mean: list(real()),
    pixel_std: list(real()),
    class_names: list(text),
    temperature: real(),
    optimizer: text,
    optimizer_settings: anyObject,
    opset: whole(),
    seed: any,
    batch_norms: list(any),
    template_slots: dictionary(record<TensorSlot>("TensorSlot", slotFields)),
    files: dictionary(record<FileEntry>("FileEntry", { sha256: text, num_bytes: whole(0, 2 ** 31 - 1) })),
    versions: anyObject,
    engines: list(text),
    runtime_does: anyObject,
    onnx_versions: anyObject,
    tensors: anyObject,
    portable_state: anyObject,
    verification: anyObject,
    bounds: dictionary(real()),
    memory: any,
    horizontal_flip: orNull(truth),
    max_bits: orNull(whole(1, 32)),
  },
  {
    versions: {},
    engines: ["ort_training"],
    runtime_does: {},
    onnx_versions: {},
    tensors: {},
    portable_state: {},
    verification: {},
    bounds: new Map(),
    memory: null,
    horizontal_flip: null,
    max_bits: null,
  },
);

const READ_STATE = record<PortableState>("PortableState", {
  vectors: dictionary(length),
  dtypes: dictionary(text),
  slots: dictionary(record<VectorSlot>("VectorSlot", { ...slotFields, vector: text })),
});

/** What a bundle holds, as far as a device has to do with it. */
export class Manifest {
  readonly featureShape: FeatureShape;
  /** State of the portable step; undefined in a bundle without it. */
  readonly state: PortableState | undefined;

  private constructor(readonly fields: Readonly<Fields>) {
    const [channels, height, width] = fields.features;
    this.featureShape = [channels, height, width];
    this.state = fields.engines.includes(PORTABLE) ? stateOf(fields.portable_state) : undefined;
  }

  get edgeNetwork(): string {
    return this.fields.edge_network;
  }
  get numClasses(): number {
    return this.fields.num_classes;
  }
  get imageSize(): number {
    return this.fields.image_size;
  }
  get classNames(): readonly string[] {
    return this.fields.class_names;
  }
  get isVerified(): boolean {
    return Object.hasOwn(this.fields.verification, PORTABLE);
  }

  /**
   * Validate decoded JSON.
   *
   * @throws ArtifactError Missing, unknown or ill-typed fields, or another format version.
   */
  static from(values: JsonObject): Manifest {
    const version = values.format_version;
    if (!(version instanceof JsonNumber) || version.text !== String(FORMAT_VERSION)) {
      throw new ArtifactError(
        `the manifest has another format version than ${FORMAT_VERSION}, which this gkt-edge reads: export the artifacts ` +
          "again with the installed version",
      );
    }
    try {
      const fields = READ(values, "Manifest");
      checkFields(fields);
      return new Manifest(fields);
    } catch (error) {
      if (error instanceof MessageError || error instanceof ConfigError) {
        throw new ArtifactError(`the manifest is not valid: ${error.message}`, { cause: error });
      }
      throw error;
    }
  }

  /**
   * Look up the entry of one file.
   *
   * @throws ArtifactError The bundle has no such file.
   */
  file(name: string): FileEntry {
    const entry = this.fields.files.get(name);
    if (!entry) throw new ArtifactError(`the bundle has no ${name}: export it again`);
    return entry;
  }

  /**
   * Give the state of the portable step.
   *
   * @throws ArtifactError The bundle was made for another engine.
   */
  portableState(): PortableState {
    if (!this.state) {
      throw new ArtifactError(
        `the bundle is for ${printable(this.fields.engines.join(", ")) || "no engine"}, and JavaScript trains with portable: ` +
          "export it again with --engine portable, or both",
      );
    }
    return this.state;
  }
}

/** Hash a manifest: the SHA-256, as digits, of the file that Python writes it as. */
export async function manifestSha256(values: JsonObject): Promise<string> {
  return sha256Hex(`${indentedText(values)}\n`);
}

/**
 * Refuse another manifest than was agreed upon; the hashes in it vouch for every file.
 *
 * @throws UnsafeModelError Names both hashes.
 */
export async function checkManifestSha256(values: JsonObject, expected: string): Promise<void> {
  const came = await manifestSha256(values);
  if (came !== expected) {
    throw new UnsafeModelError(
      "the server's bundle is not the one that was agreed upon: its manifest has the SHA-256 " +
        `${came.slice(0, 16)}..., agreed was ${expected.slice(0, 16)}...: ask whoever runs the server; somebody between may ` +
        "have changed it",
    );
  }
}

function checkFields(fields: Fields): void {
  for (const [name, entry] of fields.files) {
    if (!SHA256.test(entry.sha256)) throw new ConfigError(`the SHA-256 of ${shownAscii(name, 40)} is none`);
    if (!FILE_NAME.test(name)) {
      throw new ArtifactError("the manifest names files outside its own folder: export or download the bundle again");
    }
  }
  const isUsable =
    fields.pixel_mean.length === 3 &&
    fields.pixel_std.length === 3 &&
    fields.pixel_std.every((std) => std >= 1e-6 && std <= 1e6) &&
    fields.pixel_mean.every((mean) => Math.abs(mean) <= 1e6);
  if (!isUsable) throw new ConfigError(`pixels have the mean ${fields.pixel_mean}, the deviation ${fields.pixel_std}`);
  if (!fields.engines.every((each) => ENGINES.includes(each)))
    throw new ConfigError(`engines, expected ${ENGINES.join(", ")}`);
  for (const name of [fields.edge_network, fields.server_network]) {
    if (!NETWORK_NAME.test(name)) {
      throw new ConfigError(
        `network name ${shownAscii(name)}: expected up to 40 of a-z, 0-9, '_', '-', a letter first`,
      );
    }
  }
  if (fields.features.length !== 3)
    throw new ConfigError(`the manifest has features ${fields.features}, expected [C, H, W]`);
  if (fields.image_size % 4) throw new ConfigError(`image size is ${fields.image_size}, expected a multiple of 4`);
  for (const [name, bound] of fields.bounds) {
    if (!(bound > 0)) throw new ConfigError(`the bound of ${shownAscii(name, 40)} is ${bound}, expected above 0`);
  }
  checkTensors(fields);
}

/** Refuse graphs of other images, classes or features than the rest of the manifest says. */
function checkTensors(fields: Fields): void {
  const side = fields.image_size;
  const expected: Record<string, string> = {
    images: `N,3,${side},${side}`,
    labels: "N",
    server_logits: `N,${fields.num_classes}`,
    logits: `N,${fields.num_classes}`,
    features: `N,${fields.features.join()}`,
  };
  for (const [file, sides] of Object.entries(fields.tensors)) {
    const both = isObject(sides) ? [sides.inputs, sides.outputs] : [];
    if (both.length !== 2 || !both.every(Array.isArray)) {
      throw new ConfigError(`the tensors of ${shownAscii(file, 40)} have no names and shapes`);
    }
    for (const tensor of both.flat()) {
      if (!isObject(tensor) || typeof tensor.name !== "string" || !Array.isArray(tensor.shape)) {
        throw new ConfigError(`the tensors of ${shownAscii(file, 40)} have no names and shapes`);
      }
      const shape = tensor.shape.map((each) => (each instanceof JsonNumber ? each.text : String(each))).join();
      if (Object.hasOwn(expected, tensor.name) && expected[tensor.name] !== shape) {
        throw new ConfigError(
          `${tensor.name} of ${shownAscii(file, 40)} is [${printable(shape).slice(0, 60)}], expected [${expected[tensor.name]}]`,
        );
      }
    }
  }
}

function stateOf(values: JsonObject): PortableState {
  const state = READ_STATE(values, "PortableState");
  const names = [...state.vectors.keys()].sort().join();
  if (
    names !== [...state.dtypes.keys()].sort().join() ||
    ![...state.dtypes.values()].every((each) => ["float32", "int64"].includes(each))
  ) {
    throw new ArtifactError("state vectors have no dtype each, float32 or int64: export the artifacts again");
  }
  for (const [name, slot] of state.slots) {
    const end = slot.offset + slot.shape.reduce((product, each) => product * each, 1);
    if (!(end <= (state.vectors.get(slot.vector) ?? -1))) {
      throw new ArtifactError(`${shownAscii(name)} is not inside its state vector: export the artifacts again`);
    }
  }
  return state;
}
