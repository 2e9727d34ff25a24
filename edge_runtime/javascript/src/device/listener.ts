/** Who hears what a device does: a terminal, a page, a test. */

export type Phase = "train" | "upload" | "wait" | "model";

export interface Listener {
  /** Hear that a phase begins, or that a device waits for something else. */
  phase(name: Phase, roundNum: number, numImages: number, reason?: string): void;
  /** Hear that so many images more are done. */
  images(num: number): void;
  /** Hear a line of the log. */
  note(line: string): void;
}
