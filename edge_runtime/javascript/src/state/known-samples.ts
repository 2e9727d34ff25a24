/**
 * What a device's samples were at its last start, so that what changed since is taken for what it is.
 *
 * An id stands for one image with one label for the whole run. What the data say otherwise under an old id is another
 * sample, which goes under an id that is drawn for it; the file and the rules of `edge_runtime/state/known_samples.py`.
 */

import { sortedSamples, type PrivateData, type Samples } from "../data/private-data.js";
import { readNpz, writeNpy, writeNpz } from "../data/npz.js";
import { ArtifactError, DatasetError } from "../errors.js";
import { blake2b, fromHex, hex, int64Bytes, joined, randomBytes, sha256 } from "../hashing.js";
import type { DeviceState, StateKeeper } from "./device-state.js";

const FILE = "samples.npz";
const [TRAIN, VALIDATION, GONE] = [0, 1, 2];
const DIGEST_BYTES = 16;
const COLUMNS = ["file_ids", "sent_ids", "labels", "parts", "first_rounds"] as const;
const DIGESTS = "digests";
// The last round before the note was kept; files that do not say it were kept from the first on.
const UNKNOWN = "unknown_rounds";

type Change = "kept" | "added" | "removed" | "exchanged" | "relabelled" | "moved_to_train" | "moved_to_validation";

/** What was under an id of the data, in which part, and what the server calls it. */
interface Known {
  readonly digest: string;
  readonly label: bigint;
  readonly sentId: bigint;
  readonly part: number;
  readonly firstRound: number;
}

/** A device's data as it takes part with them. */
export interface KnownData {
  /** Under the ids that the server knows, or will know, them by. */
  readonly data: PrivateData;
  /** The first round whose soft labels can hold each training sample. */
  readonly firstRounds: number[];
  /** What changed since the last start, a line a kind, and the rule that holds for it. */
  readonly lines: string[];
  /** Samples that the data have held at any start, each id once: no upload holds more of them. */
  readonly numEver: number;
  /** In rounds up to this one an earlier version trained, on samples that nobody noted. */
  readonly unknownRounds: number;
}

/** Hash the ids that the server sees: another hash for other samples, and it gives nothing away. */
export async function samplesSha256(data: PrivateData): Promise<string> {
  const parts = [data.train, data.validation].flatMap(({ sampleIds }) => [
    int64Bytes(sampleIds.length),
    new Uint8Array(sampleIds.buffer, sampleIds.byteOffset, sampleIds.byteLength),
  ]);
  return hex(await sha256(joined(parts)));
}

/**
 * Compare the data with those of the last start, and remember them for the next one.
 *
 * Where they changed, a round that was under way is begun anew: its order of batches was another one.
 *
 * @returns The data to take part with, and the state to go on from.
 * @throws ArtifactError What was kept cannot be read.
 */
export async function takeUp(
  keeper: StateKeeper,
  data: PrivateData,
  state: DeviceState,
): Promise<[KnownData, DeviceState]> {
  const file = await keeper.store.read(FILE);
  const [before, unknownRounds] = file
    ? readKnown(file, keeper.store.place)
    : [new Map<bigint, Known>(), state.trained_round];
  const isNew = !before.size;
  const [after, counts] = compared(before, data, isNew ? 1 : state.trained_round + 1);
  const lines = isNew ? [] : changeLines(counts);
  let next = state;
  // Before what tells a change is overwritten: who is killed in between begins anew all the same.
  if (lines.length) next = await keeper.forgetPlace(state);
  if (lines.length || isNew) await keeper.store.write(FILE, writeKnown(after, unknownRounds));
  const sent = { ...data, train: underSentIds(data.train, after), validation: underSentIds(data.validation, after) };
  const rounds = new Map([...after.values()].map((known) => [known.sentId, known.firstRound]));
  const firstRounds = Array.from(sent.train.sampleIds, (id) => rounds.get(id) ?? 1);
  return [{ data: sent, firstRounds, lines, numEver: after.size, unknownRounds }, next];
}

function compared(
  before: ReadonlyMap<bigint, Known>,
  data: PrivateData,
  firstRound: number,
): [Map<bigint, Known>, Record<Change, number>] {
  // What is gone is remembered as gone: its id may come back with another image.
  const after = new Map([...before].map(([id, known]) => [id, { ...known, part: GONE, firstRound: 0 }]));
  const sent = new Set([...before.values()].map((known) => known.sentId));
  const counts = {
    kept: 0,
    added: 0,
    removed: 0,
    exchanged: 0,
    relabelled: 0,
    moved_to_train: 0,
    moved_to_validation: 0,
  };
  for (const [part, samples] of [
    [TRAIN, data.train],
    [VALIDATION, data.validation],
  ] as const) {
    samples.sampleIds.forEach((fileId, row) => {
      const [digest, label, old] = [digestOf(samples, row), samples.labels[row], before.get(fileId)];
      const what = whatChanged(old, digest, label, part);
      let [sentId, since] = [fileId, firstRound];
      if (old && old.digest === digest && old.label === label) {
        sentId = old.sentId;
        if (what === "kept") since = old.firstRound;
      } else if (old || sent.has(fileId)) {
        sentId = drawn(sent);
      }
      after.set(fileId, { digest, label, sentId, part, firstRound: since });
      counts[what] += 1;
    });
  }
  const there = [...before.values()].filter((known) => known.part !== GONE).length;
  counts.removed =
    there - (counts.kept + counts.exchanged + counts.relabelled + counts.moved_to_train + counts.moved_to_validation);
  return [after, counts];
}

