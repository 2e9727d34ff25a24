/** The second step of the page: what would leave, what it gives away, and whether the owner agrees. */

import type { Preview } from "../../device/preview.js";
import type { ShownRun } from "../messages.js";
import { element, picture, pixelsOf } from "./dom.js";
import type { Texts } from "./texts/en.js";

/** Show a preview, and ask for consent. */
export function previewView(
  { dry, pairs, explained }: Preview,
  run: ShownRun,
  texts: Texts,
  language: string,
  done: { readonly agreed: () => void; readonly back: () => void },
): HTMLElement {
  const start = element("button", { type: "button", class: "main", disabled: true, click: done.agreed }, texts.start);
  const consent = element("input", {
    type: "checkbox",
    id: "consent",
    change: () => void (start.disabled = !consent.checked),
  });
  const size = run.imageSize;
  const shown = (planes: Float32Array, text: string, index: number): HTMLCanvasElement =>
    picture(pixelsOf(planes, size), size, `${text} ${index + 1}`);
  return element(
    "section",
    { "aria-labelledby": "preview" },
    element("h2", { id: "preview" }, texts.preview),
    element("p", {}, texts.bytes(bytes(dry.round_bytes, language), bytes(dry.run_bytes, language), dry.rounds)),
    pairs.length > 0 &&
      element(
        "figure",
        {},
        element("div", { class: "pairs" }, ...pairs.map((pair, index) => shown(pair.image, texts.original, index))),
        element("div", { class: "pairs" }, ...pairs.map((pair, index) => shown(pair.rebuilt, texts.made, index))),
        element("figcaption", {}, texts.rebuiltHow(Math.round(100 * explained))),
      ),
    !pairs.length && element("p", {}, texts.noPicture),
    element("p", {}, texts.leaves),
    element("ul", { lang: "en" }, ...dry.leaves.map((line) => element("li", {}, line))),
    element("p", {}, texts.stays),
    element("ul", { lang: "en" }, ...dry.stays.map((line) => element("li", {}, line))),
    element("p", {}, element("label", { class: "consent" }, consent, texts.consent)),
    element("p", { class: "row" }, start, element("button", { type: "button", click: done.back }, texts.back)),
  );
}

/** Write a size for a person. */
export function bytes(num: number, language: string): string {
  const [value, unit] = num < 1e6 ? [num / 1e3, "kB"] : [num / 1e6, "MB"];
  return `${value.toLocaleString(language, { maximumSignificantDigits: 3 })} ${unit}`;
}
