/** The same seed, data and settings give the same views, batches, shards, ids and texts as in Python. */

import assert from "node:assert/strict";
import test from "node:test";
import { agreedConfig } from "../src/config/run-config.js";
import { UploadSchedule } from "../src/config/upload-schedule.js";
import { augmentedView, batchOrder, viewPlaces } from "../src/data/augment.js";
import { digestsOf, heldOut, sampleIdsOf } from "../src/data/packing.js";
import type { PrivateData, Samples } from "../src/data/private-data.js";
import { fitted, FITS } from "../src/data/resize.js";
import { exitCodes, GKTError } from "../src/errors.js";
import { sha256Hex } from "../src/hashing.js";
import { manifestSha256, type Manifest } from "../src/bundle/manifest.js";
import { parseJson, type JsonObject } from "../src/json.js";
import { toHalf, fromHalf } from "../src/numbers.js";
import { printable } from "../src/printable.js";
import { clientSeed, type ClientPart } from "../src/rounds/client-part.js";
import { clientBatches } from "../src/rounds/client-round.js";
import { scheduleAt } from "../src/rounds/learning-rate.js";
import { samplesSha256 } from "../src/state/known-samples.js";
import { knownFeatures } from "../src/trust/known-networks.js";
import { readableShare } from "../src/trust/readable.js";
import { decode, encode } from "../src/wire/codec.js";
import { FeatureNoise, gaussian } from "../src/wire/feature-noise.js";
import { readJoinLink } from "../src/wire/join-link.js";
import { asClientId, TASK } from "../src/wire/messages.js";
import { readMessage } from "../src/wire/reading.js";
import { readSoftLabels, SoftLabels, writeFeatureShard } from "../src/wire/shards.js";
import { bytesOf, floatsOf, golden, levels, longsOf, numbers } from "./golden.js";

const SIZE = 8;
const CLASSES = 3;

function near(found: readonly number[], expected: readonly number[], tolerance: number, what = ""): void {
  assert.equal(found.length, expected.length, what);
  found.forEach((value, index) => {
    const apart = Math.abs(value - expected[index]);
    assert.ok(
      apart <= tolerance * (1 + Math.abs(expected[index])),
      `${what} [${index}]: ${value}, expected ${expected[index]}`,
    );
  });
}

function samples(num: number, first: number, step: number): Samples {
  const ids = Array.from(
    { length: num },
    (_, row) => (BigInt(row) * 0x1234567890abcden + BigInt(first)) & ((1n << 63n) - 1n),
  );
  return {
    images: { pixels: levels(num * SIZE * SIZE * 3, step), size: SIZE },
    labels: longsOf(Array.from({ length: num }, (_, row) => row % CLASSES)),
    sampleIds: BigInt64Array.from(ids.sort((one, other) => (one < other ? -1 : 1))),
  };
}

const DATA: PrivateData = {
  train: samples(13, 11, 7919),
  validation: samples(4, 7, 104729),
  classNames: ["ant", "bee", "cat"],
};

test("errors have the exit codes of the table", () => {
  for (const [name, code] of Object.entries(exitCodes())) assert.equal(golden.exit_codes[name], code, name);
});

test("views are those of Python, bit for bit", () => {
  for (const { images, sample_ids, cases } of golden.views) {
    const ids = longsOf(sample_ids);
    for (const each of cases) {
      const options = {
        seed: BigInt(each.seed),
        roundNum: BigInt(each.round_num),
        cropPadding: each.crop_padding,
        horizontalFlip: each.horizontal_flip,
      };
      const places = viewPlaces(ids, options);
      assert.deepEqual(
        places.map((place) => [place.top, place.left, place.flip]),
        each.top.map((top: number, row: number) => [top, each.left[row], each.flip[row]]),
      );
      const rows = [...ids.keys()];
      const view = augmentedView({ pixels: bytesOf(images), size: SIZE }, rows, ids, options);
      assert.deepEqual(view, floatsOf(each.view));
      // Any subset in any order is the same views.
      const some = augmentedView({ pixels: bytesOf(images), size: SIZE }, [3, 0], ids, options);
      const length = view.length / ids.length;
      assert.deepEqual(some.subarray(0, length), view.subarray(3 * length, 4 * length));
    }
  }
});

test("a device's seed and the order of its samples are those of Python", async () => {
  for (const [seed, name, expected] of golden.client_seeds)
    assert.equal(await clientSeed(BigInt(seed), name), BigInt(expected));
  for (const [num, seed, round, epoch, order] of golden.orders)
    assert.deepEqual(batchOrder(num, BigInt(seed), round, epoch), order);
});

