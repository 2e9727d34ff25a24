/** Options of `gkt-edge run`, by the names of `gkt edge run`. */

import path from "node:path";
import { parseArgs } from "node:util";
import { TapRequirement } from "../bundle/tap.js";
import { FITS, type Fit } from "../data/resize.js";
import type { PackOptions } from "../data/packing.js";
import { ConfigError } from "../errors.js";
import { FeatureNoise } from "../wire/feature-noise.js";
import { asClientId, checkClientId } from "../wire/messages.js";

const SHORT_PATIENCE_SECONDS = 30;

export const HELP = `gkt-edge run --join LINK --data FOLDER

Take part in the server's run until it ends.

The link of gkt serve, or a file that holds it, makes this device a member of the run; from then on --state-dir is enough.
Trains on --data, uploads feature maps, logits and labels (never images or weights), distils from the server's answers.
Started again after a stop, it goes on from --state-dir. In the end STATE_DIR/model.onnx is the combined model of this device.

  --data PATH              this device's .npz file of gkt data pack or gkt data split; or a folder with one folder of
                           photos a class, which are packed into --state-dir, again when they change
  --state-dir FOLDER       what survives a restart: bundle, weights, model [gkt-state/NAME, of --client-id or the data]
  --join LINK|FILE         the link into the run that gkt serve prints and gkt enroll makes, or a file that holds it;
                           also as GKT_JOIN; not needed once this device has enrolled
  --server URL             where the server is by now, if it has moved
  --client-id NAME         name of this device [drawn once, and kept in --state-dir]
  --dry-run                show what would leave this device; send nothing of it
  --map NAME=CLASS         a folder that stands for a class of the bundle, as dogs=dog; may be repeated
  --fit crop|pad|stretch   what happens to photos that are not square [crop]
  --validation-share X     share of the photos that is never trained on [0.1]
  --feature-clip X         limit features to -X..X before they leave [no limit]
  --feature-noise X        blur them with Gaussian noise of this deviation [none]
  --require-tap NAME|CxHxW take part only if the features that leave are those of this network, or of this shape
  --max-bits N             take part only if each number of the features leaves in so many bits at most
  --patience-seconds X     give up on a server that has not answered for so long [never, or 30 in a dry run]
  --stall-seconds X        try again when nothing has moved for so long [60]
  --checkpoint-seconds X   how often the middle of a round is saved; 0 after every step [30]
  --threads N              CPU threads [1]
  --json                   the result as JSON on stdout, progress as JSON lines on stderr
  --progress plain|json    progress on stderr [plain, or json with --json]
  --version                the version
`;

/** What was given. */
export interface RunOptions {
  readonly data: string;
  readonly stateDir: string;
  readonly join: string | undefined;
  readonly server: string | undefined;
  readonly clientId: string;
  /** What the name of a device begins with that has none. */
  readonly stem: string;
  readonly isDryRun: boolean;
  readonly pack: PackOptions;
  readonly noise: FeatureNoise;
  readonly tap: TapRequirement;
  readonly patienceSeconds: number;
  readonly stallSeconds: number;
  readonly checkpointSeconds: number;
  readonly numThreads: number;
  readonly isJson: boolean;
  readonly isJsonProgress: boolean;
}

const TEXT = { type: "string" } as const;
const FLAG = { type: "boolean" } as const;

/**
 * Read a command line, without the word `run`.
 *
 * @throws ConfigError An option is unknown, or a value is none.
 */
export function readOptions(args: readonly string[], environment: NodeJS.ProcessEnv): RunOptions {
  const values = parsed(args);
  const isDryRun = values["dry-run"] ?? false;
  if (values.data === undefined) throw new ConfigError("give --data, this device's file or its folder of photos");
  const fit = values.fit ?? "crop";
  if (!FITS.includes(fit as Fit)) throw new ConfigError(`--fit is '${fit}', expected ${FITS.join(", ")}`);
  const progress = values.progress ?? (values.json ? "json" : "plain");
  if (!["plain", "json"].includes(progress))
    throw new ConfigError(`--progress is '${progress}', expected plain or json`);
  const clientId = values["client-id"] ?? "";
  const share = number("validation-share", values["validation-share"], 0.1, 0, 1);
  if (share === 0 || share === 1) throw new ConfigError(`--validation-share is ${share}, expected above 0 and below 1`);
  const stem = asClientId(path.parse(path.resolve(values.data)).name).slice(0, 64);
  return {
    data: values.data,
    stateDir: values["state-dir"] ?? path.join("gkt-state", clientId || stem),
    join: values.join ?? (environment.GKT_JOIN || undefined),
    server: values.server,
    clientId: clientId && checkClientId(clientId),
    stem,
    isDryRun,
    pack: { maps: maps(values.map ?? []), fit: fit as Fit, validationShare: share },
    noise: new FeatureNoise(
      number("feature-clip", values["feature-clip"], 0, 0),
      number("feature-noise", values["feature-noise"], 0, 0),
    ),
    tap: new TapRequirement(values["require-tap"] ?? "", number("max-bits", values["max-bits"], 0, 1, 32)),
    patienceSeconds: number(
      "patience-seconds",
      values["patience-seconds"],
      isDryRun ? SHORT_PATIENCE_SECONDS : Infinity,
      0,
    ),
    stallSeconds: number("stall-seconds", values["stall-seconds"], 60, 0.001),
    checkpointSeconds: number("checkpoint-seconds", values["checkpoint-seconds"], 30, 0),
    numThreads: number("threads", values.threads, 1, 1, 256),
    isJson: values.json ?? false,
    isJsonProgress: progress === "json",
  };
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        data: TEXT,
        "state-dir": TEXT,
        join: TEXT,
        server: TEXT,
        "client-id": TEXT,
        "dry-run": FLAG,
        map: { type: "string", multiple: true },
        fit: TEXT,
        "validation-share": TEXT,
        "feature-clip": TEXT,
        "feature-noise": TEXT,
        "require-tap": TEXT,
        "max-bits": TEXT,
        "patience-seconds": TEXT,
        "stall-seconds": TEXT,
        "checkpoint-seconds": TEXT,
        threads: TEXT,
        json: FLAG,
        progress: TEXT,
      },
    }).values;
  } catch (error) {
    throw new ConfigError(
      `${error instanceof Error ? error.message.split(". ")[0] : String(error)}: gkt-edge --help lists the options`,
    );
  }
}

function number(name: string, given: string | undefined, otherwise: number, low: number, high = Infinity): number {
  if (given === undefined) return otherwise;
  const value = given.trim() === "" ? NaN : Number(given);
  if (!(value >= low && value <= high) || !Number.isFinite(value)) {
    const range = high === Infinity ? `${low} or more` : `${low} to ${high}`;
    throw new ConfigError(`--${name} is '${given.slice(0, 40)}', expected a number, ${range}`);
  }
  return value;
}

function maps(given: readonly string[]): Map<string, string> {
  return new Map(
    given.map((each) => {
      const found = /^([^=]+)=(.+)$/s.exec(each);
      if (!found) throw new ConfigError(`--map is '${each.slice(0, 60)}', expected one such as dogs=dog`);
      return [found[1], found[2]];
    }),
  );
}
