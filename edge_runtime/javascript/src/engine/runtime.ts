/** What of ONNX Runtime is used, the same of onnxruntime-node and onnxruntime-web. */

/** A tensor of ONNX Runtime. */
export interface OrtTensor {
  readonly data: unknown;
  readonly dims: readonly number[];
  dispose?(): void;
}

/** A loaded model. */
export interface OrtSession {
  run(
    feeds: Readonly<Record<string, OrtTensor>>,
    fetches: readonly string[],
  ): Promise<Readonly<Record<string, OrtTensor>>>;
  release?(): Promise<void>;
}

/** ONNX Runtime. */
export interface OrtRuntime {
  readonly Tensor: new (
    type: "float32" | "int64",
    data: Float32Array | BigInt64Array,
    dims: readonly number[],
  ) => OrtTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<OrtSession>;
  };
}

/** Make the options of every session: so many CPU threads, no warnings, and of training no plan of all buffers at once. */
export function sessionOptions(numThreads: number, trains = false): Record<string, unknown> {
  return {
    intraOpNumThreads: numThreads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    enableMemPattern: !trains,
  };
}

const OUT_OF_MEMORY =
  /bad_alloc|Failed to allocate memory|bad allocation|Array buffer allocation failed|memory access out of bounds/;

/** Say whether an exception, ONNX Runtime's or another, means that memory ran out. */
export function isOutOfMemory(error: unknown): boolean {
  return error instanceof Error && OUT_OF_MEMORY.test(error.message);
}
