/**
 * Rounds of a device without a server, for the test that compares them with Python's:
 *
 *     node rounds.js BUNDLE DEVICE.npz CONFIG.json SOFT_LABELS OUT [FOLDER OF ANOTHER onnxruntime-node]
 *
 * Round 1 has no teacher, round 2 the soft labels. OUT gets the state after each round and every shard.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { Manifest, PORTABLE_FILES } from "../src/bundle/manifest.js";
import { agreedConfig } from "../src/config/run-config.js";
import { readPrivateData } from "../src/data/private-data.js";
import { PortableEngine } from "../src/engine/portable.js";
import type { OrtRuntime } from "../src/engine/runtime.js";
import { parseJson, type JsonObject } from "../src/json.js";
import { onnxRuntime } from "../src/node/packages.js";
import { clientSeed, type ClientPart } from "../src/rounds/client-part.js";
import { clientUpdate } from "../src/rounds/client-round.js";
import { encodedShard, shards } from "../src/rounds/client-shards.js";
import { GuardedEngine } from "../src/trust/features.js";
import { FeatureNoise } from "../src/wire/feature-noise.js";
import { readSoftLabels } from "../src/wire/shards.js";

const CLIENT = "client-a";

/** ONNX Runtime of another version; those before 1.20 mix up outputs unless all are asked for. */
function otherRuntime(folder: string): OrtRuntime {
  const ort = createRequire(path.join(folder, "package.json"))("onnxruntime-node");
  return {
    Tensor: ort.Tensor,
    InferenceSession: {
      create: async (model, options) => {
        const session = await ort.InferenceSession.create(model, options);
        return { run: (feeds) => session.run(feeds) };
      },
    },
  };
}

const [bundle, data, configFile, softFile, out, other] = process.argv.slice(2);
const bytes = (...parts: string[]): Uint8Array => new Uint8Array(readFileSync(path.join(...parts)));
const config = agreedConfig(parseJson(readFileSync(configFile, "utf8"), "settings") as JsonObject);
const manifest = Manifest.from(
  parseJson(readFileSync(path.join(bundle, "manifest.json"), "utf8"), "a manifest") as JsonObject,
);
const files = new Map(PORTABLE_FILES.map((name) => [name as string, bytes(bundle, name)]));
const ort = other ? otherRuntime(other) : await onnxRuntime();
const engine = new GuardedEngine(await PortableEngine.open(ort, manifest, files, 1), manifest);
const part: ClientPart = {
  clientId: CLIENT,
  data: readPrivateData(bytes(data), data),
  config,
  numClasses: manifest.numClasses,
  noise: new FeatureNoise(),
  seed: await clientSeed(config.seed, CLIENT),
};
const soft = readSoftLabels(bytes(softFile), CLIENT, 1, manifest.numClasses);
const silent = { images: () => undefined, progress: async () => undefined };
mkdirSync(out, { recursive: true });
const progress = [];
for (const roundNum of [1, 2]) {
  const teacher = roundNum === 1 ? undefined : soft;
  progress.push(await clientUpdate(engine, part, teacher, roundNum, { teacherRound: roundNum - 1 }, silent));
  writeFileSync(path.join(out, `state-${roundNum}`), engine.state());
  for (const split of ["train", "validation"] as const) {
    for await (const shard of shards(engine, part, manifest.featureShape, roundNum, split)) {
      writeFileSync(path.join(out, `${roundNum}-${split}-${shard.key.index}`), encodedShard(shard, part));
    }
  }
}
process.stdout.write(`${JSON.stringify(progress)}\n`);
