/**
 * Whether features are what they are said to be: the output of the extractor, and not the images.
 *
 * What makes features is a graph that the server gave. Of the built-in networks the device knows what that graph computes,
 * up to the tap, so it computes the same itself, of every image whose features leave, and compares. Of both these and a
 * network of the server's own it looks at noise: if one pixel of it can be read off the features by a linear map, pixels
 * pass through.
 */

import type { Manifest } from "../bundle/manifest.js";
import type { Weights } from "../bundle/template.js";
import type { Batch, Engine, Predicted } from "../engine/engine.js";
import { UnsafeModelError } from "../errors.js";
import { knownFeatures } from "./known-networks.js";
import { layoutOf } from "./layouts.js";
import { PLACES_A_CHANNEL, readableShare } from "./readable.js";

/**
 * Of noise, copies let all of a pixel's variance be predicted, and honest stems stay below this. A wide network of
 * somebody's own may let through much.
 */
export const MOST_READABLE = 0.95;
export const MOST_READABLE_OF_OTHERS = 0.999;
// Relative to the largest feature: engines differ by some 1e-6.
const TOLERANCE = 1e-3;
const PROBE_IMAGES = 4;
const PROBE_VALUES = 1 << 21;
const COMPARED_AT_ONCE = 16;

/** An engine whose features are looked at before anybody gets them. */
export class GuardedEngine implements Engine {
  /** Of the last trial: the largest share of a pixel's variance, 0..1, that can be read off the features of noise. */
  readable = 0;
  private weights: Weights | undefined;

  constructor(
    private readonly engine: Engine,
    private readonly manifest: Manifest,
  ) {}

  get name(): string {
    return this.engine.name;
  }

  /** Say what the features of a network are that the device knows. */
  get knownAs(): string {
    return layoutOf(this.manifest.edgeNetwork)?.tapBlocks
      ? "the output of the extractor, up to its narrow tap"
      : "the output of the first convolution";
  }

  /** Say whether the device knows what this network computes. */
  get isKnown(): boolean {
    return layoutOf(this.manifest.edgeNetwork) !== undefined;
  }

  /** Say what is not known of a network that is not built in. */
  get stranger(): string {
    return (
      `${this.manifest.edgeNetwork} is a network of the server's own: what its features are cannot be computed here; of ` +
      `noise, ${(100 * this.readable).toFixed(0)}% of a pixel can be read off them at most`
    );
  }

  async trainStep(batch: Batch): Promise<{ loss: number; logits: Float32Array }> {
    this.weights = undefined;
    return this.engine.trainStep(batch);
  }

  /**
   * Compute features and logits.
   *
   * @throws UnsafeModelError The features are the images, or not what they are said to be.
   */
  async predict(images: Float32Array): Promise<Predicted> {
    const weights = await this.tryNow();
    const predicted = await this.engine.predict(images);
    this.check(images, predicted.features, weights);
    return predicted;
  }

  /**
   * Look at the features of noise, unless that was done since the last step; the weights as they are.
   *
   * @throws UnsafeModelError The features are the images, or not what they are said to be.
   */
  async tryNow(): Promise<Weights> {
    if (!this.weights) {
      const weights = this.engine.parameters();
      await this.tryNoise(weights);
      this.weights = weights;
    }
    return this.weights;
  }

  state(): Uint8Array {
    return this.engine.state();
  }

  parameters(): Weights {
    return this.engine.parameters();
  }

  /** Look at the features of noise that nobody knows beforehand. */
  private async tryNoise(weights: Weights): Promise<void> {
    const side = this.manifest.imageSize;
    const noise = uniform(this.numProbes() * 3 * side * side);
    const { features } = await this.engine.predict(noise);
    this.check(noise, features, weights);
    this.readable = readableShare(noise, side, features, this.manifest.featureShape);
    if (this.readable > (this.isKnown ? MOST_READABLE : MOST_READABLE_OF_OTHERS)) {
      throw this.refused(`of noise, ${(100 * this.readable).toFixed(1)}% of a pixel can be read off its features`);
    }
  }

  private check(images: Float32Array, features: Float32Array, weights: Weights): void {
    if (!this.isKnown) return;
    const imageValues = 3 * this.manifest.imageSize ** 2;
    const featureValues = this.manifest.featureShape.reduce((product, each) => product * each, 1);
    const num = images.length / imageValues;
    for (let begin = 0; begin < num; begin += COMPARED_AT_ONCE) {
      const end = Math.min(num, begin + COMPARED_AT_ONCE);
      const known = knownFeatures(images.subarray(begin * imageValues, end * imageValues), weights, this.manifest);
      if (known.length !== (end - begin) * featureValues) {
        throw this.refused(
          `its features have ${featureValues} numbers, of ${this.manifest.edgeNetwork} they have others`,
        );
      }
      let [apart, largest] = [0, 0];
      for (let index = 0; index < known.length; index++) {
        const difference = Math.abs(known[index] - features[begin * featureValues + index]);
        // Not ">": what is not finite is apart.
        if (!(difference <= apart)) apart = difference;
        largest = Math.max(largest, Math.abs(known[index]));
      }
      if (!(apart <= TOLERANCE * (1 + largest))) {
        throw this.refused(`what it gives out as features is not ${this.knownAs}`);
      }
    }
  }

  /** Say how many images of noise give enough places for a regression on all channels, within bounds. */
  private numProbes(): number {
    const [channels, height, width] = this.manifest.featureShape;
    const places = Math.max(1, height - 2) * Math.max(1, width - 2);
    const values = Math.max(channels * height * width, 3 * this.manifest.imageSize ** 2);
    const most = Math.max(1, Math.floor(PROBE_VALUES / values));
    return Math.min(Math.max(PROBE_IMAGES, Math.ceil((PLACES_A_CHANNEL * channels) / places)), most);
  }

  private refused(what: string): UnsafeModelError {
    return new UnsafeModelError(
      `the extractor ${this.manifest.edgeNetwork} of this bundle lets private images through, or is none: ${what}. Nothing ` +
        "of it was sent; whoever runs the server must export again, or somebody between has changed it",
    );
  }
}

function uniform(num: number): Float32Array {
  const values = new Float32Array(num);
  const drawn = new Uint16Array(1 << 15);
  for (let begin = 0; begin < num; begin += drawn.length) {
    crypto.getRandomValues(drawn);
    for (let index = begin; index < Math.min(num, begin + drawn.length); index++)
      values[index] = drawn[index - begin] / 65536;
  }
  return values;
}
