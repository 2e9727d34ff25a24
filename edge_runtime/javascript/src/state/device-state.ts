/**
 * What a device keeps between restarts: the bundle, its weights after each round, where it stands.
 *
 * Names and formats are those of `edge_runtime/state/state_dir.py`: a folder that Python began goes on here, and the other
 * way round.
 */

import { fileEntryMatches, loadManifest, type Bundle } from "../bundle/bundle.js";
import {
  Manifest,
  MANIFEST_NAME,
  MOST_BUNDLE_BYTES,
  PORTABLE,
  PORTABLE_FILES,
  type FileEntry,
} from "../bundle/manifest.js";
import type { Weights } from "../bundle/template.js";
import { ArtifactError, ConfigError, ShardError, UnsafeModelError } from "../errors.js";
import { fromHex, hex } from "../hashing.js";
import { indentedText, isObject, JsonNumber, parseJsonBytes, type JsonObject } from "../json.js";
import { general, grouped } from "../numbers.js";
import type { LocalProgress } from "../rounds/client-round.js";
import { FeatureNoise, newKey } from "../wire/feature-noise.js";
import { orNull, real, record, text, whole } from "../wire/reading.js";
import { bytes, floats, readTensors, writeTensors, type Tensor } from "../wire/safetensors.js";
import { type Store, writeText } from "./store.js";

export const MODEL_NAME = "model.onnx";
const STATE = "state.json";
const NOISE = "noise.json";
const BUNDLE = "bundle/";
const MOST_HEADER_BYTES = 1 << 20;
const WEIGHT = "weight/";
const FIXED = "features";
const SAMPLES = "samples_sha256";

/** Where a device stands in a run; the fields of `DeviceState` in Python. */
export interface DeviceState {
  readonly run_id: string;
  readonly client_id: string;
  /** Last round of local training; 0 before the first. */
  readonly trained_round: number;
  /** Mean training loss of that round. */
  readonly loss: number;
  /** Training accuracy of that round, 0..1. */
  readonly accuracy: number;
  readonly train_seconds: number;
  /** What trained; empty at first. */
  readonly engine: string;
  /** How far a round has come, if it was interrupted. */
  readonly partial: LocalProgress | null;
  /** Which round that is. */
  readonly partial_round: number;
  /** The round whose soft labels it trains with. */
  readonly partial_teacher: number;
}

/** What made an upload, where not every round has one. */
export interface KeptUpload {
  readonly weights: Weights;
  /** Of a few fixed samples, if later rounds are compared with them. */
  readonly features?: Float32Array | undefined;
  /** Of the ids of the samples that it holds; empty where an earlier version kept it. */
  readonly samplesSha256: string;
}

/** Of checkpoints of rounds before the last one: a server that is restored from a backup goes back to one. */
const MOST_PAST_BYTES = 16_000_000;
const AFTER_ROUND = /^checkpoint-(\d{6,})$/;
const UPLOAD = /^upload-(\d{6,})\.safetensors$/;
/** Of uploads before the oldest round that is kept: what is trained on, and what answers are of. */
const UPLOADS_BEFORE = 2;
const count = whole(0);
const READ = record<DeviceState>(
  "DeviceState",
  {
    run_id: text,
    client_id: text,
    trained_round: count,
    loss: real(),
    accuracy: real(),
    train_seconds: real(),
    engine: text,
    partial: orNull(
      record<LocalProgress>("LocalProgress", {
        num_steps: count,
        total_loss: real(),
        num_right: count,
        num_seen: count,
      }),
    ),
    partial_round: count,
    partial_teacher: whole(-1),
  },
  {
    trained_round: 0,
    loss: 0,
    accuracy: 0,
    train_seconds: 0,
    engine: "",
    partial: null,
    partial_round: 0,
    partial_teacher: 0,
  },
);

/** Reads and writes a device's state. */
export class StateKeeper {
  constructor(readonly store: Store) {}

