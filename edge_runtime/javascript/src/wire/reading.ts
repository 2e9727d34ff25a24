/**
 * Read decoded JSON bounded and strictly, whoever sent it: the rules of `gkt_core/wire/message_json.py`.
 *
 * A reader takes a value and where it stands, for the error, and gives what it is.
 */

import { MessageError } from "../errors.js";
import { isObject, JsonNumber, parseJsonBytes, type Json } from "../json.js";
import { cut, printable } from "../printable.js";

export type Reader<T> = (value: Json, where: string) => T;
type Fields<T> = { [Name in keyof T]-?: Reader<T[Name]> };

export const MAX_MESSAGE_BYTES = 1 << 20;
/** Characters of a text for a person. */
export const LONGEST_TEXT = 2000;
const HALF_OF_PAIR = /\p{Surrogate}/u;

/** Read a whole number from low to high; beyond 2^53 none is exact. */
export function whole(low = -Number.MAX_SAFE_INTEGER, high = Number.MAX_SAFE_INTEGER): Reader<number> {
  return (value, where) => {
    if (!(value instanceof JsonNumber) || !value.isWhole) throw unexpected(value, where, "int");
    return within(value.value, low, high, where);
  };
}

/** Read a number from low to high. */
export function real(low = -Infinity, high = Infinity): Reader<number> {
  return (value, where) => {
    if (!(value instanceof JsonNumber) || !Number.isFinite(value.value)) throw unexpected(value, where, "float");
    return within(value.value, low, high, where);
  };
}

export const text: Reader<string> = (value, where) => {
  if (typeof value !== "string") throw unexpected(value, where, "str");
  if (HALF_OF_PAIR.test(value))
    throw new MessageError(`${where} holds half of a surrogate pair, expected Unicode text`);
  return value;
};

/** Read a text for a person: made printable, and cut. */
export const shownText: Reader<string> = (value, where) => printable(cut(text(value, where), LONGEST_TEXT));

export const truth: Reader<boolean> = (value, where) => {
  if (typeof value !== "boolean") throw unexpected(value, where, "bool");
  return value;
};

/** Read any JSON object as it is. */
export const anyObject: Reader<{ [name: string]: Json }> = (value, where) => {
  if (!isObject(value)) throw unexpected(value, where, "dict");
  return value;
};

export function orNull<T>(reader: Reader<T>): Reader<T | null> {
  return (value, where) => (value === null ? null : reader(value, where));
}

export function list<T>(reader: Reader<T>): Reader<T[]> {
  return (value, where) => {
    if (!Array.isArray(value)) throw unexpected(value, where, "list");
    return value.map((each) => reader(each, where));
  };
}

/** Read an object of any names, all values alike. */
export function dictionary<T>(reader: Reader<T>): Reader<Map<string, T>> {
  return (value, where) => {
    if (!isObject(value)) throw unexpected(value, where, "dict");
    return new Map(Object.entries(value).map(([name, each]) => [name, reader(each, where)]));
  };
}

/**
 * Read an object with exactly these fields; those with a default may be missing.
 *
 * @param isOpen Whether others may stand beside them, which are left unread: of a neighbouring version.
 */
export function record<T>(
  name: string,
  fields: Fields<T>,
  defaults: Partial<T> = {},
  isOpen: boolean = false,
): Reader<T> {
  return (value, where) => {
    if (!isObject(value)) throw new MessageError(`${where}: expected a JSON object with the fields of ${name}`);
    const known = Object.keys(value).filter((each) => Object.hasOwn(fields, each));
    const given = isOpen ? known : Object.keys(value);
    const unknown = given.filter((each) => !Object.hasOwn(fields, each)).sort();
    const missing = Object.keys(fields).filter((each) => !Object.hasOwn(value, each) && !Object.hasOwn(defaults, each));
    if (unknown.length || missing.length) {
      throw new MessageError(
        `${name}: unknown fields [${printable(unknown.slice(0, 5).join(", ")).slice(0, 200)}], missing fields ` +
          `[${missing.sort().slice(0, 5).join(", ")}]: do device and server run the same version of gkt?`,
      );
    }
    const result: Partial<T> = { ...defaults };
    for (const each of given) {
      const field = each as keyof T & string;
      result[field] = fields[field](value[field], `${name}.${field}`);
    }
    return result as T;
  };
}

/**
 * Decode and validate a message.
 *
 * @throws MessageError Not JSON, a field is missing or unknown, or a value has another type or no meaning.
 */
export function readMessage<T>(reader: Reader<T>, name: string, data: Uint8Array): T {
  if (data.length > MAX_MESSAGE_BYTES) {
    throw new MessageError(`a message of ${data.length} bytes, expected at most ${MAX_MESSAGE_BYTES}`);
  }
  return reader(parseJsonBytes(data, `a ${name}`), name);
}

/**
 * Encode a message as JSON.
 *
 * @throws MessageError A number is NaN or infinite.
 */
export function writeMessage(message: object): Uint8Array {
  const data = JSON.stringify(message, (_, value: unknown) => {
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new MessageError("a message holds NaN or infinity, expected numbers");
    }
    return value;
  });
  return new TextEncoder().encode(data);
}

function within(value: number, low: number, high: number, where: string): number {
  if (!(low <= value && value <= high)) throw new MessageError(`${where} is ${value}, expected ${low} to ${high}`);
  return value;
}

function unexpected(value: Json, where: string, expected: string): MessageError {
  // Only the type of what is nested: writing it may recurse as deep as the sender likes.
  const shown = Array.isArray(value)
    ? "list"
    : isObject(value)
      ? "dict"
      : value instanceof JsonNumber
        ? value.text
        : String(value);
  return new MessageError(`${where} is '${printable(cut(shown, 40))}', expected ${expected}`);
}
