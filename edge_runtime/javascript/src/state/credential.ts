/** What a device keeps of the run that it belongs to: where the server is, whom it trusts, its own secret. */

import { ArtifactError, DatasetError } from "../errors.js";
import { base64Url, randomBytes } from "../hashing.js";
import { parseJsonBytes } from "../json.js";
import { record, text, truth } from "../wire/reading.js";
import { type Store, writeText } from "./store.js";

const FILE = "credential.json";
const SECRET_BYTES = 32;

/** By what a server knows this device; the file of `edge_runtime/state/credential.py`. */
export interface KeptCredential {
  /** Of the server. */
  readonly url: string;
  /** Number of the link that it was, or is to be, enrolled with. */
  readonly enrolment: string;
  /** Its own; never shown. */
  readonly secret: string;
  /** The pin of the run's bundle. */
  readonly bundle_sha256: string;
  /** The pin of the server's authority; empty for none. */
  readonly ca_sha256: string;
  /** That authority's certificate (PEM). */
  readonly authority: string;
  /** Whether the server has said that it knows the secret. */
  readonly is_enrolled: boolean;
  /** What the secret is being replaced with, until the server has said that it was. */
  readonly next_secret: string;
}

const READ = record<KeptCredential>(
  "KeptCredential",
  {
    url: text,
    enrolment: text,
    secret: text,
    bundle_sha256: text,
    ca_sha256: text,
    authority: text,
    is_enrolled: truth,
    next_secret: text,
  },
  { ca_sha256: "", authority: "", is_enrolled: false, next_secret: "" },
);

/** Draw a secret: 32 random bytes, as text that fits into a header and a file. */
export function newSecret(): string {
  return base64Url(randomBytes(SECRET_BYTES));
}

/** Give what the server is shown. */
export function deviceBearer(clientId: string, kept: KeptCredential): string {
  return `device~${clientId}~${kept.secret}`;
}

/**
 * Read it; undefined where there is none.
 *
 * @throws ArtifactError It cannot be read.
 */
export async function keptCredential(store: Store): Promise<KeptCredential | undefined> {
  const data = await store.read(FILE);
  if (!data) return undefined;
  try {
    return READ(parseJsonBytes(data, "a credential"), "KeptCredential");
  } catch (error) {
    throw new ArtifactError(
      `${store.place}: ${FILE} cannot be read: ask for a link with gkt clients re-enroll, and begin again with another ` +
        "--state-dir",
      { cause: error },
    );
  }
}

/** Write it, readable by its owner only. */
export async function keepCredential(store: Store, credential: KeptCredential): Promise<void> {
  await writeText(store, FILE, JSON.stringify(credential), true);
}

/**
 * Say of data that are refused that an enrolled device keeps its place: others need no new use of a link.
 *
 * @param store Undefined for a guest, who has no place.
 */
export async function placeKeptNamed<T>(store: Store | undefined, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof ArtifactError || error instanceof DatasetError) || !store) throw error;
    const kept = await keptCredential(store);
    if (!kept?.is_enrolled) throw error;
    const kind = error.constructor as new (message: string) => Error;
    throw new kind(
      `${error.message}. This device stays enrolled: starting it again with data that fit and the same --state-dir ` +
        `${store.place} takes no new use of a link`,
    );
  }
}
