/**
 * The link that lets a device into a run: where the server is, whom to trust there, a token to enrol with.
 *
 *     gkt+https://host:port/#enroll=NUMBER.SECRET&bundle=sha256:HEX&ca=sha256:HEX
 *     https://host:port/join#enroll=NUMBER.SECRET&bundle=sha256:HEX&ca=sha256:HEX
 *
 * Both say the same; the second one is a page of the server's, for a phone.
 * What stands behind `#` is never sent by what follows a link.
 */

import { ConfigError } from "../errors.js";
import { isPrintable } from "../printable.js";

const BEGINNING = /^gkt\+https?:\/\//i;
const PAGE = /^(https?:\/\/[^?#]*)\/join\/?(#enroll=.*)$/is;
const ENROL = /^([0-9a-f]{8,32})\.([A-Za-z0-9_-]{20,128})$/;
const HASH = /^sha256:([0-9a-f]{64})$/;
const LONGEST = 2000;
const SHAPE = "gkt+https://HOST:PORT/#enroll=...&bundle=sha256:...&ca=sha256:...";
const AGAIN = "copy the whole link that gkt serve or gkt enroll printed, in quotes, or keep it in a file";

/** What a link says. */
export interface JoinLink {
  /** Of the server, `https://host:port`, perhaps with a path. */
  readonly url: string;
  /** Number of the enrolment. */
  readonly enrolment: string;
  /** Its token; never shown. */
  readonly secret: string;
  /** Of the manifest of the run's bundle. */
  readonly bundleSha256: string;
  /** Of the authority's certificate (DER); empty where the usual ones are trusted. */
  readonly caSha256: string;
}

/** Say whether somebody means this as a link, whole or not. */
export function isJoinLink(text: string): boolean {
  return BEGINNING.test(text.trim()) || PAGE.test(text.trim());
}

/** Give what the server is shown until the device has a secret of its own. */
export function linkBearer(link: JoinLink): string {
  return `enroll~${link.enrolment}~${link.secret}`;
}

/**
 * Read a link.
 *
 * @throws ConfigError It is none, or a part of it is missing, unknown or not what it should be. The message does not
 *   hold the token.
 */
export function readJoinLink(given: string): JoinLink {
  const text = given.trim().replace(PAGE, "gkt+$1/$2");
  if (!isJoinLink(text)) throw new ConfigError(`this is no link into a run: expected ${SHAPE}: ${AGAIN}`);
  if (text.length > LONGEST || !isPrintable(text) || /[^!-~]/.test(text)) {
    throw new ConfigError(`the link is longer than any, or holds blanks or odd characters: ${AGAIN}`);
  }
  const hash = text.indexOf("#");
  const address = hash < 0 ? text : text.slice(0, hash);
  const parts = /^gkt\+(https?):\/\/([^/?#]*)([^?#]*)(\?.*)?$/i.exec(address);
  const authority = parts?.[2] ?? "";
  if (!parts || parts[4] !== undefined || authority.includes("@") || !isAuthority(authority)) {
    throw new ConfigError(`the address in the link is not one of a server: expected ${SHAPE}: ${AGAIN}`);
  }
  const said = fragment(hash < 0 ? "" : text.slice(hash + 1));
  const enrol = ENROL.exec(said.get("enroll") ?? "");
  if (!enrol) throw new ConfigError(`the link's enroll is not NUMBER.TOKEN, is it cut short? ${AGAIN}`);
  const bundle = pinned("bundle", said.get("bundle") ?? "");
  const ca = said.has("ca") ? pinned("ca", said.get("ca") ?? "") : "";
  const scheme = parts[1].toLowerCase();
  if (scheme === "http" && ca) {
    throw new ConfigError("the link names an authority (ca) and is gkt+http: expected gkt+https");
  }
  const url = `${scheme}://${authority}${parts[3].replace(/\/+$/, "")}`;
  return { url, enrolment: enrol[1], secret: enrol[2], bundleSha256: bundle, caSha256: ca };
}

function isAuthority(authority: string): boolean {
  try {
    const url = new URL(`http://${authority}/`);
    return Boolean(url.hostname) && url.port !== "0" && !/:$/.test(authority);
  } catch {
    return false;
  }
}

function fragment(text: string): Map<string, string> {
  const said = new Map<string, string>();
  for (const each of text ? text.split("&") : []) {
    const equals = each.indexOf("=");
    const name = equals < 0 ? each : each.slice(0, equals);
    if (!["enroll", "bundle", "ca"].includes(name) || equals < 0) {
      throw new ConfigError(
        `the link says '${name.slice(0, 20)}', which this version does not know: install the server's version of ` +
          "gkt-edge, or look whether something was added to the link",
      );
    }
    if (said.has(name)) throw new ConfigError(`the link says ${name} twice: ${AGAIN}`);
    said.set(name, each.slice(equals + 1));
  }
  for (const name of ["enroll", "bundle"]) {
    if (!said.has(name)) {
      throw new ConfigError(`the link does not say ${name} (a shell cuts it at & without quotes): ${AGAIN}`);
    }
  }
  return said;
}

function pinned(name: string, value: string): string {
  const found = HASH.exec(value);
  if (!found) throw new ConfigError(`the link's ${name} is not sha256: and 64 hexadecimal digits: ${AGAIN}`);
  return found[1];
}