function whatChanged(old: Known | undefined, digest: string, label: bigint, part: number): Change {
  if (!old || old.part === GONE) return "added";
  if (old.digest !== digest) return "exchanged";
  if (old.label !== label) return "relabelled";
  if (old.part !== part) return part === TRAIN ? "moved_to_train" : "moved_to_validation";
  return "kept";
}

function changeLines(counts: Readonly<Record<Change, number>>): string[] {
  const rules: [Change, string][] = [
    ["added", "new: trained on for a round without a teacher"],
    ["removed", "gone: forgotten"],
    ["exchanged", "with another image under their old id: other samples, which count as new"],
    ["relabelled", "with another label: trained on with that, for a round without a teacher"],
    ["moved_to_train", "that were for validation: count as new"],
    ["moved_to_validation", "that were trained on are for validation now: accuracy on those says little"],
  ];
  const lines = rules
    .filter(([kind]) => counts[kind])
    .map(([kind, rule]) => `  ${counts[kind]} ${counts[kind] === 1 ? "sample" : "samples"} ${rule}`);
  if (!lines.length) return [];
  if (!counts.kept) {
    lines.push(
      "  not one is left of those that it began with: if this is another device's file, stop, and give each device its own " +
        "--state-dir",
    );
  }
  return [`the data of this device have changed since its last start; as they were: ${counts.kept} samples`, ...lines];
}

function digestOf(samples: Samples, row: number): string {
  const bytes = samples.images.size ** 2 * 3;
  return hex(blake2b(samples.images.pixels.subarray(row * bytes, (row + 1) * bytes), { dkLen: DIGEST_BYTES }));
}

/** Draw an id: it says nothing of the image, and no other sample has it. */
function drawn(sent: Set<bigint>): bigint {
  for (;;) {
    const id = new DataView(randomBytes(8).buffer).getBigUint64(0, true) >> 1n;
    if (!sent.has(id)) {
      sent.add(id);
      return id;
    }
  }
}

function underSentIds(samples: Samples, known: ReadonlyMap<bigint, Known>): Samples {
  const sentIds = samples.sampleIds.map((id) => (known.get(id) as Known).sentId);
  return sentIds.every((id, row) => id === samples.sampleIds[row])
    ? samples
    : sortedSamples(samples.images, samples.labels, sentIds);
}

function readKnown(file: Uint8Array, place: string): [Map<bigint, Known>, number] {
  try {
    const arrays = readNpz(file, FILE);
    const columns = COLUMNS.map((name) => {
      const found = arrays.get(name);
      if (found?.kind !== "whole") throw new DatasetError(`${name} is missing`);
      return found.values;
    });
    const digests = arrays.get(DIGESTS);
    const num = columns[0].length;
    if (
      digests?.kind !== "bytes" ||
      digests.bytes.length !== num * DIGEST_BYTES ||
      columns.some((each) => each.length !== num)
    ) {
      throw new DatasetError("its columns do not fit together");
    }
    const [fileIds, sentIds, labels, parts, firstRounds] = columns;
    const known = new Map<bigint, Known>();
    fileIds.forEach((id, row) => {
      const digest = hex(digests.bytes.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES));
      known.set(id, {
        digest,
        label: labels[row],
        sentId: sentIds[row],
        part: Number(parts[row]),
        firstRound: Number(firstRounds[row]),
      });
    });
    const unknown = arrays.get(UNKNOWN);
    return [known, unknown?.kind === "whole" ? Number(unknown.values[0]) : 0];
  } catch (error) {
    throw new ArtifactError(
      `${place}: ${FILE} cannot be read: what the data were at the last start is not known; remove ${place} to begin anew`,
      { cause: error },
    );
  }
}

function writeKnown(known: ReadonlyMap<bigint, Known>, unknownRounds: number): Uint8Array {
  const rows = [...known];
  const column = (value: (row: [bigint, Known]) => bigint): Uint8Array =>
    writeNpy("<i8", [rows.length], BigInt64Array.from(rows, value));
  const digests = joined(rows.map(([, each]) => fromHex(each.digest) as Uint8Array));
  return writeNpz(
    new Map([
      ["file_ids", column(([id]) => id)],
      ["sent_ids", column(([, each]) => each.sentId)],
      ["labels", column(([, each]) => each.label)],
      ["parts", column(([, each]) => BigInt(each.part))],
      ["first_rounds", column(([, each]) => BigInt(each.firstRound))],
      [DIGESTS, writeNpy("|u1", [rows.length, DIGEST_BYTES], digests)],
      [UNKNOWN, writeNpy("<i8", [], BigInt64Array.of(BigInt(unknownRounds)))],
    ]),
  );
}
