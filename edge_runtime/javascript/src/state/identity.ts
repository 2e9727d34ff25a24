/** Under which name a device takes part, and the secret that shows that it is the same device. */

import { ArtifactError, MessageError } from "../errors.js";
import { hex, randomBytes } from "../hashing.js";
import { isObject, parseJsonBytes } from "../json.js";
import { checkClientId } from "../wire/messages.js";
import { type Store, writeText } from "./store.js";

const FILE = "device.json";
const LONGEST_STEM = 50;

/** Who a device is. */
export interface Identity {
  readonly clientId: string;
  /** Drawn once; a server refuses another device of the same name, which has another one. */
  readonly clientKey: string;
}

/**
 * Read who the device of a store is, or draw it.
 *
 * @param wanted The name that was asked for; empty for the store's, or one that is drawn.
 * @param stem What a drawn name begins with.
 * @throws ArtifactError The file cannot be read, or the store has begun a run under another name.
 * @throws MessageError The name cannot be one.
 */
export async function identityOf(store: Store, wanted: string, stem: string): Promise<Identity> {
  const kept = await texts(store, FILE);
  const begun = (await texts(store, "state.json")).get("client_id") ?? "";
  const clientId = kept.get("client_id") || begun;
  const clientKey = kept.get("client_key") ?? "";
  if (wanted && begun && wanted !== begun) {
    throw new ArtifactError(
      `${store.place} belongs to the device ${begun}, not to ${wanted}: leave out --client-id, or choose another --state-dir`,
    );
  }
  const drawn = `${stem.slice(0, LONGEST_STEM)}-${hex(randomBytes(3))}`;
  const identity = {
    clientId: checkClientId(wanted || clientId || drawn),
    clientKey: clientKey || hex(randomBytes(16)),
  };
  if (identity.clientId !== kept.get("client_id") || identity.clientKey !== clientKey) {
    await writeText(
      store,
      FILE,
      JSON.stringify({ client_id: identity.clientId, client_key: identity.clientKey }),
      true,
    );
  }
  return identity;
}

async function texts(store: Store, name: string): Promise<Map<string, string>> {
  const data = await store.read(name);
  if (!data) return new Map();
  try {
    const values = parseJsonBytes(data, "who this device is");
    if (!isObject(values)) throw new MessageError("no object");
    return new Map(Object.entries(values).filter((each): each is [string, string] => typeof each[1] === "string"));
  } catch (error) {
    throw new ArtifactError(`${store.place}: ${name} cannot be read: choose another --state-dir`, { cause: error });
  }
}