  /**
   * Read where this device stands in this run: at the beginning, if the store is new.
   *
   * @throws ArtifactError The store belongs to another run, device or engine, or cannot be read.
   */
  async state(runId: string, clientId: string): Promise<DeviceState> {
    const data = await this.store.read(STATE);
    if (!data) return READ({ run_id: runId, client_id: clientId }, "DeviceState");
    let state: DeviceState;
    try {
      state = READ(parseJsonBytes(data, "a state"), "DeviceState");
    } catch (error) {
      throw new ArtifactError(`${this.store.place}: ${STATE} cannot be read: remove ${this.store.place}`, {
        cause: error,
      });
    }
    if (state.run_id !== runId || state.client_id !== clientId) {
      throw new ArtifactError(
        `${this.store.place} belongs to ${state.client_id} in ${state.run_id}, not to ${clientId} in ${runId}: choose ` +
          "another --state-dir",
      );
    }
    if (state.engine && state.engine !== PORTABLE) {
      throw new ArtifactError(
        `${this.store.place} was trained with ${state.engine}, JavaScript trains with ${PORTABLE}: go on with gkt edge run, or ` +
          "choose another --state-dir",
      );
    }
    return state;
  }

  /** Remember weights, then that they are there, then drop older ones. */
  async save(state: DeviceState, checkpoint: Uint8Array): Promise<void> {
    const kept = checkpointName(state);
    await this.store.write(kept, checkpoint);
    await writeText(this.store, STATE, JSON.stringify(state));
    const rounds = await this.numbered(AFTER_ROUND);
    const past = [...rounds.keys()].filter((round) => rounds.get(round) !== kept).sort((one, other) => other - one);
    const spent = past.slice(Math.floor(MOST_PAST_BYTES / checkpoint.length));
    for (const name of await this.store.names()) {
      if (!name.startsWith("checkpoint-") || name === kept) continue;
      // In the middle of a round that is over, or longer ago than there is room for.
      if (!AFTER_ROUND.test(name) || spent.some((round) => rounds.get(round) === name)) await this.store.remove(name);
    }
  }

  /**
   * Go back to what stood after a round, as the server has: a backup of it was restored.
   *
   * @param lastRound The last round that the device may have behind it.
   * @param answeredRound The last round whose soft labels the server has for it; 0 for none.
   * @returns The state, and whether it is the very one of then; otherwise the weights are those of now.
   */
  async backTo(state: DeviceState, lastRound: number, answeredRound: number): Promise<[DeviceState, boolean]> {
    const rounds = await this.numbered(AFTER_ROUND);
    let kept = Math.max(-1, ...[...rounds.keys()].filter((round) => round <= lastRound));
    let isExact = kept >= 0 && kept >= answeredRound;
    // The server never had anything of it that counts: it begins, as it did then.
    if (!isExact && !answeredRound) [kept, isExact] = [0, true];
    if (!isExact) {
      kept = lastRound;
      const now = await this.checkpoint(state);
      if (now) await this.store.write(checkpointName({ ...state, partial: null, trained_round: kept }), now);
    }
    const { run_id, client_id, engine } = state;
    const back = READ({ run_id, client_id, engine, trained_round: new JsonNumber(String(kept)) }, "DeviceState");
    await writeText(this.store, STATE, JSON.stringify(back));
    for (const name of await this.store.names()) {
      const after = AFTER_ROUND.exec(name) ?? UPLOAD.exec(name);
      if (after ? Number(after[1]) > kept : name.startsWith("checkpoint-")) await this.store.remove(name);
    }
    return [back, isExact];
  }

  /** Names in the store by the number in them. */
  private async numbered(pattern: RegExp): Promise<Map<number, string>> {
    const matches = (await this.store.names()).map((name) => pattern.exec(name));
    return new Map(matches.filter((match) => match !== null).map((match) => [Number(match[1]), match[0]]));
  }

