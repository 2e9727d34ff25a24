// Trains with train_step.onnx in Node: node train_step.cjs BUNDLE BATCHES OUT
//
// BUNDLE is a folder of gkt export. BATCHES is a folder with batches.json ([{num, alpha, learning_rate}, ...]) and for
// each step k the raw little-endian files k.images (float32), k.labels (int64), k.server_logits (float32).
// OUT gets the state vectors after the last step as raw float32 or int64 files, and losses.json.
"use strict";
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-node");

const TYPES = { F32: ["float32", Float32Array], I64: ["int64", BigInt64Array] };

// A copy, because views of typed arrays must be aligned and bytes inside a file are not.
function typed(Type, buffer, begin, end) {
  return new Type(buffer.buffer.slice(buffer.byteOffset + begin, buffer.byteOffset + end));
}

// safetensors: 8 bytes of header length, a JSON header, the tensors back to back.
function readState(file) {
  const buffer = fs.readFileSync(file);
  const start = 8 + Number(buffer.readBigUInt64LE(0));
  const header = JSON.parse(buffer.subarray(8, start).toString());
  const state = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [type, Type] = TYPES[entry.dtype];
    const [begin, end] = entry.data_offsets;
    state[name] = new ort.Tensor(type, typed(Type, buffer, start + begin, start + end), entry.shape);
  }
  return state;
}

async function main(bundle, batches, out) {
  const manifest = JSON.parse(fs.readFileSync(path.join(bundle, "manifest.json")));
  const size = manifest.image_size;
  const read = (Type, name) => {
    const buffer = fs.readFileSync(path.join(batches, name));
    return typed(Type, buffer, 0, buffer.length);
  };
  const scalar = (value) => new ort.Tensor("float32", Float32Array.of(value), []);
  const session = await ort.InferenceSession.create(path.join(bundle, "train_step.onnx"), {
    intraOpNumThreads: 1,
    enableMemPattern: false,
  });
  let state = readState(path.join(bundle, "initial_state.safetensors"));
  const fetches = ["loss", ...Object.keys(state).map((name) => `next_${name}`)];
  const losses = [];
  const steps = JSON.parse(fs.readFileSync(path.join(batches, "batches.json")));
  for (const [k, { num, alpha, learning_rate }] of steps.entries()) {
    const outputs = await session.run(
      {
        ...state,
        images: new ort.Tensor("float32", read(Float32Array, `${k}.images`), [num, 3, size, size]),
        labels: new ort.Tensor("int64", read(BigInt64Array, `${k}.labels`), [num]),
        server_logits: new ort.Tensor("float32", read(Float32Array, `${k}.server_logits`), [num, manifest.num_classes]),
        alpha: scalar(alpha),
        learning_rate: scalar(learning_rate),
      },
      fetches,
    );
    losses.push(outputs.loss.data[0]);
    state = Object.fromEntries(Object.keys(state).map((name) => [name, outputs[`next_${name}`]]));
  }
  fs.mkdirSync(out, { recursive: true });
  for (const [name, { data }] of Object.entries(state)) {
    fs.writeFileSync(path.join(out, name), Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  }
  fs.writeFileSync(path.join(out, "losses.json"), JSON.stringify(losses));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
