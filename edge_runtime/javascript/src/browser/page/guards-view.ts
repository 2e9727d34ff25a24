/** What an owner may ask for beyond the usual: less in features, or only features of a kind. */

import type { Guards } from "../messages.js";
import { element } from "./dom.js";
import type { Texts } from "./texts/en.js";

/** Fields that are empty at first, behind a line that opens them. */
export class GuardsView {
  readonly root: HTMLElement;
  private readonly clip = number();
  private readonly noise = number();
  private readonly tap = element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  private readonly bits = number("1");

  constructor(texts: Texts) {
    const line = (text: string, input: HTMLInputElement): HTMLElement =>
      element("p", {}, element("label", {}, `${text} `, input));
    this.root = element(
      "details",
      {},
      element("summary", {}, texts.guards),
      element("p", {}, texts.guardsHow),
      line(texts.featureClip, this.clip),
      line(texts.featureNoise, this.noise),
      line(texts.requireTap, this.tap),
      line(texts.maxBits, this.bits),
    );
  }

  /** Give what stands in the fields. */
  values(): Guards {
    return {
      featureClip: Number(this.clip.value),
      featureNoise: Number(this.noise.value),
      requireTap: this.tap.value.trim(),
      maxBits: Number(this.bits.value),
    };
  }
}

function number(step = "any"): HTMLInputElement {
  return element("input", { type: "number", min: "0", step, inputmode: "decimal" });
}
