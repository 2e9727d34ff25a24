/** Features of 4 bits and fewer become the shards and the frames of levels that Python makes, to the byte. */

import assert from "node:assert/strict";
import test from "node:test";
import { sha256Hex } from "../src/hashing.js";
import { groupOf, pack, symbolsOf, unpack } from "../src/wire/levels/packing.js";
import { levelFeatures, wireBody } from "../src/wire/levels/frame.js";
import { storedFrame } from "../src/wire/levels/stored.js";
import { writeFeatureShard } from "../src/wire/shards.js";
import { golden, levels } from "./golden.js";

const NUM = 5;
const CLASSES = 3;
const KEY = { clientId: "client-a", roundNum: 3, split: "train", index: 7 } as const;

/** The content of frames.py. */
function content(featureShape: readonly [number, number, number], num = NUM) {
  const count = num * featureShape[0] * featureShape[1] * featureShape[2];
  const wave = (index: number): number => Math.abs(((index * 13) % 509) - 254) - (Math.floor(index / 97) % 131);
  return {
    sampleIds: BigInt64Array.from({ length: num }, (_, row) => BigInt(11 * row)),
    features: Float32Array.from({ length: count }, (_, index) => Math.max(wave(index), 0) / 64),
    featureShape,
    clientLogits: Float32Array.from({ length: num * CLASSES }, (_, index) => (index % 7) / 8),
    labels: BigInt64Array.from({ length: num }, (_, row) => BigInt(row % CLASSES)),
  };
}

test("shards of few bits, and their frames, are those of Python", async () => {
  assert.ok(golden.frames.length > 15);
  const modes = new Set<number>();
  for (const { codec, shape, shard_sha256, frame } of golden.frames) {
    const where = `${codec} ${shape}`;
    const shard = writeFeatureShard(KEY, content(shape), codec);
    assert.equal(await sha256Hex(shard), shard_sha256, where);
    const found = levelFeatures(codec, shape);
    assert.equal(found === undefined, frame === null, where);
    if (!found) continue;
    // Of a shard as small as these, whichever is shorter is sent: the frame is to be looked at.
    const longer = async (data: Uint8Array): Promise<Uint8Array> =>
      data === shard ? new Uint8Array(1 << 20) : storedFrame(data);
    const body = await wireBody(shard, found, longer);
    assert.equal(body.encoding, "gkt-levels", where);
    assert.equal(body.data.length, frame.num_bytes, where);
    assert.equal(await sha256Hex(body.data), frame.sha256, where);
    modes.add(frame.mode);
  }
  assert.ok(modes.size > 1);
});

test("levels are packed as they lie beside each other, and come back", () => {
  for (const bits of [1, 2, 3, 4]) {
    for (const pixels of [1, 5, 8, 15, 24]) {
      const given = levels(3 * pixels).map((value) => value & ((1 << bits) - 1));
      const packed = pack(given, pixels, bits);
      const [inGroup, numBytes] = groupOf(bits);
      assert.equal(packed.length, 3 * Math.ceil(pixels / inGroup) * numBytes);
      assert.deepEqual(unpack(packed, pixels, bits), given);
    }
  }
  assert.deepEqual(symbolsOf(Uint8Array.of(0x21, 0x43), 4), Uint8Array.of(1, 2, 3, 4));
});

test("what is of no use is not coded, and small shards travel as is shorter", async () => {
  for (const codec of ["fp32", "fp16", "uint8"]) assert.equal(levelFeatures(codec, [4, 4, 8]), undefined);
  const shape = [1, 2, 4] as const;
  const shard = writeFeatureShard(KEY, content(shape, 1), "uint4");
  assert.deepEqual(await wireBody(shard, levelFeatures("uint4", shape), undefined), { data: shard, encoding: "" });
  const short = async (): Promise<Uint8Array> => Uint8Array.of(1);
  const body = await wireBody(shard, undefined, short);
  assert.deepEqual(body, { data: Uint8Array.of(1), encoding: "zstd" });
});

test("a stored frame has as many blocks as it needs", async () => {
  for (const [length, blocks] of [
    [0, 1],
    [1, 1],
    [1 << 17, 1],
    [(1 << 17) + 1, 2],
  ]) {
    assert.equal((await storedFrame(new Uint8Array(length))).length, 9 + 3 * blocks + length);
  }
});
