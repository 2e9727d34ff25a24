/**
 * Tell an answer of gkt serve from one of something between: a proxy, a CDN, a captive portal.
 *
 * Only what a gkt server says may end a device. Its errors are `ErrorBody`, its messages JSON with the fields of the
 * protocol, its files `application/octet-stream` with their SHA-256 in a header. Whatever else comes is an
 * {@link OddAnswerError}: it is asked again, and says what it may be; `edge_runtime/connection/answers.py`.
 */

import { errorClass, GKTError, MessageError } from "../errors.js";
import { joined } from "../hashing.js";
import { isObject, parseJsonBytes, type Json } from "../json.js";
import { cut, isPrintable, printable } from "../printable.js";
import { ERROR_BODY, PROTOCOL_HEADER, type MessageType } from "../wire/messages.js";
import { LONGEST_TEXT, MAX_MESSAGE_BYTES, readMessage } from "../wire/reading.js";
import { TransportError, type Response } from "./transport.js";

/** Of a body within the time that nothing may move: 17 bytes a second, slower than any link that trains. */
export const LEAST_BYTES = 1024;
export const JSON_TYPE = "application/json";
export const BINARY_TYPE = "application/octet-stream";
export const PEM_TYPE = "application/x-pem-file";

const ELSEWHERE = "another server answers at this address: is it the one that gkt serve printed?";
const PORTAL =
  "a captive portal (open any page in this network's browser and log in) or another server: is this the address that gkt " +
  "serve printed?";
const GATEWAY = "a proxy or CDN in front of the server does not reach it: is gkt serve running?";
const DENIED = `a proxy, a firewall, or ${ELSEWHERE}`;
// Of a status that no gkt server gives without an error of its own.
const HINTS: Readonly<Record<number, string>> = {
  401: `a proxy that wants a password, or ${ELSEWHERE}`,
  403: DENIED,
  404: `a proxy or CDN whose route to the server is gone, or ${ELSEWHERE}`,
  405: DENIED,
  407: "a proxy that wants a user name and a password",
  408: "a proxy that gave up waiting: the connection may be too slow for it",
  411: "a proxy that does not let such uploads through",
  413: "a proxy that limits uploads: raise its limit (nginx: client_max_body_size)",
  429: "a proxy or CDN that limits how often it is asked",
  451: DENIED,
  500: "a proxy in trouble, or the server itself",
  502: GATEWAY,
  503: GATEWAY,
  504: GATEWAY,
  511: PORTAL,
};

/** An answer that no gkt server gives; another try may reach the server. */
export class OddAnswerError extends Error {
  override name = "OddAnswerError";
}

/**
 * Read a message that a gkt server sent.
 *
 * @throws OddAnswerError Something else sent it.
 * @throws MessageError A gkt server sent it, of a version that this one does not understand.
 */
export async function messageOf<T>(type: MessageType<T>, response: Response, stallSeconds: number): Promise<T> {
  checkType(response, JSON_TYPE);
  const body = await wholeBody(response, stallSeconds);
  try {
    return readMessage(type.read, type.name, body);
  } catch (error) {
    if (!(error instanceof MessageError) || isMeant(type.fields, body)) throw error;
    throw new OddAnswerError(`an answer of another server, or one cut short (${error.message}): ${PORTAL}`);
  }
}

/**
 * Read a certificate (PEM) that a gkt server sent.
 *
 * @throws OddAnswerError Something else sent it.
 */
export async function certificateOf(response: Response, stallSeconds: number): Promise<string> {
  checkType(response, PEM_TYPE);
  return new TextDecoder("latin1").decode(await wholeBody(response, stallSeconds));
}

/**
 * Make the error in a gkt server's answer one of the class that it raised there.
 *
 * @throws OddAnswerError Something between refused, not the server.
 */
