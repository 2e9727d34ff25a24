/** The third step of the page: how training goes, and a pause. */

import type { Obstacle } from "../conditions.js";
import type { Request, ShownRun, Told } from "../messages.js";
import { element } from "./dom.js";
import type { Texts } from "./texts/en.js";

/** Shows progress, and pauses for the owner, the battery or the network. */
export class TrainingView {
  readonly root: HTMLElement;
  private readonly phase = element("p", { role: "status", "data-phase": "" });
  private readonly bar: HTMLProgressElement;
  private readonly state = element("p", { role: "status" });
  private readonly button: HTMLButtonElement;
  private readonly log = element("ol", { class: "log", lang: "en" });
  private pausedFor: Obstacle | "owner" | undefined;
  /** What the owner has said to train in spite of. */
  private overruled: Obstacle | undefined;
  private images = 0;
  private isAway = false;

  constructor(
    private readonly run: ShownRun,
    private readonly texts: Texts,
    private readonly ask: (request: Request) => void,
  ) {
    this.bar = element("progress", { max: "1", "aria-label": texts.progress });
    this.button = element("button", { type: "button", class: "main", click: () => this.pressed() }, texts.pause);
    this.root = element(
      "section",
      { "aria-labelledby": "training" },
      element("h2", { id: "training" }, texts.training),
      this.phase,
      this.bar,
      this.state,
      element("p", { class: "row" }, this.button),
      element("p", {}, texts.keepOpen),
      element("details", {}, element("summary", {}, texts.details), this.log),
    );
  }

  /** Take what speaks against training now, or that nothing does. */
  obstacle(obstacle: Obstacle | undefined): void {
    if (!obstacle) this.overruled = undefined;
    if (this.pausedFor === "owner" || obstacle === this.pausedFor || obstacle === this.overruled) return;
    this.become(obstacle);
  }

  /** Show what the worker tells. */
  hear(told: Told): void {
    if (told.kind === "phase") {
      this.images = told.numImages;
      this.phase.textContent = this.texts.phase[told.phase](told.round, this.run.rounds);
      this.phase.dataset.phase = told.phase;
      if (this.images) this.bar.value = 0;
      else this.bar.removeAttribute("value");
    } else if (told.kind === "images" && this.images) {
      this.bar.value = Math.min(1, told.done / this.images);
    } else if (told.kind === "paused") {
      if (this.pausedFor) this.state.textContent = this.texts[this.pausedFor === "owner" ? "paused" : this.pausedFor];
    } else if (told.kind === "away") {
      this.isAway = told.isAway;
      if (!this.pausedFor) this.state.textContent = this.isAway ? this.texts.away : "";
    } else if (told.kind === "note") {
      this.log.append(element("li", {}, told.line));
      while (this.log.children.length > 200) this.log.firstChild?.remove();
    }
  }

  private pressed(): void {
    if (this.pausedFor && this.pausedFor !== "owner") this.overruled = this.pausedFor;
    this.become(this.pausedFor ? undefined : "owner");
  }

  private become(pausedFor: Obstacle | "owner" | undefined): void {
    this.pausedFor = pausedFor;
    this.button.textContent = pausedFor ? this.texts.resume : this.texts.pause;
    this.state.textContent = pausedFor ? this.texts.pausing : this.isAway ? this.texts.away : "";
    this.ask({ kind: pausedFor ? "pause" : "resume" });
  }
}
