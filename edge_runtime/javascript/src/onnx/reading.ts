/**
 * Read an ONNX file strictly into its nodes and interface, without ONNX Runtime; `gkt_core/onnx_files/reading.py`.
 *
 * Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. What could lead outside of the file, or could
 * be read in two ways, is refused here whoever asks: external data, functions, references, sparse tensors, two graphs,
 * a file of ONNX Runtime's own format that also looks like this one.
 */

import { UnsafeModelError } from "../errors.js";
import { shownAscii } from "../printable.js";
import { contents, FOUR_BYTES, number, numbers, read, text, texts, type Field, type Schema } from "./protobuf.js";

const OTHER_FORMAT = "ORTM";
// float32, uint8, int8, int32, int64, bool, float16, float64.
const ITEM_BYTES: Readonly<Record<string, number>> = { 1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8 };
const MOST_NODES = 100_000;
const MOST_DIMS = 8;
const DEEPEST = 2;

const MODEL: Schema = {
  name: "model",
  fields: {
    1: "ir_version",
    2: "producer",
    3: "producer_version",
    4: "domain",
    5: "version",
    6: "doc",
    7: "graph",
    8: "opsets",
    14: "metadata",
  },
  once: ["ir_version", "producer", "producer_version", "domain", "version", "doc", "graph"],
  refused: { 20: "training information", 25: "functions of its own", 26: "a configuration of devices" },
};
const OPSET: Schema = {
  name: "list of operator sets",
  fields: { 1: "domain", 2: "version" },
  once: ["domain", "version"],
};
const PAIR: Schema = { name: "metadata", fields: { 1: "key", 2: "value" }, once: ["key", "value"] };
const GRAPH: Schema = {
  name: "graph",
  fields: { 1: "nodes", 2: "name", 5: "tensors", 10: "doc", 11: "inputs", 12: "outputs", 13: "values", 16: "metadata" },
  once: ["name", "doc"],
  refused: { 14: "annotations of quantisation", 15: "sparse tensors" },
};
const NODE: Schema = {
  name: "node",
  fields: {
    1: "inputs",
    2: "outputs",
    3: "name",
    4: "operator",
    5: "attributes",
    6: "doc",
    7: "domain",
    9: "metadata",
  },
  once: ["name", "operator", "doc", "domain"],
  refused: { 8: "an overloaded function", 10: "a configuration of devices" },
};
const ATTRIBUTE: Schema = {
  name: "attribute",
  fields: {
    1: "name",
    2: "float",
    3: "int",
    4: "text",
    5: "tensor",
    6: "graph",
    7: "floats",
    8: "ints",
    9: "texts",
    13: "doc",
    20: "type",
  },
  once: ["name", "float", "int", "text", "tensor", "graph", "doc", "type"],
  refused: {
    10: "several tensors",
    11: "several graphs",
    21: "a reference to a function's attribute",
    22: "a sparse tensor",
    23: "sparse tensors",
  },
};
const TENSOR: Schema = {
  name: "tensor",
  fields: {
    1: "dims",
    2: "type",
    4: "floats",
    5: "ints",
    7: "longs",
    8: "name",
    9: "raw",
    10: "doubles",
    12: "doc",
    14: "location",
    16: "metadata",
  },
  once: ["type", "name", "raw", "doc", "location"],
  refused: {
    3: "a segment of a larger tensor",
    6: "texts",
    13: "external data: it would read other files of this machine",
  },
};
const VALUE: Schema = {
  name: "value",
  fields: { 1: "name", 2: "type", 3: "doc", 4: "metadata" },
  once: ["name", "type", "doc"],
};
const TYPE: Schema = {
  name: "type",
  fields: { 1: "tensor", 4: "sequence", 6: "denotation" },
  once: ["tensor", "sequence", "denotation"],
  refused: { 5: "a map", 8: "a sparse tensor", 9: "an optional value" },
};
const TENSOR_TYPE: Schema = { name: "tensor's type", fields: { 1: "type", 2: "shape" }, once: ["type", "shape"] };
const SEQUENCE: Schema = { name: "type of a sequence", fields: { 1: "element" }, once: ["element"] };
const TYPED_DATA = ["floats", "ints", "longs", "doubles"];

/** One operator of a graph. */
export interface Node {
  readonly operator: string;
  /** Empty for `ai.onnx`. */
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Graphs that it holds. */
  readonly bodies: readonly Graph[];
}

