/**
 * JSON that keeps numbers as they are written: 1 and 1.0 are different, and no digit of 64 bits is lost.
 *
 * A manifest is pinned by the hash of its text as Python writes it, so it has to be written again from what was read.
 */

import { parse } from "lossless-json";
import { MessageError } from "./errors.js";
import { pythonFloat } from "./numbers.js";

/** A number as it was written. */
export class JsonNumber {
  constructor(readonly text: string) {}

  get isWhole(): boolean {
    return /^-?\d+$/.test(this.text);
  }

  get value(): number {
    return Number(this.text);
  }
}

/** Deeper than any message: who sends more wants a stack to overflow. */
const DEEPEST = 64;

export type Json = null | boolean | string | JsonNumber | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

/**
 * Parse a text; names of an object twice, NaN and infinity are refused.
 *
 * @throws MessageError It is not JSON; `what` names what was expected.
 */
export function parseJson(text: string, what: string): Json {
  if (depthOf(text) > DEEPEST)
    throw new MessageError(`this is JSON inside of JSON, more than ${DEEPEST} deep, expected ${what}`);
  try {
    return parse(text, undefined, (number) => new JsonNumber(number)) as Json;
  } catch (error) {
    throw new MessageError(`this is not JSON, expected ${what}`, { cause: error });
  }
}

/** Count how deep objects and lists lie in each other; of what is no JSON, something. */
function depthOf(text: string): number {
  let [depth, deepest, isText] = [0, 0, false];
  for (let index = 0; index < text.length; index++) {
    const each = text[index];
    if (isText && each === "\\") index += 1;
    else if (each === '"') isText = !isText;
    else if (!isText && (each === "[" || each === "{")) deepest = Math.max(deepest, ++depth);
    else if (!isText && (each === "]" || each === "}")) depth -= 1;
  }
  return deepest;
}

/** Parse bytes that have to be UTF-8; see {@link parseJson}. */
export function parseJsonBytes(data: Uint8Array, what: string): Json {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch (error) {
    throw new MessageError(`this is not JSON, expected ${what}`, { cause: error });
  }
  return parseJson(text, what);
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof JsonNumber);
}

/** Write as Python's `json.dumps(value, indent=2, sort_keys=True)` does, what was parsed by {@link parseJson}. */
export function indentedText(value: Json, indent = ""): string {
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((each) => inner + indentedText(each, inner)).join(",\n")}\n${indent}]`;
  }
  if (isObject(value)) {
    const names = Object.keys(value).sort(byCodePoint);
    if (!names.length) return "{}";
    const lines = names.map((name) => `${inner}${asciiText(name)}: ${indentedText(value[name], inner)}`);
    return `{\n${lines.join(",\n")}\n${indent}}`;
  }
  return scalarText(value);
}

/** Write as Python's `json.dumps(value, sort_keys=True)` does, in one line. */
export function lineText(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(lineText).join(", ")}]`;
  if (!isObject(value)) return scalarText(value);
  const names = Object.keys(value).sort(byCodePoint);
  return `{${names.map((name) => `${asciiText(name)}: ${lineText(value[name])}`).join(", ")}}`;
}

function scalarText(value: null | boolean | string | JsonNumber | JsonObject): string {
  if (value instanceof JsonNumber) return value.isWhole ? BigInt(value.text).toString() : pythonFloat(value.value);
  return typeof value === "string" ? asciiText(value) : String(value);
}

function asciiText(text: string): string {
  return JSON.stringify(text).replace(/[^ -~]/g, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Order texts as Python does: by code points, not by halves of surrogate pairs. */
export function byCodePoint(one: string, other: string): number {
  if (one === other) return 0;
  const [first, second] = [[...one], [...other]];
  for (let index = 0; index < Math.min(first.length, second.length); index++) {
    const difference = (first[index].codePointAt(0) ?? 0) - (second[index].codePointAt(0) ?? 0);
    if (difference) return difference;
  }
  return first.length - second.length;
}