  /**
   * Give the weights to go on from; undefined at the beginning.
   *
   * @throws ArtifactError They are gone.
   */
  async checkpoint(state: DeviceState): Promise<Uint8Array | undefined> {
    if (state.trained_round === 0 && !state.partial) return undefined;
    const data = await this.store.read(checkpointName(state));
    if (!data)
      throw new ArtifactError(`${this.store.place}: ${checkpointName(state)} is gone: choose another --state-dir`);
    return data;
  }

  /** Forget how far a round has come that was under way; the weights stay as they are. */
  async forgetPlace(state: DeviceState): Promise<DeviceState> {
    if (!state.partial) return state;
    // No round's: the place counts only for the round and the teacher that it was begun with.
    const forgotten = { ...state, partial_teacher: -1 };
    await writeText(this.store, STATE, JSON.stringify(forgotten));
    return forgotten;
  }

  /** Remember what makes the upload of a round, before any of it is sent. */
  async keepUpload(roundNum: number, kept: KeptUpload): Promise<void> {
    const tensors = new Map<string, Tensor>([...kept.weights].map(([name, values]) => [WEIGHT + name, floats(values)]));
    if (kept.features) tensors.set(FIXED, floats(kept.features));
    const samples = fromHex(kept.samplesSha256);
    if (samples?.length) tensors.set(SAMPLES, bytes(samples));
    await this.store.write(uploadName(roundNum), writeTensors(tensors));
  }

  /**
   * Give what {@link keepUpload} was given for a round.
   *
   * @throws ArtifactError It is not there, or cannot be read.
   */
  async upload(roundNum: number): Promise<KeptUpload> {
    const data = await this.store.read(uploadName(roundNum));
    try {
      if (!data) throw new ShardError("there is no such file");
      const { tensors } = readTensors(data, MOST_HEADER_BYTES);
      const weights = [...tensors].filter(([name]) => name.startsWith(WEIGHT));
      const samples = tensors.get(SAMPLES)?.data;
      return {
        weights: new Map(weights.map(([name, tensor]) => [name.slice(WEIGHT.length), tensor.data as Float32Array])),
        features: tensors.get(FIXED)?.data as Float32Array | undefined,
        samplesSha256: samples instanceof Uint8Array ? hex(samples) : "",
      };
    } catch (error) {
      if (!(error instanceof ShardError)) throw error;
      throw new ArtifactError(
        `${this.store.place}: ${uploadName(roundNum)}, which made the upload of round ${roundNum}, cannot be read: ` +
          `${error.message}: the model needs its extractor; bring the file back, or begin again with another --state-dir`,
        { cause: error },
      );
    }
  }

  /** Forget what made the uploads before that of a round, and no round needs that is kept. */
  async dropUploads(before: number): Promise<void> {
    const uploads = await this.numbered(UPLOAD);
    const oldest = Math.min(before, ...(await this.numbered(AFTER_ROUND)).keys());
    const earlier = [...uploads.keys()].filter((round) => round < oldest).sort((one, other) => one - other);
    for (const round of earlier.slice(0, -UPLOADS_BEFORE)) await this.store.remove(uploadName(round));
  }

  /** Whether what made the upload of a round is kept. */
  async hasUpload(roundNum: number): Promise<boolean> {
    return (await this.store.names()).includes(uploadName(roundNum));
  }

  /**
   * Give the noise of this device, with the key that it keeps from its first start on.
   *
   * A device that forgot the option at a restart would send bare features, so it is asked again.
   *
   * @throws ConfigError This device began with another noise.
   * @throws ArtifactError The file with the key cannot be read.
   */
  async featureNoise(wanted: FeatureNoise, state: DeviceState): Promise<FeatureNoise> {
    let begun = new FeatureNoise();
    const data = await this.store.read(NOISE);
    if (data) {
      begun = readNoise(data, this.store.place);
    } else if (wanted.isOn && state.trained_round === 0) {
      begun = wanted.withKey(newKey());
      await writeText(
        this.store,
        NOISE,
        JSON.stringify({ clip: begun.clip, noise: begun.noise, key: hex(begun.key) }),
        true,
      );
    }
    if (begun.clip !== wanted.clip || begun.noise !== wanted.noise) {
      throw new ConfigError(
        `this device began with --feature-clip ${general(begun.clip)} --feature-noise ${general(begun.noise)}, now they are ` +
          `${general(wanted.clip)} and ${general(wanted.noise)}: give the same ones, or another --state-dir`,
      );
    }
    return begun;
  }

