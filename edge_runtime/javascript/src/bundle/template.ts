/** Model templates: ONNX files whose weights are filled in as bytes; `gkt_core/bundle/template.py`. */

import { TemplateError } from "../errors.js";
import type { TensorSlot } from "./manifest.js";

export const EXTRACTOR_PREFIX = "extractor.";
export type Weights = ReadonlyMap<string, Float32Array>;

/**
 * Put weights into their places in an ONNX file; a copy of the same length.
 *
 * All slots whose names begin with `prefix` must be given; other tensors are ignored.
 *
 * @throws TemplateError A tensor is missing, has another size, or lies outside the file.
 */
export function fillTemplate(
  template: Uint8Array,
  slots: ReadonlyMap<string, TensorSlot>,
  weights: Weights,
  prefix: string,
): Uint8Array {
  const filled = template.slice();
  const view = new DataView(filled.buffer);
  const wanted = [...slots].filter(([name]) => name.startsWith(prefix));
  const missing = wanted.filter(([name]) => !weights.has(name)).map(([name]) => name);
  const unknown = [...weights.keys()].filter((name) => name.startsWith(prefix) && !slots.has(name));
  if (!wanted.length || missing.length || unknown.length) {
    throw new TemplateError(
      `weights do not fit the template: missing [${missing.slice(0, 3).join(", ")}], unknown [${unknown.slice(0, 3).join(", ")}]`,
    );
  }
  for (const [name, slot] of wanted) {
    const values = weights.get(name) as Float32Array;
    const size = slot.shape.reduce((product, each) => product * each, 1);
    if (values.length !== size)
      throw new TemplateError(`${name} has ${values.length} numbers, the template expects ${size}`);
    if (slot.offset + 4 * size > filled.length)
      throw new TemplateError(`${name} lies outside the template: it is not the bundle's`);
    values.forEach((value, index) => view.setFloat32(slot.offset + 4 * index, value, true));
  }
  return filled;
}
