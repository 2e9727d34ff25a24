/** The last step of the page: the combined model, tried with a photo. */

import type { DeviceResult } from "../../device/device.js";
import type { Request, ShownRun } from "../messages.js";
import { readPhoto, UnreadablePhotoError } from "../photos.js";
import { element, fileButton, picture } from "./dom.js";
import type { Texts } from "./texts/en.js";

const MOST_NAMED = 3;

/** Shows what came out, and what the model says of photos. */
export class DoneView {
  readonly root: HTMLElement;
  private readonly answer = element("div", { role: "status", class: "answer" });

  constructor(
    result: DeviceResult | undefined,
    private readonly run: ShownRun,
    private readonly texts: Texts,
    private readonly ask: (request: Request) => void,
  ) {
    const { haveModel } = texts;
    const percent = Math.round(100 * (result?.validation_accuracy ?? 0));
    const look = (files: readonly File[]): void => void this.look(files[0]);
    this.root = element(
      "section",
      { "aria-labelledby": "done" },
      element("h2", { id: "done" }, texts.done),
      element("p", {}, result ? texts.result(percent, result.num_validation_images) : haveModel),
      element("p", { class: "row" }, fileButton(texts.try, { accept: "image/*", "data-add": "try" }, look)),
      this.answer,
    );
  }

  private async look(file: File | undefined): Promise<void> {
    if (!file) return;
    try {
      const pixels = await readPhoto(file, this.run.imageSize, "crop");
      this.answer.replaceChildren(picture(pixels, this.run.imageSize, file.name));
      this.ask({ kind: "classify", pixels });
    } catch (error) {
      if (!(error instanceof UnreadablePhotoError)) throw error;
      const { heic, unreadable } = this.texts;
      this.answer.replaceChildren(error.reason === "heic" ? heic(file.name) : unreadable(file.name));
    }
  }

  /** Show what the model says of the photo. */
  classified(scores: readonly number[]): void {
    const best = scores.map((score, label) => ({ score, name: this.run.classNames[label] }));
    best.sort((one, other) => other.score - one.score);
    const percent = (score: number): number => Math.round(100 * score);
    this.answer.append(
      element("p", { "data-answer": best[0].name }, this.texts.looksLike(best[0].name, percent(best[0].score))),
      element(
        "ul",
        {},
        ...best.slice(1, MOST_NAMED).map(({ name, score }) => element("li", {}, `${name} ${percent(score)} %`)),
      ),
    );
  }
}
