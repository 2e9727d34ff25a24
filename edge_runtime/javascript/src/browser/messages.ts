/** What a page and the worker that trains for it say to each other. */

import type { DeviceResult } from "../device/device.js";
import type { Phase } from "../device/listener.js";
import type { Preview } from "../device/preview.js";

/** A photo that somebody put into a class. */
export interface SortedPhoto {
  /** Number of its class. */
  readonly label: number;
  /** `[S, S, 3]`, RGB. */
  readonly pixels: Uint8Array;
}

/** What an owner wants of a run beyond what every device checks; zeros and no text for nothing. */
export interface Guards {
  /** Features are limited to -featureClip..featureClip. */
  readonly featureClip: number;
  /** Deviation of the Gaussian noise on them. */
  readonly featureNoise: number;
  /** Of which network the features have to be, or of which shape. */
  readonly requireTap: string;
  /** As how many bits each number of them may leave. */
  readonly maxBits: number;
}

/** What a page asks for. */
export type Request =
  /** Look at the run of a link, or at what is kept here. */
  | { readonly kind: "open"; readonly link: string | undefined; readonly place: string }
  /** Take these photos, and say what would leave. */
  | { readonly kind: "pack"; readonly photos: readonly SortedPhoto[]; readonly guards?: Guards | undefined }
  /** Take part: the owner has agreed. */
  | { readonly kind: "go" }
  | { readonly kind: "pause" }
  | { readonly kind: "resume" }
  /** Save as soon as a step has ended: the tab may be closed. */
  | { readonly kind: "save" }
  | { readonly kind: "classify"; readonly pixels: Uint8Array }
  /** Forget everything that is kept here of the run. */
  | { readonly kind: "forget" };

/** A run, as far as a page shows it. */
export interface ShownRun {
  readonly runId: string;
  readonly classNames: readonly string[];
  readonly imageSize: number;
  readonly rounds: number;
  readonly numDevices: number;
}

/** How far a device is that was here before. */
export interface Kept {
  readonly hasPhotos: boolean;
  readonly hasConsent: boolean;
  readonly hasModel: boolean;
}

/** What a worker tells. */
export type Told =
  | { readonly kind: "opened"; readonly run: ShownRun; readonly kept: Kept }
  | { readonly kind: "previewed"; readonly preview: Preview }
  | {
      readonly kind: "phase";
      readonly phase: Phase;
      readonly round: number;
      readonly numImages: number;
      readonly reason: string;
    }
  | { readonly kind: "images"; readonly done: number }
  | { readonly kind: "paused" }
  /** The server does not answer, and is asked again; or it does again. */
  | { readonly kind: "away"; readonly isAway: boolean }
  | { readonly kind: "note"; readonly line: string }
  | { readonly kind: "finished"; readonly result: DeviceResult }
  | { readonly kind: "classified"; readonly scores: readonly number[] }
  | { readonly kind: "forgotten" }
  /** Something went wrong: the kinds of an error of the device's, its own first, and what to do, in words. */
  | { readonly kind: "failed"; readonly kinds: readonly string[]; readonly message: string };
