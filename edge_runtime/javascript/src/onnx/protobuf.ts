/**
 * Protobuf messages, read strictly: whatever another reader could understand otherwise is refused.
 *
 * The encoding: https://protobuf.dev/programming-guides/encoding/. Google's readers skip fields that they do not know,
 * take the last of two values, cut numbers to 32 bits and read groups. Here each of these is an error.
 */

import { UnsafeModelError } from "../errors.js";
import { joined } from "../hashing.js";

export const VARINT = 0;
export const LENGTH = 2;
export const FOUR_BYTES = 5;
const EIGHT_BYTES = 1;
const LONGEST_KEY = 5;
const LONGEST_NUMBER = 10;
const LARGEST_LENGTH = 2 ** 31;

/** One field of a message as it comes. */
export interface Field {
  readonly number: number;
  readonly kind: number;
  /** Its bytes, without key and length; of a number none. */
  readonly content: Uint8Array;
  /** Of a varint, as an unsigned number of 64 bits; else 0. */
  readonly value: bigint;
  /** All its bytes. */
  readonly whole: Uint8Array;
}

/** The fields that a message may have. */
export interface Schema {
  /** Of the message, for errors. */
  readonly name: string;
  /** Name of each by its number. */
  readonly fields: Readonly<Record<number, string>>;
  /** Names of those that come once at most. */
  readonly once: readonly string[];
  /** What it is that others are, by number, in words. */
  readonly refused?: Readonly<Record<number, string>>;
}

export type Given = Readonly<Record<string, readonly Field[]>>;

/**
 * List the fields of a message.
 *
 * @throws UnsafeModelError It is no message, is cut short, or holds a group.
 */
export function fieldsOf(message: Uint8Array): Field[] {
  const fields: Field[] = [];
  let position = 0;
  while (position < message.length) {
    const begin = position;
    let key: bigint;
    [key, position] = readVarint(message, position, LONGEST_KEY);
    const number = Number(key >> 3n);
    const kind = Number(key & 7n);
    let value = 0n;
    let content = message.subarray(position, position);
    if (kind === VARINT) {
      [value, position] = readVarint(message, position);
    } else if (kind === LENGTH) {
      let length: bigint;
      [length, position] = readVarint(message, position, LONGEST_KEY);
      if (length >= LARGEST_LENGTH) throw broken(`a field of ${length} bytes`);
      content = message.subarray(position, position + Number(length));
      position += Number(length);
    } else if (kind === EIGHT_BYTES || kind === FOUR_BYTES) {
      const width = kind === EIGHT_BYTES ? 8 : 4;
      content = message.subarray(position, position + width);
      position += width;
    } else {
      throw broken(`a field of kind ${kind} at byte ${begin}`);
    }
    if (position > message.length) throw broken("it is cut short");
    if (number < 1 || number >= 2 ** 29) throw broken(`a field of number ${number}`);
    fields.push({ number, kind, content, value, whole: message.subarray(begin, position) });
  }
  return fields;
}

/**
 * Give the fields of a message by name, each in the order in which they come.
 *
 * @throws UnsafeModelError It has a field that is not in the schema, or one twice that comes once.
 */
export function read(message: Uint8Array, schema: Schema): Given {
  const given: Record<string, Field[]> = {};
  for (const name of Object.values(schema.fields)) given[name] = [];
  for (const each of fieldsOf(message)) {
    const name = schema.fields[each.number];
    if (name === undefined) {
      const what = schema.refused?.[each.number] ?? `a field ${each.number}, which no export has`;
      throw new UnsafeModelError(`the ${schema.name} has ${what}`);
    }
    if (schema.once.includes(name) && given[name].length)
      throw new UnsafeModelError(`the ${schema.name} has two of ${name}`);
    given[name].push(each);
  }
  return given;
}

/** Read a number of at most so many bytes, and where it ends. */
export function readVarint(message: Uint8Array, position: number, longest = LONGEST_NUMBER): [bigint, number] {
  let value = 0n;
  for (let index = 0; index < longest && position < message.length; index++) {
    const byte = message[position++];
    value |= BigInt(byte & 127) << BigInt(7 * index);
    if (byte < 128) {
      if (value >= 1n << (longest === LONGEST_KEY ? 32n : 64n)) break;
      return [value, position];
    }
  }
  throw broken("a number is cut short or too long");
}

/** Give whole numbers of 64 bits with their sign, packed into one field or not. */
export function numbers(given: readonly Field[]): bigint[] {
  const values: bigint[] = [];
  for (const each of given) {
    if (each.kind === VARINT) {
      values.push(BigInt.asIntN(64, each.value));
      continue;
    }
    if (each.kind !== LENGTH) throw broken("a whole number of another kind");
    let position = 0;
    while (position < each.content.length) {
      let value: bigint;
      [value, position] = readVarint(each.content, position);
      values.push(BigInt.asIntN(64, value));
    }
  }
  return values;
}

/** Give the one whole number of a field that comes once at most; 0 without it. */
export function number(given: readonly Field[]): bigint {
  if (given.some((each) => each.kind !== VARINT)) throw broken("a whole number of another kind");
  return given.length ? BigInt.asIntN(64, given[0].value) : 0n;
}

/** Give the one text of a field that comes once at most; empty without it. */
export function text(given: readonly Field[]): string {
  return texts(given.slice(0, 1))[0] ?? "";
}

/** Give all texts of a field. */
export function texts(given: readonly Field[]): string[] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    return contents(given).map((each) => decoder.decode(each));
  } catch (error) {
    if (error instanceof UnsafeModelError) throw error;
    throw broken("a text is not Unicode");
  }
}

/** Give the bytes of each, which are messages or texts. */
export function contents(given: readonly Field[]): Uint8Array[] {
  if (given.some((each) => each.kind !== LENGTH)) throw broken("a number where a message or a text belongs");
  return given.map((each) => each.content);
}

/** Write a field that is a message, a text or bytes. */
export function writeField(number: number, content: Uint8Array): Uint8Array {
  return joined([writeNumber(number, LENGTH, false), writeVarint(content.length), content]);
}

/** Write the key of a field, and with it a whole number. */
export function writeNumber(number: number, value: number, isField = true): Uint8Array {
  return isField
    ? joined([writeVarint((number << 3) | VARINT), writeVarint(value)])
    : writeVarint((number << 3) | value);
}

function writeVarint(value: number): Uint8Array {
  const encoded: number[] = [];
  while (value > 127) {
    encoded.push((value % 128) | 128);
    value = Math.floor(value / 128);
  }
  return Uint8Array.of(...encoded, value);
}

function broken(what: string): UnsafeModelError {
  return new UnsafeModelError(`no whole ONNX file: ${what}`);
}
