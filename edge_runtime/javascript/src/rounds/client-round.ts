/** A device's local training in a round (Algorithm 1, lines 17 to 21), over any engine; `gkt_core/rounds/client_round.py`. */

import { edgeDistils } from "../config/run-config.js";
import { UploadSchedule } from "../config/upload-schedule.js";
import { batches, batchOrder } from "../data/augment.js";
import type { Batch, Engine } from "../engine/engine.js";
import { GKTError } from "../errors.js";
import { argmax } from "../numbers.js";
import type { SoftLabels } from "../wire/shards.js";
import { drawView, type ClientPart } from "./client-part.js";
import { learningRateAt } from "./learning-rate.js";

// Added to a round's number it names a view that no teacher ever sees.
const FRESH_VIEWS = 1n << 32n;

/** How far local training of one round has come; with the engine's state, all that resuming needs. */
export interface LocalProgress {
  /** Optimizer steps that are done. */
  readonly num_steps: number;
  /** Sum of the losses of all samples seen. */
  readonly total_loss: number;
  /** Samples that the local head got right. */
  readonly num_right: number;
  /** Samples seen. */
  readonly num_seen: number;
}

export const NOTHING_DONE: LocalProgress = { num_steps: 0, total_loss: 0, num_right: 0, num_seen: 0 };

/** What belongs to a round beside its number. */
export interface RoundOptions {
  /** The round of the upload that the soft labels answer. */
  readonly teacherRound: number;
  /** What the learning rate is multiplied with. */
  readonly learningRateScale?: number;
  /** So many batches at the beginning are left out. */
  readonly skip?: number;
}

/**
 * Make a device's batches in round t (lines 19 and 20): of the view that the teacher saw, with its soft labels.
 *
 * Samples that came to the data since the teacher saw them have none: they share batches of their own, with alpha 0.
 *
 * @throws ShardError A training sample that should have a soft label has none.
 */
export function* clientBatches(
  part: ClientPart,
  softLabels: SoftLabels | undefined,
  roundNum: number,
  options: RoundOptions,
): Generator<Batch> {
  const { config, data } = part;
  const { labels, sampleIds } = data.train;
  const { teacherRound, learningRateScale = 1, skip = 0 } = options;
  const alpha = softLabels && edgeDistils(config) ? config.alpha : 0;
  // Where uploads are rare, a device that nobody teaches has no reason to see one view again and again.
  const isReused =
    config.teacher_view === "reused" && (edgeDistils(config) || UploadSchedule.parse(config.uploads).isEvery);
  const viewRound = isReused ? BigInt(teacherRound) : BigInt(roundNum - 1) + FRESH_VIEWS;
  const untaught = Array.from(labels, (_, row) => (part.firstRounds?.[row] ?? 0) > teacherRound);
  let step = 0;
  for (let epoch = 1; epoch <= config.local_epochs; epoch++) {
    const allRows = rowsOfEpoch(untaught, config.batch_size, part.seed, roundNum, epoch);
    const numSteps = config.local_epochs * allRows.length;
    for (const rows of allRows) {
      step += 1;
      if (step <= skip) continue;
      const batchAlpha = rows.some((row) => untaught[row]) ? 0 : alpha;
      yield {
        images: drawView(part, data.train, rows, viewRound),
        labels: BigInt64Array.from(rows, (row) => labels[row]),
        serverLogits:
          batchAlpha && softLabels
            ? softLabels.forSamples(rows.map((row) => sampleIds[row]))
            : new Float32Array(rows.length * part.numClasses),
        alpha: batchAlpha,
        learningRate: learningRateAt(config, config.edge_lr * learningRateScale, roundNum, step - 1, numSteps),
      };
    }
  }
}

/** Cut an epoch into batches; samples without a teacher come together, as alpha is a batch's. */
function rowsOfEpoch(
  untaught: readonly boolean[],
  batchSize: number,
  seed: bigint,
  roundNum: number,
  epoch: number,
): number[][] {
  const order = batchOrder(untaught.length, seed, roundNum, epoch);
  if (untaught.every(Boolean) || !untaught.some(Boolean)) return batches(order, batchSize);
  // The batch at the seam, if it holds both kinds, has no teacher: one of an epoch.
  const apart = [...order.filter((row) => !untaught[row]), ...order.filter((row) => untaught[row])];
  const cut = batches(apart, batchSize);
  return batchOrder(cut.length, seed, roundNum, epoch).map((each) => cut[each]);
}

/** Who hears of a round's training. */
export interface TrainingListener {
  /** Hear of images that were trained on. */
  images(num: number): void;
  /** Hear how far the round is, after each step; training waits for it. */
  progress(progress: LocalProgress): Promise<void>;
}

/**
 * Train in round t (lines 19 to 21) on the batches of {@link clientBatches}.
 *
 * With `done`, where an earlier process left off whose state the engine has, its steps are not repeated.
 *
 * @throws ShardError A training sample that should have a soft label has none.
 * @throws GKTError The loss is no longer finite.
 */
export async function clientUpdate(
  engine: Engine,
  part: ClientPart,
  softLabels: SoftLabels | undefined,
  roundNum: number,
  options: RoundOptions & { readonly done?: LocalProgress },
  listener: TrainingListener,
): Promise<LocalProgress> {
  let progress = options.done ?? NOTHING_DONE;
  if (progress.num_seen) listener.images(progress.num_seen);
  for (const batch of clientBatches(part, softLabels, roundNum, { ...options, skip: progress.num_steps })) {
    const { loss, logits } = await engine.trainStep(batch);
    if (!Number.isFinite(loss)) {
      throw new GKTError(`the local loss is ${loss} in round ${roundNum}: training diverged, lower edge_lr`);
    }
    const num = batch.labels.length;
    progress = {
      num_steps: progress.num_steps + 1,
      total_loss: progress.total_loss + loss * num,
      num_right: progress.num_right + numRight(logits, batch.labels, part.numClasses),
      num_seen: progress.num_seen + num,
    };
    listener.images(num);
    await listener.progress(progress);
  }
  return progress;
}

/** Count the samples whose largest logit is that of their label. */
export function numRight(logits: Float32Array, labels: BigInt64Array, numClasses: number): number {
  let right = 0;
  labels.forEach((label, row) => {
    if (BigInt(argmax(logits, row * numClasses, (row + 1) * numClasses)) === label) right += 1;
  });
  return right;
}
