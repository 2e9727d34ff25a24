/** The device's side of the wire: one method a call, retried until the server answers; `edge_runtime/server_client.py`. */

import { checkManifestSha256, type FileEntry } from "../bundle/manifest.js";
import { ConfigError, MessageError, ServerUnavailableError, UnsafeModelError, type GKTError } from "../errors.js";
import { hex, randomBytes, sha256Hex } from "../hashing.js";
import { grouped } from "../numbers.js";
import { printable } from "../printable.js";
import type { Store } from "../state/store.js";
import {
  checkProtocolVersion,
  PROCESS_HEADER,
  PROTOCOL_HEADER,
  SPOKEN,
  checkRunId,
  ENROLLED,
  MISSING_SHARDS,
  ROTATE_HEADER,
  RUN_INFO,
  RUN_LIST,
  SHA256_HEADER,
  SHARD_RECEIPT,
  TASK,
  type JoinRequest,
  type MessageType,
  type MissingShards,
  type NewCredential,
  type RoundReport,
  type RunInfo,
  type ShardReceipt,
  type Task,
} from "../wire/messages.js";
import * as paths from "../wire/paths.js";
import { writeMessage } from "../wire/reading.js";
import { LEVELS_ENCODING, wireBody, type Compress, type LevelFeatures } from "../wire/levels/frame.js";
import type { ShardKey } from "../wire/shards.js";
import { certificateOf, LEAST_BYTES, messageOf } from "./answers.js";
import { Download } from "./downloads.js";
import { TransportError, type Response, type Transport } from "./transport.js";
import { judge, TroubleError } from "./trouble.js";

const FIRST_WAIT_SECONDS = 0.25;
const LONGEST_WAIT_SECONDS = 30;
const LONGEST_TRY_SECONDS = 120;
export const STALL_SECONDS = 60;
/** Of a question that waits for its answer; many proxies wait for a minute. */
const KEEP_SECONDS = 50;
/** Of this process, or this page's worker; it says nothing else. */
const PROCESS = hex(randomBytes(8));
/** Of a file of which nothing else is known. */
export const MOST_FILE_BYTES = 1 << 30;

export type { Compress };

export interface ServerClientOptions {
  /** Such as `https://10.0.0.5:8080`. */
  readonly url: string;
  /** What is shown to the server as bearer token; undefined for nothing. */
  readonly token?: string | undefined;
  readonly transport: Transport;
  /** How long a call is retried before {@link ServerUnavailableError}; may be infinite. */
  readonly patienceSeconds?: number;
  /** How long nothing may move in the middle of a call before it is tried again. */
  readonly stallSeconds?: number;
  /** The pin of the run's bundle; empty for none. */
  readonly bundleSha256?: string;
  /** Compresses with Zstandard; undefined where shards go as they are, which a server takes as well. */
  readonly compress?: Compress | undefined;
  /** Called with a line for the log before each wait. */
  readonly note?: (line: string) => void;
  /** Called when a call has to wait for a server that does not answer, and when it answers again. */
  readonly away?: (isAway: boolean) => void;
  readonly sleep?: (seconds: number) => Promise<void>;
}

