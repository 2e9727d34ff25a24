/** The worker of the page of `gkt profile browser`. */

import { timedSteps, type StepsSpec } from "../measure/steps.js";
import { onnxRuntime } from "./onnx-runtime.js";

const scope = globalThis as unknown as {
  postMessage(told: unknown): void;
  onmessage: ((event: MessageEvent<StepsSpec>) => void) | null;
  readonly location: Location;
};
const here = (name: string): string => new URL(name, scope.location.href).href;

async function read(name: string): Promise<Uint8Array> {
  return new Uint8Array(await (await fetch(here(`bundle/${name}`))).arrayBuffer());
}

scope.onmessage = ({ data }) => {
  const ort = onnxRuntime(
    { mjs: here("ort-wasm-simd-threaded.mjs"), wasm: here("ort-wasm-simd-threaded.wasm") },
    data.threads,
  );
  timedSteps(ort, read, data).then(
    (samples_ms) => scope.postMessage({ samples_ms }),
    (error: unknown) => scope.postMessage({ error: String(error) }),
  );
};
