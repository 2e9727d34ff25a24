/** How learning rates change over a run: the numbers of `gkt_core/rounds/learning_rate.py`. */

import type { RunConfig } from "../config/run-config.js";

const COSINE_END = 0.01;
const WARMUP_BEGIN = 0.04;
const ONE_CYCLE_WARMUP = 0.3;
const ONE_CYCLE_END = 0.001;

/**
 * Compute what a learning rate is multiplied with at a place in the run; above 0 and at most 1.
 *
 * @param progress Share of the run that is done, 0..1.
 */
export function scheduleAt(schedule: string, warmup: number, progress: number): number {
  const rising = schedule === "one_cycle" ? warmup || ONE_CYCLE_WARMUP : warmup;
  if (progress < rising) return WARMUP_BEGIN + ((1 - WARMUP_BEGIN) * progress) / rising;
  const rest = (progress - rising) / (1 - rising);
  if (schedule === "one_cycle") return 1 - (1 - ONE_CYCLE_END) * rest;
  return schedule === "cosine_by_step" ? cosine(rest) : 1;
}

function cosine(progress: number): number {
  return COSINE_END + ((1 - COSINE_END) * (1 + Math.cos(Math.PI * progress))) / 2;
}

/** Give the rate of a step, from 0, of the `numSteps` of a round. */
export function learningRateAt(
  config: RunConfig,
  base: number,
  roundNum: number,
  step: number,
  numSteps: number,
): number {
  const begin = (roundNum - 1) / config.rounds;
  const progress = Math.min(1, begin + ((1 / config.rounds) * step) / numSteps);
  return base * scheduleAt(config.lr_schedule, config.lr_warmup, progress);
}
