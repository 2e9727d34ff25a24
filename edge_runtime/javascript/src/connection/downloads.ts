/**
 * A file from the server over a link that breaks: what has arrived stays, and the rest is asked for.
 *
 * It never grows beyond what it may have: who sends more is not listened to. What has come is kept for the next process
 * as well, under the names and with the note of `edge_runtime/connection/kept_part.py`.
 */

import { GKTError, ServerUnavailableError, DiskFullError, UnsafeModelError } from "../errors.js";
import { joined, sha256Hex } from "../hashing.js";
import { grouped } from "../numbers.js";
import { isObject, parseJsonBytes } from "../json.js";
import type { Store } from "../state/store.js";
import { SHA256_HEADER } from "../wire/messages.js";
import { BINARY_TYPE, checkType, OddAnswerError, rawPieces } from "./answers.js";
import type { Response } from "./transport.js";

const PART_NAME = "download.part";
const NOTE_NAME = "download.json";
const SECONDS_BETWEEN_LINES = 10;
const BYTES_BETWEEN_SAVES = 4 << 20;
/** All tries together may bring so many times what a file may have. */
const MOST_TIMES = 4;
const SLACK_BYTES = 1 << 20;

/** What is known of a file before it comes. */
export interface Wanted {
  /** For the log. */
  readonly name: string;
  /** What it may have. */
  readonly mostBytes: number;
  /** What it has to be; empty where that is not known. */
  readonly sha256: string;
}

/** One file, over as many tries as it takes. */
export class Download {
  /** Of the next try; what is compressed on the way cannot go on in the middle. */
  readonly headers: Record<string, string> = { "Accept-Encoding": "identity" };
  private pieces: Uint8Array[] = [];
  private numBytes = 0;
  private numReceived = 0;
  /** The most that was ever there; what is sent once more brings nothing. */
  private farthest = 0;
  private unsaved = 0;
  private sha256 = "";
  private told = performance.now();

  constructor(
    private readonly wanted: Wanted,
    private readonly stallSeconds: number,
    private readonly note: (line: string) => void,
    private readonly store: Store | undefined,
  ) {}

  /** Go on with what an earlier process left, if it is a part of this file. */
  async takeUp(): Promise<void> {
    const note = await this.store?.read(NOTE_NAME);
    const part = await this.store?.read(PART_NAME);
    if (!note || !part) return;
    try {
      const said = parseJsonBytes(note, "the note of a download");
      if (!isObject(said) || said.name !== this.wanted.name || typeof said.sha256 !== "string") return;
      if (!/^[0-9a-f]{64}$/.test(said.sha256) || (this.wanted.sha256 && this.wanted.sha256 !== said.sha256)) return;
      this.sha256 = said.sha256;
    } catch {
      return;
    }
    // All but the last byte: there is a rest to ask for.
    const numBytes = part.length - 1;
    if (!(numBytes > 0 && numBytes < this.wanted.mostBytes)) return;
    this.pieces = [part.subarray(0, numBytes)];
    this.numBytes = numBytes;
    this.farthest = numBytes;
    this.askForTheRest();
    this.note(`${this.wanted.name}: goes on after ${grouped(numBytes)} bytes that are here`);
  }

  /** Run the tries, and keep or drop what has come as they end. */
  async run(
    tries: (
      read: (response: Response) => Promise<Uint8Array>,
      headers: Record<string, string>,
      had: () => number,
    ) => Promise<Uint8Array>,
  ): Promise<Uint8Array> {
    await this.takeUp();
    try {
      const whole = await tries(
        (response) => this.read(response),
        this.headers,
        () => this.farthest,
      );
      await this.drop();
      return whole;
    } catch (error) {
      // What the server refuses is not kept, so that no later process asks for the rest of it.
      if (error instanceof ServerUnavailableError || error instanceof DiskFullError) await this.save();
      else if (error instanceof GKTError) await this.drop();
      throw error;
    }
  }

