/** The built-in edge networks, up to their tap: `EDGE_LAYOUTS` of `gkt_core/networks.py`. */

import type { FeatureShape } from "../wire/codec.js";

/** How a built-in edge network is built up to its tap. */
export interface EdgeLayout {
  /** Whether half of the stem's filters mirror the other half. */
  readonly isTied: boolean;
  /** Of the first convolution, in pixels. */
  readonly stemStride: number;
  /** Bottlenecks of stride 2 between stem and tap; with any, a 1x1 convolution makes the tap. */
  readonly tapBlocks: number;
  /** Of the tap. */
  readonly channels: number;
}

export const TAP_CHANNELS = 16;
/** Channels of a Bottleneck's output over its planes. */
export const EXPANSION = 4;
/** Side of the stem's kernel, by its stride. */
export const STEM_KERNELS: Readonly<Record<number, number>> = { 1: 3, 2: 5, 4: 7 };

const PLAIN: EdgeLayout = { isTied: false, stemStride: 1, tapBlocks: 0, channels: TAP_CHANNELS };
const LAYOUTS = new Map<string, EdgeLayout>([
  ["resnet4", PLAIN],
  ["resnet6", PLAIN],
  ["resnet8", PLAIN],
  // What FedAvg's devices train, exported with the tap behind their stem.
  ["resnet56", PLAIN],
  ["resnet110", PLAIN],
  ["resnet8-tied", { ...PLAIN, isTied: true }],
  ["resnet8-stride2", { ...PLAIN, stemStride: 2 }],
  ["resnet8-stride4", { ...PLAIN, stemStride: 4 }],
  ["resnet8-16x16x16", { ...PLAIN, tapBlocks: 1 }],
  ["resnet8-16x8x8", { ...PLAIN, tapBlocks: 2 }],
  ["resnet8-8x8x8", { ...PLAIN, tapBlocks: 2, channels: 8 }],
]);

/** Say how a built-in network is built; undefined of a user's own. */
export function layoutOf(edgeNetwork: string): EdgeLayout | undefined {
  return LAYOUTS.get(edgeNetwork);
}

/** Give the shape of one sample's features; undefined of a user's own network. */
export function featureShapeOf(edgeNetwork: string, imageSize: number): FeatureShape | undefined {
  const layout = layoutOf(edgeNetwork);
  if (!layout) return undefined;
  const side = Math.floor(imageSize / (layout.stemStride << layout.tapBlocks));
  return [layout.channels, side, side];
}
