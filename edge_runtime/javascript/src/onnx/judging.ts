/** Judge an ONNX file of others before ONNX Runtime opens it: by name, or not at all; `gkt_core/onnx_files/judging.py`. */

import { UnsafeModelError } from "../errors.js";
import { grouped } from "../numbers.js";
import { shownAscii } from "../printable.js";
import { allNodes, readModel, type Graph, type Model } from "./reading.js";

/** No file of a network that a device trains is as large. */
const MOST_BYTES = 1 << 30;
const METADATA = ["class_names", "onnx.infer"];
// Operators that mix many numbers into each: what is behind one is computed, and no copy.
const MIXES = new Set(["Conv", "ConvTranspose", "Gemm", "MatMul"]);
// What only depends on how large its input is.
const OF_SHAPES = new Set(["Shape", "Size"]);

/** Arithmetic alone, nothing that reads files or runs code: `STANDARD` of `gkt_core/onnx_files/operators.py`. */
export const STANDARD: ReadonlySet<string> = new Set([
  "Add",
  "BatchNormalization",
  "Cast",
  "Concat",
  "Constant",
  "Conv",
  "ConvTranspose",
  "Div",
  "Exp",
  "Expand",
  "Gather",
  "Gemm",
  "GlobalAveragePool",
  "HardSigmoid",
  "Identity",
  "LogSoftmax",
  "MatMul",
  "Max",
  "Mul",
  "Neg",
  "OneHot",
  "Pad",
  "Pow",
  "Reciprocal",
  "ReduceMean",
  "ReduceSum",
  "Relu",
  "Reshape",
  "Scan",
  "Shape",
  "Size",
  "Slice",
  "SoftmaxCrossEntropyLoss",
  "Split",
  "Sqrt",
  "Sub",
  "Sum",
  "Transpose",
  "Unsqueeze",
  "Abs",
  "AveragePool",
  "Clip",
  "Dropout",
  "Elu",
  "Erf",
  "Flatten",
  "Gelu",
  "GlobalMaxPool",
  "GroupNormalization",
  "HardSwish",
  "InstanceNormalization",
  "LayerNormalization",
  "LeakyRelu",
  "Log",
  "MaxPool",
  "Min",
  "PRelu",
  "ReduceMax",
  "Sigmoid",
  "Softmax",
  "Softplus",
  "Squeeze",
  "Tanh",
]);

/**
 * Refuse an ONNX file that does anything but arithmetic on its inputs.
 *
 * @param name What to call it in errors.
 * @throws UnsafeModelError It reads other files, has other operators, functions, or is no ONNX file; says what.
 */
export function checkModel(data: Uint8Array, name: string): Model {
  try {
    if (data.length > MOST_BYTES) {
      throw new UnsafeModelError(`${grouped(data.length)} bytes, allowed are ${grouped(MOST_BYTES)}`);
    }
    const model = readModel(data);
    for (const node of allNodes(model.graph)) {
      if (node.domain || !STANDARD.has(node.operator)) {
        const whose = node.domain ? ` of ${shownAscii(node.domain)}` : "";
        throw new UnsafeModelError(`the operator ${shownAscii(node.operator)}${whose} is none of those allowed`);
      }
      if (node.bodies.length && node.operator !== "Scan") {
        throw new UnsafeModelError(`a graph inside of the operator ${shownAscii(node.operator)}`);
      }
    }
    for (const key of [...model.metadata.keys()].sort()) {
      if (!METADATA.includes(key)) throw new UnsafeModelError(`metadata ${shownAscii(key)}, which no export has`);
    }
    return model;
  } catch (error) {
    if (!(error instanceof UnsafeModelError)) throw error;
    throw new UnsafeModelError(
      `${name} is not opened: ${error.message}. Whoever runs the server must export again, or somebody between has changed it`,
    );
  }
}

/**
 * Refuse a graph whose output is its input again, cut, joined, scaled or otherwise rearranged.
 *
 * Every way from the input to the output has to lead through a layer that mixes pixels.
 *
 * @throws UnsafeModelError There is another way; names its last operator.
 */
export function checkComputed(graph: Graph, name: string, output: string, source: string): void {
  const makers = new Map(
    graph.nodes.flatMap((node) => node.outputs.filter(Boolean).map((each) => [each, node] as const)),
  );
  const waiting: [string, string][] = [[output, ""]];
  const seen = new Set<string>();
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [each, behind] = next;
    if (each === source) {
      const how = behind ? ` by way of ${shownAscii(behind)}` : "";
      throw new UnsafeModelError(
        `${name} passes the private images through: its ${output} are made of the ${source}${how} without any layer ` +
          "between; this device sends nothing to this server. Whoever runs it must export again, or somebody between has " +
          "changed the file",
      );
    }
    const node = makers.get(each);
    if (seen.has(each) || !node || OF_SHAPES.has(node.operator)) continue;
    seen.add(each);
    if (MIXES.has(node.operator)) continue;
    if (node.bodies.length) {
      throw new UnsafeModelError(
        `${name}: its ${output} are made inside of ${shownAscii(node.operator)}, of no export`,
      );
    }
    waiting.push(...node.inputs.map((inner): [string, string] => [inner, node.operator]));
  }
}
