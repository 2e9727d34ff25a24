/** Inputs of an ONNX file become constants, by its bytes alone; `edge_runtime/engines/frozen_inputs.py` says why. */

import { ArtifactError } from "../errors.js";
import { joined } from "../hashing.js";
import { fieldsOf, LENGTH, writeField, writeNumber } from "./protobuf.js";

const MODEL_GRAPH = 7;
const GRAPH_INITIALIZER = 5;
const GRAPH_INPUT = 11;
const INPUT_NAME = 1;
const TENSOR_DIMS = 1;
const TENSOR_TYPE = 2;
const TENSOR_NAME = 8;
const TENSOR_RAW = 9;
const FLOAT = 1;

/**
 * Give some inputs of a model their value for good.
 *
 * @param values Vectors of float32 by the name of the input that each takes the place of.
 * @returns The file with so many inputs fewer.
 * @throws ArtifactError It has no such input.
 */
export function freezeInputs(model: Uint8Array, values: ReadonlyMap<string, Float32Array>): Uint8Array {
  const frozen = new Set<string>();
  const whole = fieldsOf(model).map((outer) => {
    if (outer.number !== MODEL_GRAPH || outer.kind !== LENGTH) return outer.whole;
    const kept = fieldsOf(outer.content).filter((inner) => {
      const name = inner.number === GRAPH_INPUT ? nameOf(inner.content) : undefined;
      if (name === undefined || !values.has(name)) return true;
      frozen.add(name);
      return false;
    });
    const constants = [...values].map(([name, value]) => writeField(GRAPH_INITIALIZER, tensor(name, value)));
    return writeField(MODEL_GRAPH, joined([...kept.map((inner) => inner.whole), ...constants]));
  });
  const missing = [...values.keys()].filter((name) => !frozen.has(name));
  if (missing.length)
    throw new ArtifactError(`the model has no input ${missing.join(", ")}; export or download the bundle again`);
  return joined(whole);
}

function nameOf(valueInfo: Uint8Array): string | undefined {
  const found = fieldsOf(valueInfo).find((each) => each.number === INPUT_NAME);
  return found && new TextDecoder().decode(found.content);
}

function tensor(name: string, value: Float32Array): Uint8Array {
  return joined([
    writeNumber(TENSOR_DIMS, value.length),
    writeNumber(TENSOR_TYPE, FLOAT),
    writeField(TENSOR_NAME, new TextEncoder().encode(name)),
    writeField(TENSOR_RAW, new Uint8Array(value.buffer, value.byteOffset, value.byteLength)),
  ]);
}