  /**
   * Take what an answer holds; the file, which is whole then.
   *
   * @throws OddAnswerError Something else than the server sent it, it changed on its way, or is too long.
   * @throws ServerUnavailableError All tries together brought far more than the file has.
   * @throws UnsafeModelError The server itself says that it is another file than its manifest names.
   * @throws TransportError The connection broke; the next try goes on from there.
   */
  private async read(response: Response): Promise<Uint8Array> {
    checkType(response, BINARY_TYPE);
    const { name, mostBytes } = this.wanted;
    const sha256 = (response.header(SHA256_HEADER) ?? "").toLowerCase();
    if (this.wanted.sha256 && sha256 && sha256 !== this.wanted.sha256) {
      throw new UnsafeModelError(
        `${name} is not the file that the server's own manifest names (SHA-256): nothing of it was kept; whoever runs the ` +
          "server must look after its bundle",
      );
    }
    if (response.status !== 206) {
      // The first part, or another file by now.
      this.beginAnew(sha256);
    } else if (
      sha256 !== this.sha256 ||
      !(response.header("content-range") ?? "").trim().toLowerCase().startsWith(`bytes ${this.numBytes}-`)
    ) {
      this.beginAnew("");
      throw new OddAnswerError("another part of the file than was asked for: a proxy or its cache");
    }
    const length = Number(response.header("content-length") ?? 0);
    if (!(this.numBytes + (length || 0) <= mostBytes)) throw this.tooLong();
    for await (const piece of rawPieces(response, this.stallSeconds)) {
      if (this.numBytes + piece.length > mostBytes) throw this.tooLong();
      this.numReceived += piece.length;
      if (this.numReceived > MOST_TIMES * mostBytes + SLACK_BYTES) {
        throw new ServerUnavailableError(
          `${name}: ${grouped(this.numReceived)} bytes came of a file that has ${grouped(mostBytes)} at most, and never all ` +
            "of it: something between breaks off answers and lets no part be asked for, or the server means harm",
        );
      }
      this.pieces.push(piece);
      this.numBytes += piece.length;
      this.farthest = Math.max(this.farthest, this.numBytes);
      this.unsaved += piece.length;
      if (sha256) this.askForTheRest();
      if (this.unsaved >= BYTES_BETWEEN_SAVES) await this.save();
      if (performance.now() - this.told > 1000 * SECONDS_BETWEEN_LINES) {
        this.told = performance.now();
        this.note(`${name}: ${grouped(this.numBytes)} bytes`);
      }
    }
    const whole = joined(this.pieces);
    const expected = this.wanted.sha256 || sha256;
    if (expected && (await sha256Hex(whole)) !== expected) {
      this.beginAnew("");
      throw new OddAnswerError(`${grouped(whole.length)} bytes that are not the server's: a proxy cut or changed them`);
    }
    return whole;
  }

  private tooLong(): OddAnswerError {
    this.beginAnew("");
    return new OddAnswerError(
      `more than the ${grouped(this.wanted.mostBytes)} bytes that the file has: another server, or one that means harm`,
    );
  }

  private askForTheRest(): void {
    this.headers["Range"] = `bytes=${this.numBytes}-`;
    this.headers["If-Range"] = `"${this.sha256}"`;
  }

  private beginAnew(sha256: string): void {
    this.pieces = [];
    this.numBytes = 0;
    this.unsaved = 0;
    this.sha256 = sha256;
    delete this.headers["Range"];
    delete this.headers["If-Range"];
  }

  private async save(): Promise<void> {
    if (!this.store || !this.sha256 || !this.numBytes) return;
    this.unsaved = 0;
    await this.store.remove(NOTE_NAME);
    await this.store.write(PART_NAME, joined(this.pieces));
    const note = { name: this.wanted.name, sha256: this.sha256 };
    await this.store.write(NOTE_NAME, new TextEncoder().encode(JSON.stringify(note)));
  }

  private async drop(): Promise<void> {
    await this.store?.remove(NOTE_NAME);
    await this.store?.remove(PART_NAME);
  }
}
