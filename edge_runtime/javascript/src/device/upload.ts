/** A device's upload of a round: every shard that the server does not hold, then the report that closes it. */

import type { ServerClient } from "../connection/server-client.js";
import type { Engine } from "../engine/engine.js";
import { ProtocolError, RoundClosedError, RoundError } from "../errors.js";
import { grouped } from "../numbers.js";
import { numShards, type ClientPart } from "../rounds/client-part.js";
import { encodedShard, shards } from "../rounds/client-shards.js";
import type { DeviceState } from "../state/device-state.js";
import type { FeatureShape } from "../wire/codec.js";
import type { MissingShards, RoundReport, Task } from "../wire/messages.js";
import type { Split } from "../wire/shards.js";
import type { Listener } from "./listener.js";

// That all shards of a round are sent, if a server says that it lost them.
const MOST_TIMES = 10;

/** What an upload is made of. */
export interface Uploading {
  readonly server: ServerClient;
  readonly engine: Engine;
  readonly part: ClientPart;
  readonly featureShape: FeatureShape;
  readonly listener: Listener;
  /** Waits between two shards, where a device has to. */
  readonly pause: () => Promise<void>;
}

/**
 * Send what the network of the last trained round makes of the data (lines 22 to 30 of Algorithm 1).
 *
 * @param state Which round that was, and how its training went.
 * @param heldRound The round of an upload that the server is to train on again; 0 for a new one.
 * @returns What to do next.
 * @throws RoundClosedError The round went on without this device.
 * @throws ProtocolError The server does not keep what it is sent.
 */
export async function upload(uploading: Uploading, state: DeviceState, heldRound = 0): Promise<Task> {
  const { server, part, listener } = uploading;
  const roundNum = state.trained_round;
  const sending = new Sending(uploading, roundNum);
  for (;;) {
    if (!heldRound) await sending.sendMissing();
    const report = reportOf(part, state, sending.extractSeconds, heldRound);
    listener.note(
      `round ${roundNum}: loss ${state.loss.toFixed(4)}, accuracy ${state.accuracy.toFixed(3)}, ` +
        `${report.images_per_second.toFixed(0)} images/s, ${grouped(server.uploadBytes)} bytes sent so far` +
        (heldRound ? `, none for this round: the server has those of round ${heldRound}` : ""),
    );
    try {
      return await server.report(part.clientId, roundNum, report);
    } catch (error) {
      if (!(error instanceof RoundError) || error instanceof RoundClosedError) throw error;
      // A shard was damaged or lost there since it was asked for.
      if (heldRound || isNothing(await server.missingShards(part.clientId, roundNum))) throw error;
    }
  }
}

function isNothing(missing: MissingShards): boolean {
  return !missing.train.length && !missing.validation.length;
}

/** Sends shards until the server misses none. */
class Sending {
  extractSeconds = 0;
  /** A server may lose shards; one that asks for the same ones again and again is ended. */
  private left: number;

  constructor(
    private readonly uploading: Uploading,
    private readonly roundNum: number,
  ) {
    const { part } = uploading;
    this.left = MOST_TIMES * (numShards(part, "train") + numShards(part, "validation"));
  }

  /**
   * Ask what is missing, and send it.
   *
   * @throws ProtocolError The server does not keep what it is sent.
   */
  async sendMissing(): Promise<void> {
    const { server, part, listener } = this.uploading;
    let before = "";
    // Usually once: an answer names at most so many, and a server may have lost some since.
    for (;;) {
      const missing = await server.missingShards(part.clientId, this.roundNum);
      if (isNothing(missing)) return;
      const named = JSON.stringify([missing.train, missing.validation]);
      if (named === before) {
        throw new ProtocolError(
          `the server still misses shards ${named.slice(0, 200)} of round ${this.roundNum}: they were sent`,
        );
      }
      before = named;
      this.left -= missing.train.length + missing.validation.length;
      if (this.left < 0) {
        throw new ProtocolError(
          `the server asked for the shards of round ${this.roundNum} more than ${MOST_TIMES} times each: look after its disk, ` +
            "then start this device again",
        );
      }
      listener.phase("upload", this.roundNum, part.data.train.labels.length + part.data.validation.labels.length);
      await this.send("train", missing.train);
      await this.send("validation", missing.validation);
    }
  }

  private async send(split: Split, wanted: readonly number[]): Promise<void> {
    const { server, engine, part, featureShape, listener, pause } = this.uploading;
    let mark = performance.now();
    for await (const shard of shards(engine, part, featureShape, this.roundNum, split, wanted)) {
      this.extractSeconds += (performance.now() - mark) / 1000;
      await server.putShard(shard.key, encodedShard(shard, part), part.config.compress);
      listener.images(shard.content.labels.length);
      await pause();
      mark = performance.now();
    }
  }
}

function reportOf(part: ClientPart, state: DeviceState, extractSeconds: number, heldRound: number): RoundReport {
  const numImages = part.data.train.labels.length * part.config.local_epochs;
  return {
    num_train_shards: numShards(part, "train"),
    num_validation_shards: numShards(part, "validation"),
    num_examples: part.data.train.labels.length,
    loss: state.loss,
    accuracy: state.accuracy,
    train_seconds: state.train_seconds,
    extract_seconds: extractSeconds,
    images_per_second: state.train_seconds ? numImages / state.train_seconds : 0,
    feature_clip: part.noise.clip,
    feature_noise: part.noise.noise,
    label_epsilon: 0,
    upload_round: heldRound,
  };
}