test("a round's batches are those of Python: images, labels, soft labels by sample id, alpha", async () => {
  for (const [index, each] of golden.training.entries()) {
    const config = agreedConfig(parseJson(each.config, "settings") as JsonObject);
    const known = each.first_rounds ? DATA.train.sampleIds.slice(0, 9) : DATA.train.sampleIds;
    const soft = each.soft_labels
      ? new SoftLabels(known.slice().reverse(), floatsOf(each.soft_labels), CLASSES)
      : undefined;
    const part: ClientPart = {
      clientId: "client-a",
      data: DATA,
      config,
      numClasses: CLASSES,
      noise: new FeatureNoise(),
      seed: await clientSeed(config.seed, "client-a"),
      ...(each.first_rounds && { firstRounds: each.first_rounds }),
    };
    const options = { teacherRound: each.teacher_round ?? each.round_num - 1, learningRateScale: 0.5 };
    const made = [...clientBatches(part, soft, each.round_num, options)];
    assert.equal(made.length, each.batches.length);
    for (const [step, batch] of made.entries()) {
      const expected = each.batches[step];
      assert.equal(await sha256Hex(new Uint8Array(batch.images.buffer)), expected.images);
      assert.deepEqual(batch.labels, longsOf(expected.labels));
      assert.deepEqual(batch.serverLogits, floatsOf(expected.server_logits));
      assert.equal(batch.alpha, expected.alpha);
    }
    near(
      made.map((batch) => batch.learningRate),
      golden.near.learning_rates[index],
      1e-12,
      "learning rates",
    );
    const rest = [...clientBatches(part, soft, each.round_num, { ...options, skip: 2 })];
    assert.deepEqual(rest, made.slice(2));
  }
});

test("learning rates follow the schedules", () => {
  for (const [name, warmup, rates] of golden.near.schedule) {
    near(
      rates.map((_: number, step: number) => scheduleAt(name, warmup, step / 10)),
      rates,
      1e-12,
      name,
    );
  }
});

test("shards are those of Python, byte for byte, and decode to the same features", () => {
  const { shape, features, logits, labels, sample_ids, outside, cases } = golden.shards;
  const content = {
    sampleIds: longsOf(sample_ids),
    features: floatsOf(features),
    featureShape: shape,
    clientLogits: floatsOf(logits),
    labels: longsOf(labels),
  };
  const key = { clientId: "client-a", roundNum: 3, split: "train", index: 7 } as const;
  assert.deepEqual(
    cases.map((each: { codec: string }) => each.codec),
    ["fp32", "fp16", "uint8", "uint4", "uint3", "uint2", "uint1"],
  );
  for (const each of cases) {
    assert.deepEqual(writeFeatureShard(key, content, each.codec), bytesOf(each.bytes), each.codec);
    assert.deepEqual(
      writeFeatureShard(key, { ...content, outside: floatsOf(outside) }, each.codec),
      bytesOf(each.cropped),
    );
    assert.deepEqual(decode(encode(content.features, shape, each.codec), shape), floatsOf(each.decoded));
  }
});

test("soft labels are read, found by sample id, and refused where they are others", () => {
  const { soft_labels, sample_ids, logits } = golden.shards;
  const data = bytesOf(soft_labels);
  const read = readSoftLabels(data, "client-a", 3, CLASSES);
  const ids = [...longsOf(sample_ids)];
  const rows = floatsOf(logits);
  assert.deepEqual(read.forSamples([ids[3], ids[0]]), Float32Array.of(...rows.subarray(9, 12), ...rows.subarray(0, 3)));
  assert.throws(() => read.forSamples([123n]), /no soft labels came for 1 samples/);
  for (const [client, round, classes] of [
    ["client-b", 3, CLASSES],
    ["client-a", 4, CLASSES],
    ["client-a", 3, 4],
  ] as const) {
    assert.throws(() => readSoftLabels(data, client, round, classes), { name: "ShardError" });
  }
  for (let length = 0; length < data.length; length++) {
    assert.throws(() => readSoftLabels(data.subarray(0, length), "client-a", 3, CLASSES), { name: "ShardError" });
  }
});

test("halves are rounded as numpy rounds them", () => {
  for (const [value, bits] of golden.shards.halves) assert.equal(toHalf(value), bits, String(value));
  for (let bits = 0; bits < 0x7c00; bits++) assert.equal(toHalf(fromHalf(bits)), bits);
});

test("noise is drawn from the key, the sample and the round", () => {
  const key = Uint8Array.from({ length: 32 }, (_, index) => index);
  for (const [id, round, expected] of golden.near.noise)
    near([...gaussian(key, BigInt(id), round, 7)], expected, 1e-6, "noise");
  const blurred = new FeatureNoise(0.25, 0, key).blur(Float32Array.of(-1, 0.1, 1), longsOf([1]), 1);
  assert.deepEqual(blurred, Float32Array.of(-0.25, 0.1, 0.25));
});

