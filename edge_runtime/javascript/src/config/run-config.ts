/** The settings of a server's run, as far as a device has to do with them: read strictly, and agreed to or not. */

import { ConfigError, MessageError } from "../errors.js";
import type { JsonObject } from "../json.js";
import { CODEC_BITS } from "../wire/codec.js";
import { real, record, text, truth, whole, type Reader } from "../wire/reading.js";
import { UploadSchedule } from "./upload-schedule.js";

/** Hyper-parameters that devices and server must agree on; the fields of `RunConfig` in Python. */
export interface RunConfig {
  readonly num_clients: number;
  readonly rounds: number;
  readonly mode: string;
  readonly max_staleness: number;
  readonly client_fraction: number;
  readonly local_epochs: number;
  readonly server_epochs: number;
  readonly batch_size: number;
  readonly server_batch_size: number;
  readonly edge_lr: number;
  readonly edge_optimizer: string;
  readonly edge_weight_decay: number;
  readonly edge_amsgrad: boolean;
  readonly server_lr: number;
  readonly weight_decay: number;
  readonly decay_norms: boolean;
  readonly label_smoothing: number;
  readonly server_ema: number;
  readonly server_optimizer: string;
  readonly server_amsgrad: boolean;
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly lr_schedule: string;
  readonly lr_warmup: number;
  readonly plateau_patience: number;
  readonly plateau_factor: number;
  readonly batch_mixing: string;
  readonly temperature: number;
  readonly alpha: number;
  readonly direction: string;
  readonly soft_labels: string;
  readonly teacher_view: string;
  readonly shared_init: boolean;
  readonly crop_padding: number;
  readonly horizontal_flip: boolean;
  readonly feature_augmentation: string;
  readonly codec: string;
  readonly uploads: string;
  readonly compress: boolean;
  readonly shard_samples: number;
  readonly precision: string;
  /** Up to 63 bits. */
  readonly seed: bigint;
  readonly quarantine: boolean;
}

/** What a device lets a run ask of it: a thousand times what a run of any size wants. */
const MOST: Readonly<Partial<Record<keyof RunConfig, number>>> = {
  num_clients: 1_000_000,
  rounds: 1_000_000,
  local_epochs: 1000,
  batch_size: 65_536,
  shard_samples: 1_000_000,
  max_staleness: 1_000_000,
  edge_lr: 1000,
  temperature: 1000,
  alpha: 1000,
};

const seed: Reader<bigint> = (value, where) => {
  const digits = (value as { text?: unknown } | null)?.text;
  const number = typeof digits === "string" && /^\d{1,19}$/.test(digits) ? BigInt(digits) : -1n;
  if (number < 0n || number >= 1n << 63n) throw new ConfigError(`${where} is none, expected 0 to 9223372036854775807`);
  return number;
};

const one =
  (...choices: readonly string[]): Reader<string> =>
  (value, where) => {
    const chosen = text(value, where);
    if (!choices.includes(chosen))
      throw new ConfigError(`${where} is '${chosen.slice(0, 40)}', expected ${choices.join(", ")}`);
    return chosen;
  };

const above =
  (high = Infinity, open = Infinity): Reader<number> =>
  (value, where) => {
    const number = real()(value, where);
    if (!(number > 0 && number <= high && number < open))
      throw new ConfigError(`${where} is ${number}, expected above 0`);
    return number;
  };

const positive = whole(1);
const share = real(0, 0.999_999_999_999_999_9);

const READ = record<RunConfig>("RunConfig", {
  num_clients: positive,
  rounds: positive,
  mode: one("sync", "async"),
  max_staleness: whole(0),
  client_fraction: above(1),
  local_epochs: positive,
  server_epochs: positive,
  batch_size: whole(2),
  server_batch_size: whole(2),
  edge_lr: above(),
  edge_optimizer: one("adam", "adamw", "sgd"),
  edge_weight_decay: real(0),
  edge_amsgrad: truth,
  server_lr: above(),
  weight_decay: real(0),
  decay_norms: truth,
  label_smoothing: share,
  server_ema: share,
  server_optimizer: one("adam", "sgd"),
  server_amsgrad: truth,
  momentum: above(1, 1),
  nesterov: truth,
  lr_schedule: one("constant", "cosine", "cosine_by_step", "one_cycle"),
  lr_warmup: share,
  plateau_patience: whole(0),
  plateau_factor: above(1, 1),
  batch_mixing: one("mixed", "by_client"),
  temperature: above(),
  alpha: real(0),
  direction: one("none", "s2e", "both"),
  soft_labels: one("last_epoch", "evaluation"),
  teacher_view: one("reused", "fresh"),
  shared_init: truth,
  crop_padding: whole(0, 64),
  horizontal_flip: truth,
  feature_augmentation: one("none", "crop", "flip", "crop+flip"),
  codec: one(...Object.keys(CODEC_BITS)),
  uploads: text,
  compress: truth,
  shard_samples: positive,
  precision: one("fp32", "bf16", "auto"),
  seed,
  quarantine: truth,
});

/**
 * Read the settings of a server's run.
 *
 * @throws ConfigError A key is unknown, or a value is none that a run can have.
 * @throws MessageError The run asks for more than a device does.
 */
export function agreedConfig(values: JsonObject): RunConfig {
  let config: RunConfig;
  try {
    config = READ(values, "RunConfig");
  } catch (error) {
    if (error instanceof MessageError) throw new ConfigError(error.message, { cause: error });
    throw error;
  }
  UploadSchedule.parse(config.uploads);
  for (const [name, most] of Object.entries(MOST)) {
    const value = config[name as keyof RunConfig] as number;
    if (value > most) {
      throw new MessageError(
        `the run asks for ${name} ${value}, a device does ${most} at most: ask whoever runs the server`,
      );
    }
  }
  return config;
}

/** Say whether devices use the server's soft labels (Eq. 7). */
export function edgeDistils(config: RunConfig): boolean {
  return config.direction === "s2e" || config.direction === "both";
}

/** Say whether the server crops features; devices then tell it what lies outside of an image. */
export function cropsFeatures(config: RunConfig): boolean {
  return config.feature_augmentation.includes("crop");
}
