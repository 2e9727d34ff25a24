/** A device's data, and whether they fit a run: found out before a use of the join link is spent on them. */

import { Manifest } from "../bundle/manifest.js";
import type { TapRequirement } from "../bundle/tap.js";
import { agreedConfig } from "../config/run-config.js";
import type { PrivateData } from "../data/private-data.js";
import { ArtifactError, DatasetError } from "../errors.js";
import { printable } from "../printable.js";
import { placeKeptNamed } from "../state/credential.js";
import type { Store } from "../state/store.js";
import type { RunInfo } from "../wire/messages.js";

/**
 * Refuse data that the artifacts were not made for.
 *
 * @throws ArtifactError Another class count, or other classes.
 * @throws DatasetError Another image size, or no validation samples.
 */
export function checkData(data: PrivateData, manifest: Manifest, owner: string): void {
  const { classNames } = data;
  if (classNames.length && manifest.classNames.length && classNames.join("\0") !== manifest.classNames.join("\0")) {
    const isSame = [...classNames].sort().join("\0") === [...manifest.classNames].sort().join("\0");
    throw new ArtifactError(
      `${owner} has ${isSame ? "the same classes in another order" : "other classes"}: ${first(classNames)}; the artifact ` +
        `bundle has ${first(manifest.classNames)}: make the file of the device again with gkt data pack --for the bundle`,
    );
  }
  if (classNames.length !== manifest.numClasses) {
    throw new ArtifactError(
      `${owner} has ${classNames.length} classes, the artifact bundle was made for ${manifest.numClasses}: export it again ` +
        `with --num-classes ${classNames.length}`,
    );
  }
  const { size } = data.train.images;
  if (size !== manifest.imageSize) {
    throw new DatasetError(
      `${owner} has images of ${size} px, the artifact bundle was made for ${manifest.imageSize} px: split the data with ` +
        `--image-size ${manifest.imageSize}, or export again with --image-size ${size}`,
    );
  }
  if (!data.validation.labels.length) {
    throw new DatasetError(`${owner} holds no validation samples: split the data again with gkt data split`);
  }
}

function first(names: readonly string[]): string {
  const shown = names
    .slice(0, 20)
    .map((name) => printable(name.slice(0, 40)))
    .join(", ");
  return names.length > 20 ? `${shown} and ${names.length - 20} more` : shown;
}

/** Makes a device's data for a manifest, or gives those that are there. */
export type DataSource = (manifest: Manifest) => Promise<PrivateData>;

/** A device's data from wherever they are. */
export class OwnData {
  private known: PrivateData | undefined;

  /**
   * @param owner The device, for messages.
   * @param source What they are made of.
   * @param store Undefined for a guest.
   * @param tap What of features the owner agreed to.
   */
  constructor(
    private readonly owner: string,
    private readonly source: DataSource,
    private readonly store: Store | undefined,
    private readonly tap: TapRequirement,
  ) {}

  /**
   * Make the data for a run if they are not there yet, and see whether they are for it.
   *
   * @throws ArtifactError They are of other classes, or the bundle does not name its own.
   * @throws DatasetError They are of another size, or cannot be read.
   * @throws UnsafeModelError The run's features are others than the owner was told.
   */
  async fit(info: RunInfo): Promise<PrivateData> {
    const manifest = Manifest.from(info.manifest);
    return placeKeptNamed(this.store, async () => {
      this.tap.check(manifest, agreedConfig(info.config).codec);
      this.known ??= await this.source(manifest);
      checkData(this.known, manifest, this.owner);
      return this.known;
    });
  }
}