test("photos have the ids and the parts that Python gives them", async () => {
  const { packed, owner_key, sample_ids, held_out, held_out_again, held_out_same, samples_sha256 } = golden.known_data;
  const images = { pixels: bytesOf(packed), size: SIZE };
  const digests = digestsOf(images, 9, bytesOf(owner_key));
  const ids = sampleIdsOf(digests);
  assert.deepEqual(ids, longsOf(sample_ids));
  assert.deepEqual(heldOut(digests, ids, 0.3), held_out);
  const before = (rows: [number, number]): Samples => ({
    images,
    labels: new BigInt64Array(rows[1] - rows[0]),
    sampleIds: ids.slice(...rows),
  });
  assert.deepEqual(
    heldOut(digests, ids, 0.3, { train: before([0, 5]), validation: before([5, 7]), classNames: [] }),
    held_out_again,
  );
  const same = digestsOf(
    { pixels: new Uint8Array(4 * 192).map((_, index) => images.pixels[index % 192]), size: SIZE },
    4,
    bytesOf(owner_key),
  );
  assert.deepEqual(heldOut(same, sampleIdsOf(same), 0.3), held_out_same);
  assert.equal(await samplesSha256(DATA), samples_sha256);
});

test("pictures are scaled as Pillow scales them, within a level: its versions differ in which side goes first", () => {
  for (const { height, width, pixels, fits } of golden.near.pictures) {
    for (const fit of FITS) {
      const found = fitted({ pixels: bytesOf(pixels), height, width }, SIZE, fit);
      const apart = found.map((level, index) => Math.abs(level - fits[fit][index]));
      assert.ok(found.length === fits[fit].length && Math.max(...apart) <= 1, `${height}x${width} ${fit}`);
    }
  }
});

test("a manifest is hashed as the file that Python writes", async () => {
  for (const [text, sha256] of golden.json)
    assert.equal(await manifestSha256(parseJson(text, "a manifest") as JsonObject), sha256);
});

test("links are read as in Python, and refused without their token", () => {
  for (const { link, said } of golden.links) {
    if (said.url === undefined) {
      assert.throws(
        () => readJoinLink(link),
        (error: GKTError) => error.name === "ConfigError" && !error.message.includes("tttt"),
        link,
      );
      continue;
    }
    const { url, enrolment, secret, bundleSha256, caSha256 } = readJoinLink(link);
    assert.deepEqual({ url, enrolment, secret, bundle_sha256: bundleSha256, ca_sha256: caSha256 }, said);
  }
});

test("messages are taken and refused as in Python", () => {
  for (const { body, said } of golden.messages) {
    const read = () => readMessage(TASK.read, TASK.name, new TextEncoder().encode(body));
    if (said === null) assert.throws(read, { name: "MessageError" }, body);
    else assert.deepEqual(read(), said);
  }
});

test("uploads are due when Python says so", () => {
  for (const { uploads, num_uploads, due } of golden.schedules) {
    const schedule = UploadSchedule.parse(uploads);
    assert.equal(schedule.numUploads(9), num_uploads);
    due.forEach((lasts: boolean[], index: number) => {
      assert.deepEqual(
        lasts.map((_, last) => schedule.isDue(index + 1, last, 0.05)),
        lasts,
        uploads,
      );
    });
  }
  for (const bad of ["", "rounds=0", "drift=0", "drift=.", "rounds=1,"])
    assert.throws(() => UploadSchedule.parse(bad), { name: "ConfigError" });
});

test("texts of others and names of files are shown as in Python", () => {
  for (const [text, shown] of golden.printable) assert.equal(printable(text), shown);
  for (const [name, id] of golden.client_ids) assert.equal(asClientId(name), id);
});

test("the device knows what the extractor of every built-in network computes", () => {
  for (const { network, shape, weights, features, readable } of golden.near.extractors) {
    const values = new Map<string, Float32Array>(
      weights.map(([name, sides, step, more]: [string, number[], number, number]) => [
        name,
        numbers(
          sides.reduce((product, side) => product * side, 1),
          step,
          more,
        ),
      ]),
    );
    const manifest = {
      edgeNetwork: network,
      imageSize: 16,
      fields: { pixel_mean: [0.4, 0.5, 0.6], pixel_std: [0.2, 0.25, 0.3] },
    } as unknown as Manifest;
    const images = numbers(8 * 3 * 16 * 16, 271, 0.5);
    const found = knownFeatures(images, values, manifest);
    near(
      [...found].filter((_, index) => index % 37 === 0),
      features,
      1e-4,
      network,
    );
    near([readableShare(images, 16, found, shape)], [readable], 1e-4, network);
  }
});
