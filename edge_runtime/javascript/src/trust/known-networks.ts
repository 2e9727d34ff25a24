/**
 * Compute what the extractor of a built-in network makes of images, to compare it with a graph's.
 *
 * Normalisation, the stem (convolution without bias, batch norm, ReLU) and, of a narrow tap, its blocks and the 1x1
 * convolution behind them: all in eval mode, from the weights alone; `edge_runtime/trust/known_networks.py`.
 */

import type { Manifest } from "../bundle/manifest.js";
import type { Weights } from "../bundle/template.js";
import { UnsafeModelError } from "../errors.js";
import { EXPANSION, layoutOf, STEM_KERNELS, TAP_CHANNELS, type EdgeLayout } from "./layouts.js";

const EPSILON = 1e-5;

/** Maps `[n, C, S, S]`. */
interface Maps {
  readonly data: Float32Array;
  readonly num: number;
  readonly channels: number;
  readonly size: number;
}

interface Layer {
  readonly kernel: Float32Array;
  readonly offset: Float32Array;
  readonly side: number;
}

/**
 * Compute the features of a built-in network.
 *
 * @param images `[n, 3, S, S]` in 0..1.
 * @returns `[n, C, H, W]`; not finite where the weights are not.
 * @throws UnsafeModelError The network has other weights than a built-in one.
 */
export function knownFeatures(images: Float32Array, weights: Weights, manifest: Manifest): Float32Array {
  const layout = layoutOf(manifest.edgeNetwork) as EdgeLayout;
  const size = manifest.imageSize;
  const { pixel_mean: mean, pixel_std: std } = manifest.fields;
  const normal = new Float32Array(images.length);
  const area = size * size;
  for (let index = 0; index < images.length; index++) {
    const colour = Math.floor(index / area) % 3;
    normal[index] = Math.fround(images[index] - Math.fround(mean[colour])) / Math.fround(std[colour]);
  }
  return new Extractor(weights, layout).features({ data: normal, num: images.length / (3 * area), channels: 3, size });
}

/** The layers of an extractor. */
class Extractor {
  constructor(
    private readonly weights: Weights,
    private readonly layout: EdgeLayout,
  ) {}

  features(images: Maps): Float32Array {
    const { tapBlocks, channels } = this.layout;
    const width = TAP_CHANNELS * EXPANSION;
    let x = this.stem(images, tapBlocks ? "extractor.stem" : "extractor");
    for (let index = 0; index < tapBlocks; index++) {
      x = this.bottleneck(x, `extractor.blocks.${index}`, index ? width : TAP_CHANNELS);
    }
    if (tapBlocks) x = relu(this.layer(x, "extractor.conv", "extractor.bn", channels, width, 1));
    return x.data;
  }

  private stem(x: Maps, name: string): Maps {
    const { isTied, stemStride } = this.layout;
    const side = STEM_KERNELS[stemStride];
    const half = this.folded(`${name}.conv`, `${name}.bn`, isTied ? TAP_CHANNELS / 2 : TAP_CHANNELS, 3, side);
    return relu(convolved(x, isTied ? mirrored(half) : half, TAP_CHANNELS, stemStride));
  }

  /** 1x1, 3x3 with stride 2 and 1x1 around a shortcut that projects. */
  private bottleneck(x: Maps, name: string, channels: number): Maps {
    const width = TAP_CHANNELS * EXPANSION;
    let y = relu(this.layer(x, `${name}.conv1`, `${name}.bn1`, TAP_CHANNELS, channels, 1));
    y = relu(this.layer(y, `${name}.conv2`, `${name}.bn2`, TAP_CHANNELS, TAP_CHANNELS, 3, 2));
    y = this.layer(y, `${name}.conv3`, `${name}.bn3`, width, TAP_CHANNELS, 1);
    const shortcut = this.layer(x, `${name}.shortcut.conv`, `${name}.shortcut.bn`, width, channels, 1, 2);
    for (let index = 0; index < y.data.length; index++) y.data[index] += shortcut.data[index];
    return relu(y);
  }

