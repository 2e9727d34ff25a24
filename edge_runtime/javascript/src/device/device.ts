/** A device in a run: join, train, upload, wait, and in the end take the model; `edge_runtime/device.py`. */

import type { Bundle } from "../bundle/bundle.js";
import { COMBINED_TEMPLATE, Manifest } from "../bundle/manifest.js";
import type { TapRequirement } from "../bundle/tap.js";
import { EXTRACTOR_PREFIX, fillTemplate, type Weights } from "../bundle/template.js";
import { agreedConfig, edgeDistils } from "../config/run-config.js";
import { UploadSchedule } from "../config/upload-schedule.js";
import { MOST_FILE_BYTES, slept, type ServerClient } from "../connection/server-client.js";
import type { PrivateData } from "../data/private-data.js";
import { PortableEngine } from "../engine/portable.js";
import type { OrtRuntime } from "../engine/runtime.js";
import { ProtocolError, RoundClosedError, RunFailedError } from "../errors.js";
import { shownAscii } from "../printable.js";
import { clientSeed, type ClientPart } from "../rounds/client-part.js";
import { clientUpdate, type LocalProgress } from "../rounds/client-round.js";
import { fixedFeatures, uploadsNow } from "../rounds/drift.js";
import { placeKeptNamed } from "../state/credential.js";
import { MODEL_NAME, StateKeeper, type DeviceState } from "../state/device-state.js";
import { samplesSha256, takeUp, type KnownData } from "../state/known-samples.js";
import type { Store } from "../state/store.js";
import { GuardedEngine } from "../trust/features.js";
import type { FeatureNoise } from "../wire/feature-noise.js";
import { levelFeatures } from "../wire/levels/frame.js";
import { PROTOCOL_VERSION, type JoinRequest, type RunInfo, type Task } from "../wire/messages.js";
import { mostSoftLabelBytes, readSoftLabels, type SoftLabels } from "../wire/shards.js";
import { tryModel, type Accuracy } from "./evaluation.js";
import type { Listener } from "./listener.js";
import { checkData } from "./own-data.js";
import { checkPlace, goBack, isAhead, otherFolder } from "./returning.js";
import { nextTask } from "./turn.js";
import { upload } from "./upload.js";

export const CHECKPOINT_SECONDS = 30;

/** What a device ends with. */
export interface DeviceResult {
  readonly client_id: string;
  readonly run_id: string;
  readonly rounds: number;
  /** Where the combined model is. */
  readonly model: string;
  readonly upload_bytes: number;
  readonly download_bytes: number;
  /** Of the combined model on this device's validation images, 0..1. */
  readonly validation_accuracy: number;
  readonly num_validation_images: number;
}

export interface DeviceOptions {
  readonly server: ServerClient;
  /** Only features, logits, labels and sample ids leave. */
  readonly data: PrivateData;
  readonly store: Store;
  readonly ort: OrtRuntime;
  readonly clientId: string;
  readonly clientKey: string;
  readonly noise: FeatureNoise;
  readonly tap: TapRequirement;
  readonly listener: Listener;
  readonly numThreads?: number;
  /** How often the middle of a round is saved; what is lost when a device is killed. */
  readonly checkpointSeconds?: number;
  /** Waits between two steps or shards, for a battery or a network; what it is given saves the place first. */
  readonly pause?: (save: () => Promise<void>) => Promise<void>;
  readonly sleep?: (seconds: number) => Promise<void>;
}

/** One device's part in one run. */
export class Device {
  private readonly keeper: StateKeeper;
  private readonly sleep: (seconds: number) => Promise<void>;
  // Set by run() before anything else needs them.
  private engine!: GuardedEngine;
  private manifest!: Manifest;
  private part!: ClientPart;
  private known!: KnownData;
  private files!: Bundle["files"];
  private samplesSha256 = "";
  private cameBack = false;

  constructor(private readonly options: DeviceOptions) {
    this.keeper = new StateKeeper(options.store);
    this.sleep = options.sleep ?? slept;
  }

