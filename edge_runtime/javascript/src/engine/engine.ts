/** The interface of what trains on a device. */

import type { Weights } from "../bundle/template.js";

/** Images `[n, 3, S, S]` in 0..1, row-major. */
export interface Batch {
  readonly images: Float32Array;
  /** `[n]`. */
  readonly labels: BigInt64Array;
  /** `[n, classes]`, raw; zeros without a teacher. */
  readonly serverLogits: Float32Array;
  /** Weight of the distillation. */
  readonly alpha: number;
  readonly learningRate: number;
}

/** What eval mode gives: features `[n, C, H, W]` and logits `[n, classes]`. */
export interface Predicted {
  readonly features: Float32Array;
  readonly logits: Float32Array;
}

/** Trains one edge network. */
export interface Engine {
  readonly name: string;
  /** Minimise Eq. 7 on one batch, with one optimizer step; the loss before it, and the logits that it was computed from. */
  trainStep(batch: Batch): Promise<{ readonly loss: number; readonly logits: Float32Array }>;
  /** Compute features and logits in eval mode. */
  predict(images: Float32Array): Promise<Predicted>;
  /** Write parameters, running statistics and optimizer state as one file. */
  state(): Uint8Array;
  /** Copy all parameters and running statistics, by their PyTorch names. */
  parameters(): Weights;
}