  /**
   * Open the bundle of the run, downloading what is missing or differs.
   *
   * @param values The manifest, as the server gave it.
   * @param fetch Fetches one file.
   * @throws ArtifactError The manifest is not valid, or a downloaded file is not what it names.
   * @throws UnsafeModelError It is another bundle than this device began with, or far too large.
   */
  async bundle(
    values: JsonObject,
    fetch: (name: string, entry: FileEntry) => Promise<Uint8Array>,
    mostBytes = MOST_BUNDLE_BYTES,
  ): Promise<Bundle> {
    const manifest = Manifest.from(values);
    manifest.portableState();
    await this.checkBegun(values);
    const entries = PORTABLE_FILES.map((name) => [name, manifest.file(name)] as const);
    const numBytes = entries.reduce((sum, [, entry]) => sum + entry.num_bytes, 0);
    if (numBytes > mostBytes) {
      throw new UnsafeModelError(
        `the server's bundle has ${grouped(numBytes)} bytes for ${PORTABLE}, this device takes ${grouped(mostBytes)}: ask ` +
          "whoever runs the server for a smaller network",
      );
    }
    const files = new Map<string, Uint8Array>();
    for (const [name, entry] of entries) {
      const kept = await this.store.read(BUNDLE + name);
      if (kept && (await fileEntryMatches(kept, entry))) {
        files.set(name, kept);
        continue;
      }
      const data = await fetch(name, entry);
      if (!(await fileEntryMatches(data, entry))) {
        throw new ArtifactError(`${name} is not the file of the manifest (SHA-256): export or download it again`);
      }
      await this.store.write(BUNDLE + name, data);
      files.set(name, data);
    }
    await writeText(this.store, BUNDLE + MANIFEST_NAME, indentedText(values));
    return { manifest, files };
  }

  /** Refuse another bundle once this device has begun a run with one: a run never changes its own. */
  private async checkBegun(values: JsonObject): Promise<void> {
    const [state, begun] = [await this.store.read(STATE), await this.store.read(BUNDLE + MANIFEST_NAME)];
    if (!state || !begun) return;
    if (indentedText(loadManifest(begun, this.store.place)) !== indentedText(values)) {
      throw new UnsafeModelError(
        "the server gives another bundle than the one that this device began the run with: nothing of it was taken; ask " +
          "whoever runs the server, somebody between may have changed it",
      );
    }
  }
}

function checkpointName(state: DeviceState): string {
  const padded = (value: number): string => String(value).padStart(6, "0");
  if (state.partial) return `checkpoint-${padded(state.partial_round)}-${padded(state.partial.num_steps)}`;
  return `checkpoint-${padded(state.trained_round)}`;
}

function uploadName(roundNum: number): string {
  return `upload-${String(roundNum).padStart(6, "0")}.safetensors`;
}

function readNoise(data: Uint8Array, place: string): FeatureNoise {
  try {
    const values = parseJsonBytes(data, "the noise of this device");
    if (!isObject(values)) throw new ArtifactError("no object");
    const { clip, noise, key } = values;
    const bytes = typeof key === "string" ? fromHex(key) : undefined;
    if (!(clip instanceof JsonNumber) || !(noise instanceof JsonNumber) || !bytes) throw new ArtifactError("no noise");
    return new FeatureNoise(clip.value, noise.value, bytes);
  } catch (error) {
    throw new ArtifactError(`${place}: ${NOISE} cannot be read: remove ${place}`, { cause: error });
  }
}