  /**
   * Take part until the run has ended.
   *
   * @throws RunFailedError The server says that the run failed.
   * @throws GKTError Anything else that stops this device; its state goes on later.
   */
  async run(): Promise<DeviceResult> {
    const { server, store, clientId, data } = this.options;
    server.partStore = store;
    const info = await server.runInfo();
    let state = await this.begin(info);
    const request: JoinRequest = {
      protocol_version: PROTOCOL_VERSION,
      num_examples: data.train.labels.length,
      num_validation_examples: data.validation.labels.length,
      num_classes: data.classNames.length,
      engine: this.engine.name,
      class_names: [...data.classNames],
      client_key: this.options.clientKey,
      samples_sha256: this.samplesSha256,
      require_tap: this.options.tap.requireTap,
      max_bits: this.options.tap.maxBits,
    };
    // Other devices' classes count where the bundle names none.
    let task = await placeKeptNamed(store, () => server.join(clientId, request));
    const { mode } = this.part.config;
    for (;;) {
      task = this.withoutLost(task, state);
      if (isAhead(state, task, mode)) {
        state = await goBack(this.keeper, state, task, (line) => this.options.listener.note(line));
        this.cameBack = true;
        await this.open(state);
        // What was said since the backup was taken, the server does not know.
        task = await server.join(clientId, request);
      } else if (task.action === "finish") {
        break;
      } else if (task.action === "train") {
        [state, task] = await this.round(state, task);
      } else if (task.action === "wait") {
        this.options.listener.phase("wait", task.round_num, 0, task.reason);
        task = await nextTask(server, clientId, this.sleep);
      } else if (task.action === "stop") {
        throw new RunFailedError(`the server stopped the run: ${task.reason}`);
      } else {
        throw new ProtocolError(
          `unknown task ${shownAscii(task.action, 40)}: install the server's version of gkt-edge`,
        );
      }
    }
    // The template would take the weights of any round, fresh ones too.
    if (state.trained_round < task.soft_labels_round) throw otherFolder(task.soft_labels_round, state);
    if (state.trained_round === 0) {
      throw new RunFailedError(
        "the run ended before this device had taken part in a round: there is no model of its own",
      );
    }
    const measured = await this.takeModel(await this.deployed(task));
    return {
      client_id: clientId,
      run_id: info.run_id,
      rounds: state.trained_round,
      model: store.place === "memory" ? MODEL_NAME : `${store.place}/${MODEL_NAME}`,
      upload_bytes: server.uploadBytes,
      download_bytes: server.downloadBytes,
      validation_accuracy: measured.accuracy,
      num_validation_images: measured.numExamples,
    };
  }

  /** Look at everything before joining: settings, data, what is kept, the bundle and its graphs. */
  private async begin(info: RunInfo): Promise<DeviceState> {
    const { server, store, clientId, data, noise, tap, listener } = this.options;
    const config = agreedConfig(info.config);
    this.manifest = Manifest.from(info.manifest);
    await placeKeptNamed(store, async () => {
      tap.check(this.manifest, config.codec);
      checkData(data, this.manifest, clientId);
    });
    server.levels = levelFeatures(config.codec, this.manifest.featureShape);
    let state = await this.keeper.state(info.run_id, clientId);
    const keyed = await this.keeper.featureNoise(noise, state);
    [this.known, state] = await takeUp(this.keeper, data, state);
    this.known.lines.forEach((line) => listener.note(line));
    this.samplesSha256 = await samplesSha256(this.known.data);
    this.part = {
      clientId,
      data: this.known.data,
      config,
      numClasses: this.manifest.numClasses,
      noise: keyed,
      seed: await clientSeed(config.seed, clientId),
      firstRounds: this.known.firstRounds,
    };
    const bundle = await this.keeper.bundle(info.manifest, (name, entry) => server.artifact(name, entry));
    this.files = bundle.files;
    await this.open(state);
    return state;
  }

  /** Open the engine with the weights that belong to a state. */
  private async open(state: DeviceState): Promise<void> {
    const { clientId, listener, ort, numThreads = 1 } = this.options;
    const { noise: keyed } = this.part;
    const checkpoint = await this.keeper.checkpoint(state);
    const opened = await PortableEngine.open(ort, this.manifest, this.files, numThreads, checkpoint);
    this.engine = new GuardedEngine(opened, this.manifest);
    await this.engine.tryNow();
    let line = `${clientId} ${checkpoint ? `goes on after round ${state.trained_round}` : "begins"}`;
    if (state.partial) line += ` and ${state.partial.num_steps} steps of the next`;
    line += ` on ${this.engine.name} with ${numThreads} thread(s)`;
    if (keyed.isOn) line += `, ${keyed.words}`;
    if (!this.engine.isKnown) line += `; ${this.engine.stranger}`;
    if (!this.manifest.isVerified) line += "; nobody verified this engine when it was exported (gkt verify does it)";
    listener.note(line);
  }

  /** Do lines 17 to 30 of Algorithm 1, from wherever an earlier process left off. */
  private async round(before: DeviceState, task: Task): Promise<[DeviceState, Task]> {
    const { server, clientId, listener, pause } = this.options;
    let state = before;
    const roundNum = task.round_num;
    checkPlace(state, task);
    const uploading = {
      server,
      engine: this.engine,
      part: this.part,
      featureShape: this.manifest.featureShape,
      listener,
      pause: async () => pause?.(async () => undefined),
    };
    try {
      if (roundNum > state.trained_round) state = await this.train(state, task);
      const heldRound = await this.heldRound(task);
      const after = await upload(uploading, state, heldRound);
      if (after.upload_round)
        await this.keeper.dropUploads(Math.min(after.upload_round, after.view_round || after.upload_round));
      return [state, after];
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (!(error instanceof RoundClosedError)) {
        const after = await server.task(clientId);
        if (after.round_num >= roundNum) throw error;
        // What it asked for was of a round that the server has not come to, as of the backup.
        return [state, after];
      }
      listener.note(`${clientId} is too late for round ${roundNum}: ${error.message}`);
      return [state, await server.task(clientId)];
    }
  }

