/** `gkt-edge run`: a device on anything that has Node. */

import { promises as fs } from "node:fs";
import { agreedConfig } from "../config/run-config.js";
import { ServerClient } from "../connection/server-client.js";
import { readPrivateData } from "../data/private-data.js";
import { Device } from "../device/device.js";
import { dryRun, type DryRun } from "../device/dry-run.js";
import { asGuest, asMember, type Wire } from "../device/membership.js";
import { OwnData, type DataSource } from "../device/own-data.js";
import { ConfigError, DatasetError } from "../errors.js";
import { grouped } from "../numbers.js";
import { StateKeeper } from "../state/device-state.js";
import { identityOf } from "../state/identity.js";
import { MemoryStore } from "../state/store.js";
import { isJoinLink, readJoinLink, type JoinLink } from "../wire/join-link.js";
import { FilesStore, message } from "./files-store.js";
import { NodeTransport } from "./node-transport.js";
import type { RunOptions } from "./options.js";
import { onnxRuntime, zstandard } from "./packages.js";
import { packedFolder } from "./photos.js";
import { LineProgress } from "./progress.js";

const LONGEST_LINK_FILE = 4000;
type Note = (line: string) => void;

/** Run a device to its end, and give what goes to stdout. */
export async function run(options: RunOptions): Promise<string> {
  const link = options.join === undefined ? undefined : await givenLink(options.join);
  if (link && options.server !== undefined) {
    throw new ConfigError("--join and --server were given: the link says where the server is, leave out --server");
  }
  // Before anything is written: a file that cannot be read.
  const source = await sourceOf(options);
  return options.isDryRun ? dry(options, link, source) : member(options, link, source);
}

type Source = (store: FilesStore | undefined, note: Note) => DataSource;

async function member(options: RunOptions, link: JoinLink | undefined, source: Source): Promise<string> {
  const store = await FilesStore.open(options.stateDir);
  try {
    const identity = await identityOf(store, options.clientId, options.stem);
    const progress = new LineProgress(identity.clientId, options.isJsonProgress);
    const note = (line: string): void => progress.note(line);
    const own = new OwnData(identity.clientId, source(store, note), store, options.tap);
    const wire = await wireOf(options, note);
    const ort = await onnxRuntime();
    const server = await asMember({
      store,
      identity,
      wire,
      note,
      link,
      url: options.server,
      check: (info) => own.fit(info),
    });
    try {
      const result = await new Device({
        server,
        data: await own.fit(await server.runInfo()),
        store,
        ort,
        ...identity,
        noise: options.noise,
        tap: options.tap,
        listener: progress,
        numThreads: options.numThreads,
        checkpointSeconds: options.checkpointSeconds,
      }).run();
      if (options.isJson) return JSON.stringify(result);
      return (
        `${identity.clientId}: ${result.rounds} rounds, ${grouped(result.upload_bytes)} bytes sent, ` +
        `${grouped(result.download_bytes)} received; the combined model is ${result.model}, right on ` +
        `${(100 * result.validation_accuracy).toFixed(1)}% of ${result.num_validation_images} validation images`
      );
    } finally {
      server.close();
    }
  } finally {
    await store.close();
  }
}

async function dry(options: RunOptions, link: JoinLink | undefined, source: Source): Promise<string> {
  if (!link)
    throw new ConfigError("a dry run takes the join link of gkt serve: --join LINK, a file that holds it, or GKT_JOIN");
  const clientId = options.clientId || options.stem;
  const progress = new LineProgress(clientId, options.isJsonProgress);
  const note = (line: string): void => progress.note(line);
  const own = new OwnData(clientId, source(undefined, note), undefined, options.tap);
  const server = await asGuest(link, await wireOf(options, note));
  try {
    const info = await server.runInfo();
    const data = await own.fit(info);
    const bundle = await new StateKeeper(new MemoryStore()).bundle(info.manifest, (name, entry) =>
      server.artifact(name, entry),
    );
    const compress = await zstandard();
    const config = agreedConfig(info.config);
    const shown = await dryRun({
      ort: await onnxRuntime(),
      bundle,
      data,
      config,
      clientId,
      noise: options.noise,
      compress,
      numThreads: options.numThreads,
    });
    return options.isJson ? JSON.stringify(shown) : dryRunLines(shown, clientId).join("\n");
  } finally {
    server.close();
  }
}