  private layer(x: Maps, conv: string, norm: string, out: number, channels: number, side: number, stride = 1): Maps {
    return convolved(x, this.folded(conv, norm, out, channels, side), out, stride);
  }

  /** Kernel and offset of a convolution with the batch norm behind it. */
  private folded(conv: string, norm: string, out: number, channels: number, side: number): Layer {
    const kernel = this.weight(`${conv}.weight`, out * channels * side * side).slice();
    const [scale, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map((name) =>
      this.weight(`${norm}.${name}`, out),
    );
    const offset = new Float32Array(out);
    const size = kernel.length / out;
    for (let filter = 0; filter < out; filter++) {
      const factor = Math.fround(
        scale[filter] / Math.fround(Math.sqrt(Math.fround(variance[filter] + Math.fround(EPSILON)))),
      );
      for (let index = filter * size; index < (filter + 1) * size; index++) kernel[index] *= factor;
      offset[filter] = shift[filter] - Math.fround(mean[filter] * factor);
    }
    return { kernel, offset, side };
  }

  private weight(name: string, size: number): Float32Array {
    const found = this.weights.get(name);
    if (found?.length !== size) {
      throw new UnsafeModelError(
        "the bundle calls its network a built-in one and has other first layers than that one: whoever runs the server " +
          "must export again",
      );
    }
    return found;
  }
}

/** Give filters and behind them the same ones seen in a mirror. */
function mirrored({ kernel, offset, side }: Layer): Layer {
  const both = new Float32Array(2 * kernel.length);
  both.set(kernel);
  for (let index = 0; index < kernel.length; index++) {
    const column = index % side;
    both[kernel.length + index] = kernel[index - column + (side - 1 - column)];
  }
  return { kernel: both, offset: Float32Array.from([...offset, ...offset]), side };
}

/** Convolve with zeros around, and add the offset of each filter. */
function convolved(x: Maps, layer: Layer, out: number, stride: number): Maps {
  const { num, channels, size, data: input } = x;
  const { kernel, offset, side } = layer;
  const around = Math.floor(side / 2);
  const outSize = Math.ceil(size / stride);
  const area = outSize * outSize;
  const data = new Float32Array(num * out * area);
  // Where each place of the kernel lies over the image, once for all filters and images.
  const reach = Array.from({ length: side }, (_, place) => inside(place - around, size, outSize, stride));
  const sums = new Float64Array(area);
  for (let image = 0; image < num; image++) {
    for (let filter = 0; filter < out; filter++) {
      sums.fill(offset[filter]);
      for (let channel = 0; channel < channels; channel++) {
        const plane = (image * channels + channel) * size * size;
        const weights = (filter * channels + channel) * side * side;
        if (side === 1 && stride === 1) {
          const weight = kernel[weights];
          for (let place = 0; place < area; place++) sums[place] += weight * input[plane + place];
          continue;
        }
        for (let ky = 0; ky < side; ky++) {
          for (let kx = 0; kx < side; kx++) {
            const weight = kernel[weights + ky * side + kx];
            const [beginX, endX] = reach[kx];
            for (let y = reach[ky][0]; y < reach[ky][1]; y++) {
              const target = y * outSize;
              let source = plane + (y * stride + ky - around) * size + kx - around + beginX * stride;
              for (let place = target + beginX; place < target + endX; place++, source += stride) {
                sums[place] += weight * input[source];
              }
            }
          }
        }
      }
      data.set(sums, (image * out + filter) * area);
    }
  }
  return { data, num, channels: out, size: outSize };
}

/** Say for which places of the output `place * stride + shift` lies inside of the input. */
function inside(shift: number, size: number, outSize: number, stride: number): [number, number] {
  const begin = Math.max(0, Math.ceil(-shift / stride));
  return [begin, Math.min(outSize, Math.floor((size - 1 - shift) / stride) + 1)];
}

function relu(x: Maps): Maps {
  // Not Math.max: what is no number stays none, to be seen.
  for (let index = 0; index < x.data.length; index++) if (x.data[index] < 0) x.data[index] = 0;
  return x;
}
