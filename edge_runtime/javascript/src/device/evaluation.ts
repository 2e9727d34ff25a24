/** Accuracy of a combined model, and whether what a server gave is one at all; `edge_runtime/evaluation.py`. */

import { range, toFloatNchw } from "../data/augment.js";
import type { Samples } from "../data/private-data.js";
import { imagesAtOnce } from "../engine/portable.js";
import { isOutOfMemory, sessionOptions, type OrtRuntime } from "../engine/runtime.js";
import { GKTError, MemoryLimitError, UnsafeModelError } from "../errors.js";
import { allFinite } from "../numbers.js";
import { checkModel } from "../onnx/judging.js";
import { printable } from "../printable.js";
import { numRight } from "../rounds/client-round.js";

// Of a device: enough to tell a network from none, in batches that take less memory than training.
const MOST_TRIED = 1000;
const FEW = 8;

/** Top-1 accuracy (0..1) on so many samples. */
export interface Accuracy {
  readonly accuracy: number;
  readonly numExamples: number;
}

/**
 * Judge the combined model of a run, open it and run it over a device's validation images.
 *
 * @throws UnsafeModelError It is none, or gives no numbers.
 */
export async function tryModel(
  ort: OrtRuntime,
  model: Uint8Array,
  validation: Samples,
  numClasses: number,
  numThreads: number,
): Promise<Accuracy> {
  const name = "the trained network that the server gave";
  const num = Math.min(validation.labels.length, MOST_TRIED);
  const { size } = validation.images;
  const atOnce = Math.min(FEW, imagesAtOnce(size));
  try {
    checkModel(model, name);
    const session = await ort.InferenceSession.create(model, sessionOptions(numThreads));
    let right = 0;
    for (let begin = 0; begin < num; begin += atOnce) {
      const rows = range(begin, Math.min(num, begin + atOnce));
      const images = new ort.Tensor("float32", toFloatNchw(validation.images, rows), [rows.length, 3, size, size]);
      const { logits } = await session.run({ images }, ["logits"]);
      if (!(logits.data instanceof Float32Array) || logits.dims.join() !== `${rows.length},${numClasses}`) {
        throw new UnsafeModelError(
          `${name} gives logits of shape [${logits.dims.join(", ")}], expected [${rows.length}, ${numClasses}]`,
        );
      }
      if (!allFinite(logits.data))
        throw new UnsafeModelError(`${name} gives NaN: is it a template that was not filled?`);
      right += numRight(logits.data, validation.labels.slice(begin, begin + rows.length), numClasses);
    }
    await session.release?.();
    return { accuracy: right / num, numExamples: num };
  } catch (error) {
    if (isOutOfMemory(error))
      throw new MemoryLimitError("memory does not suffice for the combined model", { cause: error });
    const what =
      error instanceof GKTError
        ? error.message
        : `${name} is no model for these images: ${printable(String(error)).slice(0, 300)}`;
    throw new UnsafeModelError(
      `${what}. Nothing was written; the state folder is as it was: give the same command again when the server has a model`,
      { cause: error },
    );
  }
}
