/**
 * Training with any ONNX Runtime: sessions over `train_step.onnx` and `predict.onnx`, standard operators only.
 *
 * A step takes the state as a few flat vectors and gives the next one. Eval mode has a session of its own, whose weights
 * are constants: ONNX Runtime then folds batch norm into them. It is made when the state has changed, once a round.
 */

import { Manifest, PORTABLE, PREDICT, TRAIN_STEP, INITIAL_STATE, type PortableState } from "../bundle/manifest.js";
import type { Weights } from "../bundle/template.js";
import { ArtifactError, DatasetError, GKTError, MemoryLimitError, ShardError, UnsafeModelError } from "../errors.js";
import { allFinite, pythonFloat } from "../numbers.js";
import { checkComputed, checkModel } from "../onnx/judging.js";
import { freezeInputs } from "../onnx/frozen-inputs.js";
import { printable } from "../printable.js";
import { floats, longs, readTensors, writeTensors, type Tensor } from "../wire/safetensors.js";
import type { Batch, Engine, Predicted } from "./engine.js";
import { isOutOfMemory, sessionOptions, type OrtRuntime, type OrtSession, type OrtTensor } from "./runtime.js";

const PARAMETERS = "parameters";
const STATISTICS = "statistics";
const MOST_AT_ONCE = 16;
const PIXELS_AT_ONCE = 64 * 32 * 32;
const MOST_HEADER_BYTES = 1 << 20;
type Vectors = Map<string, Float32Array | BigInt64Array>;

/** The files of a bundle that an engine is made of. */
export type BundleFiles = ReadonlyMap<string, Uint8Array>;

/** Say how many images are passed forward at once where none needs another, so that memory stays flat. */
export function imagesAtOnce(imageSize: number): number {
  return Math.max(1, Math.floor(PIXELS_AT_ONCE / imageSize ** 2));
}

/** An engine on the portable step. */
export class PortableEngine implements Engine {
  readonly name = PORTABLE;
  private eval: OrtSession | undefined;
  private learningRate = 0;

  private constructor(
    private readonly ort: OrtRuntime,
    private readonly manifest: Manifest,
    private readonly layout: PortableState,
    private readonly step: OrtSession,
    private readonly predictModel: Uint8Array,
    private readonly numThreads: number,
    private vectors: Vectors,
  ) {}

  /**
   * Open an engine on the files of a bundle, which are judged before ONNX Runtime sees them.
   *
   * @param checkpoint State to go on from; the bundle's own initial state by default.
   * @throws ArtifactError The files or the checkpoint do not load.
   * @throws UnsafeModelError A file would do more than arithmetic on images; it is not opened.
   */
  static async open(
    ort: OrtRuntime,
    manifest: Manifest,
    files: BundleFiles,
    numThreads: number,
    checkpoint?: Uint8Array,
  ): Promise<PortableEngine> {
    const layout = manifest.portableState();
    const [train, predict] = [fileOf(files, TRAIN_STEP), fileOf(files, PREDICT)];
    checkModel(train, TRAIN_STEP);
    checkComputed(checkModel(predict, PREDICT).graph, PREDICT, "features", "images");
    const vectors = readState(checkpoint ?? fileOf(files, INITIAL_STATE), layout);
    const step = await opened(ort, train, sessionOptions(numThreads, true));
    return new PortableEngine(ort, manifest, layout, step, predict, numThreads, vectors);
  }

  async trainStep(batch: Batch): Promise<{ loss: number; logits: Float32Array }> {
    const { numClasses, imageSize } = this.manifest;
    const num = batch.labels.length;
    checkBatch(batch, numClasses, imageSize);
    this.forgetEval();
    this.learningRate = batch.learningRate;
    const feeds: Record<string, OrtTensor> = {
      images: new this.ort.Tensor("float32", batch.images, [num, 3, imageSize, imageSize]),
      labels: new this.ort.Tensor("int64", batch.labels, [num]),
      server_logits: new this.ort.Tensor("float32", batch.serverLogits, [num, numClasses]),
      alpha: new this.ort.Tensor("float32", Float32Array.of(batch.alpha), []),
      learning_rate: new this.ort.Tensor("float32", Float32Array.of(batch.learningRate), []),
    };
    for (const [name, vector] of this.vectors) {
      feeds[name] = new this.ort.Tensor(vector instanceof Float32Array ? "float32" : "int64", vector, [vector.length]);
    }
    const names = [...this.vectors.keys()];
    return troubleNamed(async () => {
      const outputs = await this.step.run(feeds, ["loss", "logits", ...names.map((name) => `next_${name}`)]);
      const next: Vectors = new Map();
      for (const name of names) {
        const found = outputs[`next_${name}`].data;
        const before = this.vectors.get(name) as Float32Array | BigInt64Array;
        if (found?.constructor !== before.constructor || (found as Float32Array).length !== before.length) {
          throw new TypeError(`next_${name} is no vector of ${before.length} numbers`);
        }
        next.set(name, found as Float32Array);
      }
      const loss = floatsOf(outputs.loss, 1);
      const logits = floatsOf(outputs.logits, num * numClasses);
      this.vectors = next;
      return { loss: loss[0], logits };
    });
  }