function dryRunLines(shown: DryRun, clientId: string): string[] {
  const compressed = shown.encoding ? ` + ${shown.encoding}` : "";
  return [
    `${clientId} would train with ${shown.engine}.`,
    `The tap of this run: ${shown.tap}.`,
    "This would leave the device in every round (nothing was sent):",
    ...shown.leaves.map((line) => `  - ${line}`),
    "This stays:",
    ...shown.stays.map((line) => `  - ${line}`),
    "One shard:",
    ...Object.entries(shown.tensors).map(([name, description]) => `  ${name.padEnd(14)} ${description}`),
    `${shown.num_train_samples} training and ${shown.num_validation_samples} validation samples, ${shown.codec}${compressed}: ` +
      `${grouped(shown.shard_bytes)} bytes a shard, about ${grouped(shown.round_bytes)} bytes a round, about ` +
      `${grouped(shown.run_bytes)} bytes in ${shown.rounds} rounds`,
  ];
}

async function wireOf(options: RunOptions, note: Note): Promise<Wire> {
  const compress = await zstandard();
  if (!compress) note("shards go uncompressed: npm install @hpcc-js/wasm-zstd, or Node 22.15, sends fewer bytes");
  const proxy = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].find((name) => process.env[name]);
  if (proxy)
    note(`${proxy} names a proxy, and gkt-edge goes through none: where there is no other way, gkt edge run does`);
  return {
    pins: true,
    open: (url, token, { trust, bundleSha256 }) => {
      if (token !== undefined && isReadableOnTheWay(url)) {
        note(
          `WARNING: ${url} is plain http to another machine: features, labels and this device's secret can be read and ` +
            "changed by whoever is between; ask for a server with https",
        );
      }
      return new ServerClient({
        url,
        token,
        transport: new NodeTransport(url.toLowerCase().startsWith("https:"), trust, options.stallSeconds),
        patienceSeconds: options.patienceSeconds,
        stallSeconds: options.stallSeconds,
        bundleSha256,
        compress,
        note,
      });
    },
  };
}

function isReadableOnTheWay(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, hostname } = new URL(url);
  const isLoopback = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])\.?$/i.test(hostname);
  return protocol === "http:" && !isLoopback;
}

/** Read a link, or the file that holds one: what stands on a command line is in every process list. */
async function givenLink(given: string): Promise<JoinLink> {
  if (isJoinLink(given)) return readJoinLink(given);
  let text: string;
  try {
    const file = await fs.open(given.replace(/^~(?=\/)/, process.env.HOME ?? "~"));
    try {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(LONGEST_LINK_FILE));
      text = buffer.toString("utf8", 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new ConfigError(
      `'${given.slice(0, 200)}' is no link into a run, and no file that holds one: ${message(error)}: copy the whole link that ` +
        "gkt serve or gkt enroll printed, in quotes, or keep it in a file",
      { cause: error },
    );
  }
  return readJoinLink(text);
}

async function sourceOf(options: RunOptions): Promise<Source> {
  const status = await fs.stat(options.data).catch(() => undefined);
  if (!status) {
    throw new DatasetError(
      `cannot read ${options.data}: there is no such file or folder: give a device's .npz file of gkt data pack, or a folder ` +
        "with one folder of photos a class",
    );
  }
  if (status.isDirectory()) {
    return (store, note) => (manifest) => packedFolder(options.data, manifest, options.pack, store, note);
  }
  let file: Uint8Array;
  try {
    file = new Uint8Array(await fs.readFile(options.data));
  } catch (error) {
    throw new DatasetError(`cannot read ${options.data}: ${message(error)}`, { cause: error });
  }
  const data = readPrivateData(file, options.data);
  return () => async () => data;
}