  /** Begin anew where the server knows this device and its store is new: what it had is lost. */
  private withoutLost(task: Task, state: DeviceState): Task {
    if (state.trained_round > 0 || !task.soft_labels_round) return task;
    this.options.listener.note(
      `${this.options.clientId} had a part in round ${task.soft_labels_round}, and this state folder is new: it goes on from ` +
        "fresh weights, without soft labels for once",
    );
    return { ...task, soft_labels_round: 0, upload_round: 0, view_round: 0 };
  }

  /**
   * Decide whether to upload after this round's training: 0, or the round of an upload that will do.
   *
   * What makes a new upload is kept first: the model needs that very extractor. One of other samples than the device has
   * now will not do: the server counts what it holds against what was announced.
   */
  private async heldRound(task: Task): Promise<number> {
    const schedule = UploadSchedule.parse(this.part.config.uploads);
    if (schedule.isEvery) return 0;
    let held = task.upload_round;
    // Longer ago than anything is kept of: it sends a new one.
    if (this.cameBack && held && !(await this.keeper.hasUpload(held))) held = 0;
    let then = held ? await this.keeper.upload(held) : undefined;
    if (then && !["", this.samplesSha256].includes(then.samplesSha256)) [held, then] = [0, undefined];
    if (!(await uploadsNow(this.engine, this.part, task.round_num, held, then?.features))) return held;
    const features = schedule.drift === undefined ? undefined : await fixedFeatures(this.engine, this.part);
    await this.keeper.keepUpload(task.round_num, {
      weights: this.engine.parameters(),
      features,
      samplesSha256: this.samplesSha256,
    });
    return 0;
  }

  /** Give the weights whose extractor the server's network was trained behind. */
  private async deployed(task: Task): Promise<Weights> {
    return task.view_round ? (await this.keeper.upload(task.view_round)).weights : this.engine.parameters();
  }

  /** Train in the task's round, saving every so often; the state after it, which is saved too. */
  private async train(before: DeviceState, task: Task): Promise<DeviceState> {
    const { listener, pause, checkpointSeconds = CHECKPOINT_SECONDS } = this.options;
    const roundNum = task.round_num;
    const softLabels = await this.softLabels(task);
    listener.phase("train", roundNum, this.part.data.train.labels.length * this.part.config.local_epochs);
    const started = performance.now();
    let state = before;
    // What was begun for a round that is closed stays in the weights; its place is forgotten.
    if (state.partial_round !== roundNum || state.partial_teacher !== task.soft_labels_round) {
      state = { ...state, partial: null, partial_round: roundNum, partial_teacher: task.soft_labels_round };
    }
    const earlier = state.partial ? state.train_seconds : 0;
    const seconds = (): number => earlier + (performance.now() - started) / 1000;
    let saved = started;
    const save = async (progress: LocalProgress): Promise<void> => {
      await this.keeper.save(
        { ...state, engine: this.engine.name, partial: progress, train_seconds: seconds() },
        this.engine.state(),
      );
      saved = performance.now();
    };
    const update = await clientUpdate(
      this.engine,
      this.part,
      softLabels,
      roundNum,
      {
        teacherRound: task.view_round || task.soft_labels_round,
        learningRateScale: task.learning_rate_scale,
        ...(state.partial && { done: state.partial }),
      },
      {
        images: (num) => listener.images(num),
        progress: async (progress) => {
          if (performance.now() - saved >= 1000 * checkpointSeconds) await save(progress);
          await pause?.(() => save(progress));
        },
      },
    );
    const after: DeviceState = {
      ...state,
      trained_round: roundNum,
      engine: this.engine.name,
      loss: update.total_loss / update.num_seen,
      accuracy: update.num_right / update.num_seen,
      train_seconds: seconds(),
      partial: null,
    };
    await this.keeper.save(after, this.engine.state());
    return after;
  }

  private async softLabels(task: Task): Promise<SoftLabels | undefined> {
    const { server, clientId } = this.options;
    const roundNum = task.soft_labels_round;
    if (roundNum < 1 || !edgeDistils(this.part.config)) return undefined;
    // A row a sample of the upload that it answers, which may be gone since.
    const isKnown = (task.view_round || roundNum) > this.known.unknownRounds;
    const mostBytes = isKnown ? mostSoftLabelBytes(this.known.numEver, this.part.numClasses) : MOST_FILE_BYTES;
    const data = await server.softLabels(clientId, roundNum, mostBytes);
    return readSoftLabels(data, clientId, roundNum, this.part.numClasses);
  }

  /** Fill this device's extractor into the server's template, and try the model before it is kept. */
  private async takeModel(weights: Weights): Promise<Accuracy> {
    const { server, listener, ort, store, data, numThreads = 1 } = this.options;
    listener.phase("model", 0, 0);
    const template = await server.modelTemplate(this.manifest.file(COMBINED_TEMPLATE).num_bytes);
    const filled = fillTemplate(template, this.manifest.fields.template_slots, weights, EXTRACTOR_PREFIX);
    const measured = await tryModel(ort, filled, data.validation, this.manifest.numClasses, numThreads);
    await store.write(MODEL_NAME, filled);
    return measured;
  }
}