/** Wait; for tests there are other ways. */
export async function slept(seconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

type Read<T> = (response: Response) => Promise<T>;
type Body = {
  readonly body?: Uint8Array;
  readonly headers?: Record<string, string>;
  /** How much of a download was ever there. */
  readonly had?: () => number;
};

/** Talks to one server about its run. */
export class ServerClient {
  /** Bodies of requests so far. */
  uploadBytes = 0;
  /** Bodies of answers so far. */
  downloadBytes = 0;
  /** Where what has come of a download is kept for the next process; undefined to keep nothing. */
  partStore: Store | undefined;
  /** Called when the server's operator wants this device to draw another secret. */
  onRotate: (() => Promise<void>) | undefined;
  /** What levels the run's features have, if a server that knows how may get them coded. */
  levels: LevelFeatures | undefined;
  private takesLevels = false;
  private readonly base: string;
  private readonly stallSeconds: number;
  private readonly patienceSeconds: number;
  private readonly note: (line: string) => void;
  private readonly sleep: (seconds: number) => Promise<void>;
  private token: string | undefined;
  private runId = "";
  private shallRotate = false;

  /** @throws ConfigError The URL or the token cannot be used. */
  constructor(private readonly options: ServerClientOptions) {
    this.base = checkedBase(options.url);
    this.token = options.token;
    this.stallSeconds = options.stallSeconds ?? STALL_SECONDS;
    this.patienceSeconds = options.patienceSeconds ?? 300;
    this.note = options.note ?? (() => undefined);
    this.sleep = options.sleep ?? slept;
  }

  close(): void {
    this.options.transport.close();
  }

  /** Show another bearer token from here on. */
  show(token: string): void {
    this.token = token;
  }

  /**
   * Find the server's run and what it expects.
   *
   * @throws ProtocolVersionError The server speaks another version.
   * @throws UnsafeModelError Its manifest is another one than was agreed upon.
   */
  async runInfo(): Promise<RunInfo> {
    await this.findRun();
    const info = await this.message(RUN_INFO, "GET", paths.run(this.runId));
    if (info.run_id !== this.runId) {
      throw new MessageError(`the server names its run ${this.runId}, then ${printable(info.run_id.slice(0, 70))}`);
    }
    if (this.options.bundleSha256) await checkManifestSha256(info.manifest, this.options.bundleSha256);
    return info;
  }

  /**
   * Find the server's run.
   *
   * @throws MessageError It has none, several, or one whose id can be none.
   */
  async findRun(): Promise<void> {
    const runs = await this.message(RUN_LIST, "GET", paths.RUNS);
    checkProtocolVersion(runs.protocol_version);
    if (runs.run_ids.length !== 1) throw new MessageError(`the server has ${runs.run_ids.length} runs, expected one`);
    this.runId = checkRunId(runs.run_ids[0]);
  }

  /** Ask for the certificate (PEM) of the server's own authority, which anybody may say. */
  async authority(): Promise<string> {
    return this.call((response) => certificateOf(response, this.stallSeconds), "GET", paths.AUTHORITY);
  }

  /** Be known by another secret from here on. */
  async enrol(clientId: string, credential: NewCredential): Promise<void> {
    await this.message(ENROLLED, "PUT", this.ofRun(paths.credential(clientId)), { body: writeMessage(credential) });
    // What was asked for before is done with it.
    this.shallRotate = false;
  }

  /** Introduce a device. */
  async join(clientId: string, request: JoinRequest): Promise<Task> {
    return this.message(TASK, "PUT", this.ofRun(paths.client(clientId)), { body: writeMessage(request) });
  }

  /** Ask what to do next; with `waits`, the answer may take as long as there is nothing to do. */
  async task(clientId: string, waits = false): Promise<Task> {
    const keep = Math.floor(Math.min(KEEP_SECONDS, (5 / 6) * this.stallSeconds));
    const headers: Record<string, string> = waits && keep ? { Prefer: `wait=${keep}` } : {};
    return this.message(TASK, "GET", this.ofRun(paths.task(clientId)), { headers });
  }

  /**
   * Download a file of the bundle; it is the one of its entry, or an error.
   *
   * @throws UnsafeModelError The server has another file.
   */
  async artifact(name: string, entry: FileEntry): Promise<Uint8Array> {
    const data = await this.downloaded(this.ofRun(paths.artifact(name)), entry.num_bytes, entry.sha256);
    if (data.length !== entry.num_bytes) {
      throw new UnsafeModelError(
        `${name} has ${grouped(data.length)} bytes, the manifest says ${grouped(entry.num_bytes)}`,
      );
    }
    return data;
  }

  /**
   * Ask what the server does not hold yet of this device's part of the open round.
   *
   * @throws RoundClosedError The round went on without this device.
   */
  async missingShards(clientId: string, roundNum: number): Promise<MissingShards> {
    return this.message(MISSING_SHARDS, "GET", this.ofRun(paths.shards(roundNum, clientId)));
  }

  /** Upload one shard; the server keeps it once however often it arrives. */
  async putShard(key: ShardKey, data: Uint8Array, compressed: boolean): Promise<ShardReceipt> {
    const levels = compressed && this.takesLevels ? this.levels : undefined;
    const body = await wireBody(data, levels, compressed ? this.options.compress : undefined);
    const headers: Record<string, string> = { [SHA256_HEADER]: await sha256Hex(body.data) };
    if (body.encoding) headers["Content-Encoding"] = body.encoding;
    const path = paths.shard(key.roundNum, key.clientId, key.split, key.index);
    return this.message(SHARD_RECEIPT, "PUT", this.ofRun(path), { body: body.data, headers });
  }

  /** Close this device's part of a round. */
  async report(clientId: string, roundNum: number, report: RoundReport): Promise<Task> {
    return this.message(TASK, "PUT", this.ofRun(paths.report(roundNum, clientId)), { body: writeMessage(report) });
  }

  /** Download the server's answer to a round. */
  async softLabels(clientId: string, roundNum: number, mostBytes = MOST_FILE_BYTES): Promise<Uint8Array> {
    return this.downloaded(this.ofRun(paths.softLabels(roundNum, clientId)), mostBytes);
  }

  /** Download the trained network, without an extractor. */
  async modelTemplate(mostBytes = MOST_FILE_BYTES): Promise<Uint8Array> {
    return this.downloaded(this.ofRun(paths.modelTemplate), mostBytes);
  }

  private ofRun(path: string): string {
    return paths.run(this.runId) + path;
  }

  private async downloaded(path: string, mostBytes: number, sha256 = ""): Promise<Uint8Array> {
    const download = new Download({ name: path, mostBytes, sha256 }, this.stallSeconds, this.note, this.partStore);
    return download.run((read, headers, had) => this.call(read, "GET", path, { headers, had }));
  }

  private async message<T>(type: MessageType<T>, method: "GET" | "PUT", path: string, body: Body = {}): Promise<T> {
    return this.call((response) => messageOf(type, response, this.stallSeconds), method, path, body);
  }

  private async call<T>(read: Read<T>, method: "GET" | "PUT", path: string, body: Body = {}): Promise<T> {
    let [waited, wait] = [0, FIRST_WAIT_SECONDS];
    const said = new Set<string>();
    for (;;) {
      let began = performance.now();
      let trouble: TroubleError;
      try {
        const answer = await this.try(read, method, path, body);
        if (said.size) this.options.away?.(false);
        await this.rotateIfAsked();
        return answer;
      } catch (error) {
        if (!(error instanceof TroubleError)) throw error;
        trouble = error;
      }
      if (trouble.about.hasMoved) [waited, wait, began] = [0, FIRST_WAIT_SECONDS, performance.now()];
      // Jitter, on top of what is asked for too: not all that lost a server come back in step.
      const pause = (trouble.about.askedSeconds ?? 0) + wait * (0.5 + Math.random() / 2);
      // A lid that was closed in between is not a server that was silent.
      waited += Math.min((performance.now() - began) / 1000, LONGEST_TRY_SECONDS);
      if (waited + pause > this.patienceSeconds) throw trouble.about.refusal ?? this.unavailable(trouble.message);
      if (!trouble.about.isOdd) {
        this.note(`${method} ${path}: ${trouble.message}; next try in ${pause.toFixed(1)} s`);
      } else if (!said.has(trouble.message)) {
        this.note(`${method} ${path}: ${trouble.message}; asked again until the server answers`);
      }
      if (!said.size) this.options.away?.(true);
      said.add(trouble.message);
      await this.sleep(pause);
      waited += pause;
      wait = Math.min(wait * 2, LONGEST_WAIT_SECONDS);
    }
  }

  private async try<T>(read: Read<T>, method: "GET" | "PUT", path: string, { body, headers, had }: Body): Promise<T> {
    const before = had?.() ?? 0;
    let response: Response | undefined;
    try {
      this.uploadBytes += body?.length ?? 0;
      response = await this.options.transport.send({
        method,
        url: this.base + path,
        headers: {
          "Accept-Encoding": "identity",
          [PROTOCOL_HEADER]: SPOKEN,
          [PROCESS_HEADER]: PROCESS,
          ...(this.token === undefined ? {} : { Authorization: `Bearer ${this.token}` }),
          ...headers,
        },
        ...(body && { body }),
      });
      if (response.header(ROTATE_HEADER) !== undefined) this.shallRotate = true;
      if (response.header("accept-encoding")?.includes(LEVELS_ENCODING)) this.takesLevels = true;
      return await judge(this.counted(response), read, this.stallSeconds);
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      // A download that goes on from there next time; what it had before is no step.
      const hasMoved = headers?.["Range"] !== undefined && (had?.() ?? 0) - before >= LEAST_BYTES;
      throw new TroubleError(error.message, { hasMoved });
    } finally {
      response?.discard();
    }
  }

  /** Count the bytes of a body as they come. */
  private counted(response: Response): Response {
    const count = (num: number): void => void (this.downloadBytes += num);
    async function* body(): AsyncGenerator<Uint8Array> {
      for await (const piece of response.body) {
        count(piece.length);
        yield piece;
      }
    }
    return {
      status: response.status,
      header: (name) => response.header(name),
      body: body(),
      discard: () => response.discard(),
    };
  }

  private async rotateIfAsked(): Promise<void> {
    const rotate = this.onRotate;
    if (!this.shallRotate || !rotate) return;
    // Not again in the middle of it.
    this.onRotate = undefined;
    try {
      await rotate();
    } finally {
      this.onRotate = rotate;
      this.shallRotate = false;
    }
  }

  private unavailable(trouble: string): GKTError {
    return new ServerUnavailableError(
      `${this.options.url} did not answer for ${this.patienceSeconds.toFixed(0)} s (${trouble}): is gkt serve running, and ` +
        "can this device reach it?",
    );
  }
}

function checkedBase(url: string): string {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch (error) {
    throw new ConfigError(`server URL '${url}' cannot be used: expected one such as https://10.0.0.5:8080`, {
      cause: error,
    });
  }
  if (parsed.username || parsed.password) {
    // It would go in the token's place, and into logs.
    throw new ConfigError("the server URL holds a user name: expected one such as https://10.0.0.5:8080");
  }
  if (!["http:", "https:"].includes(parsed.protocol)) {
    throw new ConfigError(`server URL is '${url}', expected one such as https://10.0.0.5:8080`);
  }
  return url.replace(/\/+$/, "");
}