export async function refusalOf(response: Response, stallSeconds: number): Promise<GKTError> {
  try {
    checkType(response, JSON_TYPE);
    const data = await wholeBody(response, stallSeconds);
    const body = readMessage(ERROR_BODY.read, ERROR_BODY.name, data);
    // Of 1.0, whose servers do not say what they speak, an error has no more fields: many others' have these two.
    const isNamed = response.header(PROTOCOL_HEADER) !== undefined;
    if (!isNamed && Object.keys(parseJsonBytes(data, ERROR_BODY.name) as object).length !== 2) {
      throw new MessageError("an error with more fields than those of 1.0");
    }
    const message = printable(cut(body.message, LONGEST_TEXT));
    const found = errorClass(body.error);
    return found ? new found(message) : new MessageError(`the server answered ${response.status}: ${message}`);
  } catch (error) {
    if (!(error instanceof MessageError || error instanceof OddAnswerError)) throw error;
    throw new OddAnswerError(refusedBetween(response));
  }
}

/**
 * Refuse an answer of another media type.
 *
 * @throws OddAnswerError Something else than the server sent it.
 */
export function checkType(response: Response, expected: string): void {
  const said = (response.header("content-type") ?? "").split(";")[0].trim().toLowerCase();
  const kind = isPrintable(said) ? said.slice(0, 60) : "";
  if (kind !== expected) {
    throw new OddAnswerError(`${kind || "an answer of no type"} where ${expected} was expected: ${PORTAL}`);
  }
}

/**
 * Give a body as it comes.
 *
 * @param stallSeconds How long it may bring next to nothing: a byte now and then is no transfer.
 * @throws OddAnswerError It is compressed.
 * @throws TransportError It hardly moves, or breaks.
 */
export async function* rawPieces(response: Response, stallSeconds: number): AsyncGenerator<Uint8Array> {
  const encoding = (response.header("content-encoding") ?? "").trim().toLowerCase();
  if (!["", "identity"].includes(encoding)) {
    const named = isPrintable(encoding) ? encoding.slice(0, 20) : "something";
    throw new OddAnswerError(`the answer cannot be decoded (${named}, which nobody asked for): a proxy changed it`);
  }
  let [began, came] = [performance.now(), 0];
  for await (const piece of response.body) {
    came += piece.length;
    if (came >= LEAST_BYTES) {
      [began, came] = [performance.now(), 0];
    } else if (performance.now() - began > 1000 * stallSeconds) {
      throw new TransportError(`fewer than ${LEAST_BYTES} bytes in ${stallSeconds.toFixed(0)} s`);
    }
    yield piece;
  }
}

/** Read what could be a message, and no more of what is longer. */
async function wholeBody(response: Response, stallSeconds: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let numBytes = 0;
  for await (const piece of rawPieces(response, stallSeconds)) {
    numBytes += piece.length;
    if (numBytes > MAX_MESSAGE_BYTES) throw new OddAnswerError(`more than any message of gkt serve holds: ${PORTAL}`);
    pieces.push(piece);
  }
  return joined(pieces);
}

function refusedBetween(response: Response): string {
  const { status } = response;
  let hint = HINTS[status] ?? (status < 500 ? DENIED : GATEWAY);
  if (status >= 300 && status < 400) hint = `it leads to ${placeOf(response)}: ${PORTAL}`;
  if (status >= 520 && status <= 530) hint = "a CDN does not reach the server: is gkt serve running?";
  return `status ${status} without an error of gkt serve: ${hint}`;
}

/** Say where a redirect leads: scheme and host alone, as the rest may hold whatever a portal likes. */
function placeOf(response: Response): string {
  try {
    const target = new URL(response.header("location") ?? "");
    const place = `${target.protocol}//${target.hostname}`.slice(0, 100);
    return isPrintable(place) ? place : "another page";
  } catch {
    return "another page";
  }
}

/** Say whether JSON could be this message of another version: it has a field of it, or more of them. */
function isMeant(fields: readonly string[], data: Uint8Array): boolean {
  let values: Json;
  try {
    values = parseJsonBytes(data, "a message");
  } catch {
    return false;
  }
  return isObject(values) && fields.some((name) => Object.hasOwn(values, name));
}
