/** When devices upload: in every round, in given rounds, or when their features have changed enough. */

import { ConfigError } from "../errors.js";
import { printable } from "../printable.js";

const ROUNDS = /^rounds=([1-9][0-9]{0,8}(?:,[1-9][0-9]{0,8})*)$/;
const DRIFT = /^drift=([0-9.]+(?:[eE][+-]?[0-9]+)?)$/;

/** When devices upload; as it stands, in every round. */
export class UploadSchedule {
  /**
   * @param rounds The only rounds in which they do; undefined for another rule.
   * @param drift The relative change of features, since the last upload, from which on they do.
   */
  constructor(
    readonly rounds?: readonly number[],
    readonly drift?: number,
  ) {}

  /**
   * Read `every`, `rounds=1,4,16` or `drift=0.1`.
   *
   * @throws ConfigError It is none of these.
   */
  static parse(text: string): UploadSchedule {
    if (text === "every") return new UploadSchedule();
    const rounds = ROUNDS.exec(text);
    if (rounds) {
      const numbers = [...new Set(rounds[1].split(",").map(Number))];
      return new UploadSchedule(numbers.sort((one, other) => one - other));
    }
    const drift = Number(DRIFT.exec(text)?.[1] ?? 0);
    if (drift > 0 && Number.isFinite(drift)) return new UploadSchedule(undefined, drift);
    throw new ConfigError(
      `uploads is '${printable(text.slice(0, 60))}', expected every, rounds=1,4,16 (rounds from 1) or drift=0.1 (above 0)`,
    );
  }

  get isEvery(): boolean {
    return this.rounds === undefined && this.drift === undefined;
  }

  /**
   * Say whether a device uploads in a round.
   *
   * @param lastRound The round of its last upload that the server has; 0 for none.
   * @param drift How much its features have changed since; undefined if that is not known.
   */
  isDue(roundNum: number, lastRound: number, drift?: number): boolean {
    if (lastRound < 1) return true;
    if (this.rounds) return this.rounds.some((each) => lastRound < each && each <= roundNum);
    return this.drift === undefined || drift === undefined || drift >= this.drift;
  }

  /** Count the uploads of a device that takes part in all of so many rounds, at most. */
  numUploads(rounds: number): number {
    if (!this.rounds) return rounds;
    return new Set([1, ...this.rounds.filter((each) => each <= rounds)]).size;
  }
}
