/** Become a device of a run with its join link, once, and stay one by a secret of one's own; `edge_runtime/membership.py`. */

import { checkedAuthority } from "../connection/authority.js";
import type { ServerClient } from "../connection/server-client.js";
import type { Trust } from "../connection/transport.js";
import { ArtifactError, AuthenticationError, ConfigError } from "../errors.js";
import { sha256Hex } from "../hashing.js";
import { isObject, parseJsonBytes } from "../json.js";
import { deviceBearer, keepCredential, keptCredential, newSecret, type KeptCredential } from "../state/credential.js";
import type { Identity } from "../state/identity.js";
import type { Store } from "../state/store.js";
import { linkBearer, type JoinLink } from "../wire/join-link.js";
import type { RunInfo } from "../wire/messages.js";

/** Opens the wire to a server. */
export interface Wire {
  /** Whether it can trust one authority alone; a page trusts whom its browser trusts. */
  readonly pins: boolean;
  open(
    url: string,
    token: string | undefined,
    about: { readonly trust: Trust; readonly bundleSha256: string },
  ): ServerClient;
}

/**
 * Look at a run without becoming a device of it: nothing of the link is used up.
 *
 * @throws AuthenticationError The server is not the link's.
 */
export async function asGuest(link: JoinLink, wire: Wire): Promise<ServerClient> {
  const authority = await authorityOf(link, wire);
  return wire.open(link.url, linkBearer(link), { trust: trusting(authority), bundleSha256: link.bundleSha256 });
}

/** What makes a device a member. */
export interface Membership {
  readonly store: Store;
  readonly identity: Identity;
  readonly wire: Wire;
  /** Told what happens, without secrets. */
  readonly note: (line: string) => void;
  /** Of the run; not needed once the device has enrolled. */
  readonly link: JoinLink | undefined;
  /** Where the server is by now, if it has moved. */
  readonly url?: string | undefined;
  /** Called with the run before a use of the link is spent on it; what it throws spends none. */
  readonly check: (info: RunInfo) => Promise<unknown>;
}

/**
 * Speak for the device of a store, which a link makes a member of the run if it is none.
 *
 * @throws AuthenticationError The server is not the link's, or does not take the link or the device's secret.
 * @throws ArtifactError The store belongs to another run.
 * @throws ConfigError The device has not enrolled, and there is no link.
 * @throws RoundError The name is another device's.
 */
export async function asMember(membership: Membership): Promise<ServerClient> {
  const { store, identity, wire, note, link } = membership;
  let kept = await keptCredential(store);
  if (link && !(await holdsAlready(kept, link, identity, wire))) kept = await begun(link, wire);
  if (!kept || !(kept.is_enrolled || link)) {
    throw new ConfigError(
      "this device does not belong to a run yet: give --join LINK (or a file that holds it, or GKT_JOIN), which gkt serve " +
        "prints and gkt enroll makes",
    );
  }
  const moved = membership.url ?? link?.url ?? kept.url;
  if (kept.url !== moved) {
    kept = { ...kept, url: moved };
    await keepCredential(store, kept);
  }
  const server = opened(kept, identity.clientId, wire);
  try {
    if (link && !kept.is_enrolled) {
      await enrol(membership, kept, link, server);
      note(`${identity.clientId} is enrolled: from here on its state folder is enough, the link is not`);
    } else if (kept.next_secret) {
      await finishRotation(store, kept, identity.clientId, server);
    }
  } catch (error) {
    server.close();
    throw error;
  }
  server.onRotate = async () => {
    await rotate(store, identity.clientId, server);
    note(`${identity.clientId} has drawn another secret, as the server's operator asked for`);
  };
  return server;
}

async function authorityOf(link: JoinLink, wire: Wire): Promise<string> {
  if (!link.caSha256 || !wire.pins) return "";
  const server = wire.open(link.url, undefined, { trust: { kind: "unverified" }, bundleSha256: "" });
  try {
    return await checkedAuthority(link.url, await server.authority(), link.caSha256);
  } finally {
    server.close();
  }
}