/** The nodes of a graph and the names of its interface. */
export interface Graph {
  readonly nodes: readonly Node[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** An ONNX file. */
export interface Model {
  readonly graph: Graph;
  readonly metadata: ReadonlyMap<string, string>;
}

/** List every node of a graph, those of inner graphs too. */
export function allNodes(graph: Graph): Node[] {
  return graph.nodes.flatMap((node) => [node, ...node.bodies.flatMap(allNodes)]);
}

/**
 * Read an ONNX file.
 *
 * @throws UnsafeModelError It is none, is cut short, or has what no export of gkt has; says what.
 */
export function readModel(data: Uint8Array): Model {
  if (String.fromCharCode(...data.subarray(4, 8)) === OTHER_FORMAT) {
    throw new UnsafeModelError("it could be taken for a file of ONNX Runtime's own format");
  }
  const given = read(data, MODEL);
  if (!given.graph.length) throw new UnsafeModelError("no whole ONNX file: it has no graph");
  for (const each of contents(given.opsets)) read(each, OPSET);
  const graph = readGraph(contents(given.graph)[0], { nodes: 0 }, 1);
  const pairs = contents(given.metadata).map((each) => read(each, PAIR));
  return { graph, metadata: new Map(pairs.map((pair) => [text(pair.key), text(pair.value)])) };
}

function readGraph(message: Uint8Array, counted: { nodes: number }, depth: number): Graph {
  if (depth > DEEPEST) throw new UnsafeModelError(`graphs inside of graphs, ${depth} deep`);
  const given = read(message, GRAPH);
  contents(given.tensors).forEach(checkTensor);
  contents(given.values).forEach(readValue);
  return {
    nodes: contents(given.nodes).map((each) => readNode(each, counted, depth)),
    inputs: contents(given.inputs).map(readValue),
    outputs: contents(given.outputs).map(readValue),
  };
}

function readNode(message: Uint8Array, counted: { nodes: number }, depth: number): Node {
  counted.nodes += 1;
  if (counted.nodes > MOST_NODES) throw new UnsafeModelError(`more than ${MOST_NODES} nodes`);
  const given = read(message, NODE);
  const domain = text(given.domain);
  const bodies: Graph[] = [];
  for (const each of contents(given.attributes)) {
    const attribute = read(each, ATTRIBUTE);
    if (attribute.float.some((field) => field.kind !== FOUR_BYTES)) {
      throw new UnsafeModelError("no whole ONNX file: an attribute's number of another kind");
    }
    contents(attribute.tensor).forEach(checkTensor);
    bodies.push(...contents(attribute.graph).map((graph) => readGraph(graph, counted, depth + 1)));
  }
  return {
    operator: text(given.operator),
    domain: domain === "ai.onnx" ? "" : domain,
    inputs: texts(given.inputs),
    outputs: texts(given.outputs),
    bodies,
  };
}

/** Check that a tensor's data are all there, inside of the file. */
function checkTensor(message: Uint8Array): void {
  const given = read(message, TENSOR);
  const name = shownAscii(text(given.name));
  if (number(given.location) !== 0n) {
    throw new UnsafeModelError(`the tensor ${name} has its data in another file of this machine`);
  }
  const type = number(given.type);
  const itemBytes = ITEM_BYTES[String(type)];
  if (itemBytes === undefined) throw new UnsafeModelError(`the tensor ${name} is of type ${type}, of no export`);
  const dims = numbers(given.dims);
  if (dims.length > MOST_DIMS || dims.some((length) => length < 0n || length >= 1n << 31n)) {
    throw new UnsafeModelError(
      `the tensor ${name} has a shape that none has: [${dims.slice(0, MOST_DIMS).join(", ")}]`,
    );
  }
  const count = dims.reduce((product, length) => product * length, 1n);
  const typed: Field[] = TYPED_DATA.flatMap((kind) => given[kind]);
  let needed = count;
  let numBytes = BigInt(typed.reduce((sum, field) => sum + field.whole.length, 0));
  // Each value takes a byte at least, whichever way it is written.
  let isWhole = numBytes >= needed;
  if (given.raw.length) {
    needed = count * BigInt(itemBytes);
    numBytes = BigInt(contents(given.raw)[0].length);
    isWhole = numBytes === needed && !typed.length;
  }
  if (!isWhole)
    throw new UnsafeModelError(`the tensor ${name} has ${numBytes} bytes of data, its shape says ${needed}`);
}

/** Check the type of an input or output; its name. */
function readValue(message: Uint8Array): string {
  const given = read(message, VALUE);
  for (const kind of contents(given.type)) {
    const types = read(kind, TYPE);
    for (const sequence of contents(types.sequence)) {
      for (const inner of contents(read(sequence, SEQUENCE).element)) read(inner, TYPE);
    }
    for (const tensor of contents(types.tensor)) number(read(tensor, TENSOR_TYPE).type);
  }
  return text(given.name);
}
