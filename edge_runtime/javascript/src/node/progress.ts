/** Showing what a device does: plain lines for a person, JSON lines for a program; stdout stays free for results. */

import type { Listener, Phase } from "../device/listener.js";

const WORDS: Readonly<Record<Phase, string>> = {
  train: "trains",
  upload: "extracts and uploads",
  wait: "waits",
  model: "takes the model",
};
const SECONDS_BETWEEN_LINES = 1;
// Of a log: what a device waits for changes with every other device.
const SECONDS_BETWEEN_WAITS = 10;

/** Writes lines as `gkt edge run --progress plain` and `json` do. */
export class LineProgress implements Listener {
  private current = { phase: "", round_num: 0, num_images: 0 };
  private reason = "";
  private started = 0;
  private done = 0;
  private told = 0;

  constructor(
    private readonly clientId: string,
    private readonly isJson: boolean,
    private readonly write: (line: string) => void = (line) => void process.stderr.write(`${line}\n`),
  ) {}

  phase(name: Phase, roundNum: number, numImages: number, reason = ""): void {
    const now = performance.now();
    const isNew = name !== this.current.phase || roundNum !== this.current.round_num;
    const isEarly = now - this.started < 1000 * SECONDS_BETWEEN_WAITS;
    if (!isNew && (reason === this.reason || isEarly)) return;
    this.current = { phase: name, round_num: roundNum, num_images: numImages };
    this.reason = reason;
    [this.started, this.done] = [now, 0];
    if (this.isJson) {
      this.line("phase", { ...this.current, ...(reason && { reason }) });
      return;
    }
    const where = roundNum ? `, round ${roundNum}` : "";
    this.note(`${this.clientId} ${WORDS[name]}${where}${reason ? `: ${reason}` : ""}`);
  }

  images(num: number): void {
    this.done += num;
    const now = performance.now();
    const isLast = this.done >= this.current.num_images;
    if (this.isJson && (isLast || now - this.told >= 1000 * SECONDS_BETWEEN_LINES)) {
      this.told = now;
      const rate = this.done / Math.max(1e-6, (now - this.started) / 1000);
      this.line("images", { ...this.current, done: this.done, images_per_second: Math.round(10 * rate) / 10 });
    }
  }

  note(line: string): void {
    if (this.isJson) this.line("note", { message: line });
    else this.write(`${new Date().toTimeString().slice(0, 8)} ${line}`);
  }

  private line(event: string, values: object): void {
    this.write(JSON.stringify({ event, time: Date.now() / 1000, client_id: this.clientId, ...values }));
  }
}
