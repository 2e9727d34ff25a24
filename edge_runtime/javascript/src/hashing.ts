/** Hashes and random bytes: SHA-256 by WebCrypto, BLAKE2b and SHAKE-256, which it lacks, by @noble/hashes. */

import { blake2b } from "@noble/hashes/blake2.js";
import { shake256 } from "@noble/hashes/sha3.js";

export { blake2b, shake256 };

/** Hash bytes to 32 bytes. */
export async function sha256(data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data as Uint8Array<ArrayBuffer>));
}

/** Hash bytes, or a text as UTF-8, to hexadecimal digits. */
export async function sha256Hex(data: Uint8Array | string): Promise<string> {
  return hex(await sha256(typeof data === "string" ? new TextEncoder().encode(data) : data));
}

/** Write bytes as hexadecimal digits. */
export function hex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Read hexadecimal digits; undefined for what is none. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 || !/^[0-9a-f]*$/i.test(text)) return undefined;
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Draw secret random bytes. */
export function randomBytes(num: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(num));
}

/** Write bytes as URL-safe base64 without padding, as Python's `secrets.token_urlsafe` does. */
export function base64Url(data: Uint8Array): string {
  return btoa(String.fromCharCode(...data))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

/** Lay byte arrays one behind the other. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, each) => sum + each.length, 0));
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  return whole;
}

/** Write a whole number as eight bytes, low ones first. */
export function int64Bytes(value: bigint | number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, BigInt.asIntN(64, BigInt(value)), true);
  return bytes;
}
