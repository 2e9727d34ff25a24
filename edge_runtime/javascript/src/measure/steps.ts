/** How long training steps take, for `gkt profile browser`: the same in Node and in a page's worker. */

import { Manifest, PORTABLE_FILES } from "../bundle/manifest.js";
import { PortableEngine } from "../engine/portable.js";
import type { OrtRuntime } from "../engine/runtime.js";
import { isObject, parseJsonBytes } from "../json.js";
import { ArtifactError } from "../errors.js";

/** What to measure. */
export interface StepsSpec {
  readonly batch_size: number;
  /** Steps that do not count. */
  readonly warmup: number;
  readonly steps: number;
  readonly threads: number;
}

/**
 * Train on random images with the portable engine.
 *
 * @param read Gives a file of the bundle.
 * @returns Milliseconds of each step that counts, in their order.
 */
export async function timedSteps(
  ort: OrtRuntime,
  read: (name: string) => Promise<Uint8Array>,
  spec: StepsSpec,
): Promise<number[]> {
  const values = parseJsonBytes(await read("manifest.json"), "a manifest");
  if (!isObject(values)) throw new ArtifactError("the manifest is none: export the bundle again");
  const manifest = Manifest.from(values);
  const files = new Map<string, Uint8Array>();
  for (const name of PORTABLE_FILES) files.set(name, await read(name));
  const engine = await PortableEngine.open(ort, manifest, files, spec.threads);
  const { numClasses, imageSize } = manifest;
  const num = spec.batch_size;
  const batch = {
    images: Float32Array.from({ length: num * 3 * imageSize ** 2 }, () => Math.random()),
    labels: BigInt64Array.from({ length: num }, (_, row) => BigInt(row % numClasses)),
    serverLogits: Float32Array.from({ length: num * numClasses }, () => Math.random() - 0.5),
    alpha: 1,
    learningRate: 1e-3,
  };
  const taken: number[] = [];
  for (let step = 0; step < spec.warmup + spec.steps; step++) {
    const started = performance.now();
    await engine.trainStep(batch);
    if (step >= spec.warmup) taken.push(performance.now() - started);
  }
  return taken;
}