function trusting(authority: string): Trust {
  return authority ? { kind: "pinned", authority } : { kind: "public" };
}

function opened(kept: KeptCredential, clientId: string, wire: Wire): ServerClient {
  return wire.open(kept.url, deviceBearer(clientId, kept), {
    trust: trusting(kept.authority),
    bundleSha256: kept.bundle_sha256,
  });
}

/** Say whether a link has nothing to give to a device that enrolled before, with this or another one. */
async function holdsAlready(
  kept: KeptCredential | undefined,
  link: JoinLink,
  identity: Identity,
  wire: Wire,
): Promise<boolean> {
  if (!kept) return false;
  if (kept.enrolment === link.enrolment) return true;
  // Another server's: it is not shown a secret that is not meant for it.
  if (!kept.is_enrolled || kept.bundle_sha256 !== link.bundleSha256 || kept.ca_sha256 !== link.caSha256) return false;
  const server = opened({ ...kept, url: link.url }, identity.clientId, wire);
  try {
    await server.runInfo();
    return true;
  } catch (error) {
    if (error instanceof AuthenticationError) return Boolean(kept.next_secret);
    throw error;
  } finally {
    server.close();
  }
}

async function begun(link: JoinLink, wire: Wire): Promise<KeptCredential> {
  return {
    url: link.url,
    enrolment: link.enrolment,
    secret: newSecret(),
    bundle_sha256: link.bundleSha256,
    ca_sha256: link.caSha256,
    authority: await authorityOf(link, wire),
    is_enrolled: false,
    next_secret: "",
  };
}

async function enrol(
  membership: Membership,
  kept: KeptCredential,
  link: JoinLink,
  server: ServerClient,
): Promise<void> {
  const { store, identity, check } = membership;
  server.show(linkBearer(link));
  const info = await server.runInfo();
  await checkRun(store, info.run_id);
  await check(info);
  // Before the server hears of the secret: an answer that is lost is asked for again.
  await keepCredential(store, kept);
  await server.enrol(identity.clientId, {
    secret_sha256: await sha256Hex(kept.secret),
    client_key: identity.clientKey,
  });
  await keepCredential(store, { ...kept, is_enrolled: true });
  server.show(deviceBearer(identity.clientId, kept));
}

/** Refuse a store of another run before a use of the link is spent on it. */
async function checkRun(store: Store, runId: string): Promise<void> {
  const data = await store.read("state.json");
  if (!data) return;
  let begunRun: unknown;
  try {
    const values = parseJsonBytes(data, "a state");
    begunRun = isObject(values) ? values.run_id : undefined;
  } catch {
    // Who reads it next says what is wrong.
    return;
  }
  if (typeof begunRun === "string" && begunRun !== runId) {
    throw new ArtifactError(`${store.place} belongs to ${begunRun}, the link to ${runId}: choose another --state-dir`);
  }
}

async function rotate(store: Store, clientId: string, server: ServerClient): Promise<void> {
  const kept = await keptCredential(store);
  if (!kept) return;
  const begunRotation = { ...kept, next_secret: kept.next_secret || newSecret() };
  await keepCredential(store, begunRotation);
  await finishRotation(store, begunRotation, clientId, server);
}

/** Replace the secret, also where the server has done it already and the answer was lost. */
async function finishRotation(
  store: Store,
  kept: KeptCredential,
  clientId: string,
  server: ServerClient,
): Promise<void> {
  const after = { ...kept, secret: kept.next_secret, next_secret: "" };
  const replace = async (): Promise<void> => {
    await server.findRun();
    await server.enrol(clientId, { secret_sha256: await sha256Hex(after.secret), client_key: "" });
  };
  try {
    await replace();
  } catch (error) {
    if (!(error instanceof AuthenticationError)) throw error;
    server.show(deviceBearer(clientId, after));
    await replace();
  }
  server.show(deviceBearer(clientId, after));
  await keepCredential(store, after);
}
