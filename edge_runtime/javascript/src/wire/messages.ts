/** The messages of the wire that a device reads and writes; their types come from the server's OpenAPI document. */

import { MessageError, ProtocolVersionError } from "../errors.js";
import { printable } from "../printable.js";
import type { JsonObject } from "../json.js";
import type { components } from "./openapi.js";
import { anyObject, list, real, record, shownText, text, truth, whole, type Reader } from "./reading.js";

type Schemas = components["schemas"];
export type ErrorBody = Schemas["ErrorBody"];
export type RunList = Schemas["RunList"];
/** What a device must know before it joins; config and manifest as they came. */
export type RunInfo = Omit<Schemas["RunInfo"], "config" | "manifest"> & { config: JsonObject; manifest: JsonObject };
export type JoinRequest = Required<Schemas["JoinRequest"]>;
export type Task = Schemas["Task"];
export type MissingShards = Schemas["MissingShards"];
export type ShardReceipt = Schemas["ShardReceipt"];
export type RoundReport = Schemas["RoundReport"];
export type NewCredential = Schemas["NewCredential"];
export type Enrolled = Schemas["Enrolled"];

export const PROTOCOL_VERSION = 1;
/** Says what a side speaks, `1.1`; who says nothing is of 1.0 and refuses fields that it does not know. */
export const PROTOCOL_HEADER = "GKT-Protocol";
export const SPOKEN = "1.1";
export const SHA256_HEADER = "X-Content-SHA256";
/** In answers to a device whose operator wants it to draw another secret. */
export const ROTATE_HEADER = "X-GKT-Rotate";
/** Which process of a device asks: two that show one secret by turns are two copies of its folder. */
export const PROCESS_HEADER = "X-GKT-Process";
export const MOST_ROUNDS = 1_000_000;
export const MAX_MISSING_SHARDS = 10_000;
/** What a server may ask a device to wait. */
export const LONGEST_WAIT_SECONDS = 3600;

const round = whole(0, MOST_ROUNDS);
const shardIndex = whole(0, 2 ** 31);
const count = whole(0, 2 ** 53);

/** A reader of a message, and the names of its fields. */
export interface MessageType<T> {
  readonly name: string;
  readonly read: Reader<T>;
  readonly fields: readonly string[];
}

function message<T>(
  name: string,
  fields: { [Name in keyof T]-?: Reader<T[Name]> },
  defaults: Partial<T> = {},
): MessageType<T> {
  return { name, read: record<T>(name, fields, defaults, true), fields: Object.keys(fields) };
}

export const ERROR_BODY = message<ErrorBody>("ErrorBody", { error: text, message: text });
export const RUN_LIST = message<RunList>("RunList", { protocol_version: whole(), run_ids: list(text) });
export const RUN_INFO = message<RunInfo>(
  "RunInfo",
  {
    protocol_version: whole(),
    run_id: text,
    config: anyObject,
    manifest: anyObject,
    gkt_version: text,
  },
  { gkt_version: "" },
);
export const TASK = message<Task>(
  "Task",
  {
    action: text,
    round_num: round,
    soft_labels_round: round,
    retry_after_seconds: real(0, LONGEST_WAIT_SECONDS),
    reason: shownText,
    learning_rate_scale: real(0, 1000),
    upload_round: round,
    view_round: round,
  },
  { learning_rate_scale: 1, upload_round: 0, view_round: 0 },
);
export const MISSING_SHARDS = message<MissingShards>("MissingShards", {
  train: list(shardIndex),
  validation: list(shardIndex),
});
export const SHARD_RECEIPT = message<ShardReceipt>("ShardReceipt", {
  num_samples: count,
  upload_bytes: count,
  already_stored: truth,
});
export const ENROLLED = message<Enrolled>("Enrolled", { client_id: text });

const CLIENT_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/**
 * Refuse a peer of another version.
 *
 * @throws ProtocolVersionError Names both versions and the remedy.
 */
export function checkProtocolVersion(theirs: number): void {
  if (theirs !== PROTOCOL_VERSION) {
    const [older, newer] = theirs > PROTOCOL_VERSION ? ["this side", "the other"] : ["the other side", "this one"];
    throw new ProtocolVersionError(
      `the other side speaks protocol version ${theirs}, this one ${PROTOCOL_VERSION}: ${older} is older than ${newer}: ` +
        "there, pip install --upgrade gkt-edge, or npm install gkt-edge@latest",
    );
  }
}

/**
 * Refuse the id of a run that could be no part of a path.
 *
 * @throws MessageError It is empty, too long, or holds other characters.
 */
export function checkRunId(runId: string): string {
  if (!CLIENT_ID.test(runId)) {
    throw new MessageError(
      `the server's run is '${printable(runId.slice(0, 70))}', expected 1 to 64 letters, digits, '_', '.', '-'`,
    );
  }
  return runId;
}

/**
 * Refuse client ids that could not be a file name everywhere.
 *
 * @throws MessageError The id is empty, too long, or holds other characters.
 */
export function checkClientId(clientId: string): string {
  if (!CLIENT_ID.test(clientId)) {
    throw new MessageError(
      `client id '${printable(clientId.slice(0, 70))}': expected 1 to 64 letters, digits, '_', '.' or '-', beginning ` +
        "with a letter or digit",
    );
  }
  return clientId;
}

/** Turn the name of a file into one that a device may have, or into the beginning of one. */
export function asClientId(name: string): string {
  return name.replace(/[^A-Za-z0-9_.-]/gu, "-").replace(/^[-._]+/, "") || "device";
}