  async predict(images: Float32Array): Promise<Predicted> {
    const { imageSize, numClasses, featureShape } = this.manifest;
    const imageValues = 3 * imageSize ** 2;
    const featureValues = featureShape.reduce((product, side) => product * side, 1);
    const num = images.length / imageValues;
    return troubleNamed(async () => {
      const session = await this.evalSession();
      const features = new Float32Array(num * featureValues);
      const logits = new Float32Array(num * numClasses);
      const atOnce = Math.min(MOST_AT_ONCE, imagesAtOnce(imageSize));
      for (let begin = 0; begin < num; begin += atOnce) {
        const count = Math.min(atOnce, num - begin);
        const part = images.slice(begin * imageValues, (begin + count) * imageValues);
        const feeds = { images: new this.ort.Tensor("float32", part, [count, 3, imageSize, imageSize]) };
        const outputs = await session.run(feeds, ["features", "logits"]);
        features.set(floatsOf(outputs.features, count * featureValues), begin * featureValues);
        logits.set(floatsOf(outputs.logits, count * numClasses), begin * numClasses);
      }
      return { features, logits };
    });
  }

  state(): Uint8Array {
    const tensors = new Map<string, Tensor>();
    for (const [name, vector] of this.vectors) {
      tensors.set(name, vector instanceof Float32Array ? floats(vector) : longs(vector));
    }
    return writeTensors(tensors, `{"engine": "${this.name}", "learning_rate": ${pythonFloat(this.learningRate)}}`);
  }

  parameters(): Weights {
    const weights = new Map<string, Float32Array>();
    for (const [name, slot] of this.layout.slots) {
      const vector = this.vectors.get(slot.vector);
      const size = slot.shape.reduce((product, side) => product * side, 1);
      if (vector instanceof Float32Array) weights.set(name, vector.slice(slot.offset, slot.offset + size));
    }
    return weights;
  }

  private async evalSession(): Promise<OrtSession> {
    if (!this.eval) {
      const weights = new Map<string, Float32Array>();
      for (const name of [PARAMETERS, STATISTICS]) {
        const vector = this.vectors.get(name);
        if (vector instanceof Float32Array && vector.length) weights.set(name, vector);
      }
      this.eval = await opened(this.ort, freezeInputs(this.predictModel, weights), sessionOptions(this.numThreads));
    }
    return this.eval;
  }

  private forgetEval(): void {
    // What cannot be let go of is nobody's trouble.
    this.eval?.release?.().catch(() => undefined);
    this.eval = undefined;
  }
}

/**
 * Refuse a batch before it changes any state.
 *
 * @throws DatasetError Images are not finite, a label is none of the classes, or the batch is empty.
 */
function checkBatch(batch: Batch, numClasses: number, imageSize: number): void {
  const num = batch.labels.length;
  if (!num || batch.images.length !== num * 3 * imageSize ** 2) {
    throw new DatasetError(
      `a batch of ${batch.images.length} values and ${num} labels: expected ${3 * imageSize ** 2} each`,
    );
  }
  const outside = batch.labels.find((label) => label < 0n || label >= BigInt(numClasses));
  if (outside !== undefined) {
    throw new DatasetError(
      `a label is ${outside}, the artifacts were made for 0 to ${numClasses - 1}: split the data again, or export with ` +
        "more --num-classes",
    );
  }
  if (!allFinite(batch.images)) {
    throw new DatasetError("images hold NaN or infinity, expected numbers from 0 to 1: look at the data file");
  }
}

function fileOf(files: BundleFiles, name: string): Uint8Array {
  const found = files.get(name);
  if (!found) throw new ArtifactError(`the bundle has no ${name}: export or download the bundle again`);
  return found;
}

async function opened(ort: OrtRuntime, model: Uint8Array, options: Record<string, unknown>): Promise<OrtSession> {
  try {
    return await ort.InferenceSession.create(model, options);
  } catch (error) {
    if (isOutOfMemory(error)) throw outOfMemory(error);
    throw new ArtifactError(
      `ONNX Runtime cannot load the portable step: ${printable(String(error)).slice(0, 300)}: export it again, or install ` +
        "a newer onnxruntime",
      { cause: error },
    );
  }
}

function readState(data: Uint8Array, layout: PortableState): Vectors {
  let tensors: Map<string, Tensor>;
  try {
    ({ tensors } = readTensors(data, MOST_HEADER_BYTES));
  } catch (error) {
    if (!(error instanceof ShardError)) throw error;
    throw new ArtifactError(`cannot read the training state: ${error.message}`, { cause: error });
  }
  const vectors: Vectors = new Map();
  for (const [name, length] of layout.vectors) {
    const dtype = layout.dtypes.get(name) === "float32" ? "F32" : "I64";
    const found = tensors.get(name);
    if (length === 0 && !found) continue;
    if (found?.dtype !== dtype || found.shape.join() !== String(length)) {
      throw new ArtifactError(
        "the training state is of another network or optimizer than the bundle expects: remove it, or use the bundle that " +
          "it was made with",
      );
    }
    vectors.set(name, found.data as Float32Array | BigInt64Array);
  }
  return vectors;
}

function floatsOf(tensor: OrtTensor, length: number): Float32Array {
  if (!(tensor.data instanceof Float32Array) || tensor.data.length !== length) {
    throw new TypeError(`an output of shape [${tensor.dims.join(", ")}], expected ${length} numbers of float32`);
  }
  return tensor.data;
}

/** Let what fails inside of a graph that a server gave be an error that says so. */
async function troubleNamed<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof GKTError) throw error;
    if (isOutOfMemory(error)) throw outOfMemory(error);
    throw new UnsafeModelError(
      `the graph of this bundle fails: ${printable(String(error)).slice(0, 300)}: whoever runs the server must export ` +
        "again, or somebody between has changed it",
      { cause: error },
    );
  }
}

function outOfMemory(error: unknown): MemoryLimitError {
  return new MemoryLimitError(
    "memory does not suffice: allow more, or begin the run with a smaller --batch-size and --shard-samples on the server",
    { cause: error },
  );
}
