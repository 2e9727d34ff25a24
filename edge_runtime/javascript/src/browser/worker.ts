/** The worker of the page: a {@link Session} behind messages. */

import { GKTError, kindsOf } from "../errors.js";
import { printable } from "../printable.js";
import type { Request, Told } from "./messages.js";
import { onnxRuntime, usefulThreads } from "./onnx-runtime.js";
import { Session } from "./session.js";

/** Names of ONNX Runtime's files beside this one, put in by the build. */
declare const ORT_MJS: string;
declare const ORT_WASM: string;

const scope = globalThis as unknown as {
  postMessage(told: Told): void;
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  readonly location: Location;
};
const numThreads = usefulThreads();
const here = (name: string): string => new URL(name, scope.location.href).href;
const ort = onnxRuntime({ mjs: here(ORT_MJS), wasm: here(ORT_WASM) }, numThreads);
const session = new Session({ ort, numThreads }, (told) => scope.postMessage(told));

scope.onmessage = ({ data }) => {
  session.handle(data).catch((error: unknown) => {
    const message = printable(error instanceof Error ? error.message : String(error)).slice(0, 2000);
    scope.postMessage({ kind: "failed", kinds: error instanceof GKTError ? kindsOf(error) : [], message });
  });
};
