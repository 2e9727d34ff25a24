/** A page's device, in its worker: looks at a run, takes photos, takes part, classifies. */

import { Manifest } from "../bundle/manifest.js";
import { TapRequirement } from "../bundle/tap.js";
import { agreedConfig } from "../config/run-config.js";
import { FetchTransport } from "../connection/fetch-transport.js";
import { ServerClient, STALL_SECONDS } from "../connection/server-client.js";
import { range, toFloatNchw } from "../data/augment.js";
import { OWNER_KEY_BYTES, packed } from "../data/packing.js";
import { ownerKeyOf, readPrivateData, writePrivateData, type PrivateData } from "../data/private-data.js";
import { Device } from "../device/device.js";
import { asGuest, asMember, type Wire } from "../device/membership.js";
import { OwnData } from "../device/own-data.js";
import { preview } from "../device/preview.js";
import { sessionOptions, type OrtRuntime, type OrtSession } from "../engine/runtime.js";
import { ConfigError, DatasetError } from "../errors.js";
import { joined, randomBytes } from "../hashing.js";
import { checkModel } from "../onnx/judging.js";
import { keptCredential } from "../state/credential.js";
import { MODEL_NAME, StateKeeper } from "../state/device-state.js";
import { identityOf } from "../state/identity.js";
import { MemoryStore, writeText } from "../state/store.js";
import { FeatureNoise } from "../wire/feature-noise.js";
import { readJoinLink, type JoinLink } from "../wire/join-link.js";
import type { RunInfo } from "../wire/messages.js";
import { IndexedStore } from "./indexed-store.js";
import type { Guards, Request, ShownRun, SortedPhoto, Told } from "./messages.js";
import { Pausing } from "./pausing.js";

const PACKED = "packed.npz";
const LINK = "join.txt";
const RUN = "run.json";
const CONSENT = "consent.json";
const GUARDS = "guards.json";
const NO_GUARDS: Guards = { featureClip: 0, featureNoise: 0, requireTap: "", maxBits: 0 };
const PACK = { maps: new Map<string, string>(), fit: "crop", validationShare: 0.1 } as const;
// A tab may be closed at any moment.
const CHECKPOINT_SECONDS = 10;
const GUEST_PATIENCE_SECONDS = 15;

/** What a session runs on. */
export interface Machine {
  readonly ort: OrtRuntime;
  readonly numThreads: number;
}

/** One page's part in one run. */
export class Session {
  private readonly pausing = new Pausing();
  private store!: IndexedStore;
  private link: JoinLink | undefined;
  private info: RunInfo | undefined;
  private model: OrtSession | undefined;
  private run!: ShownRun;

  constructor(
    private readonly machine: Machine,
    private readonly tell: (told: Told) => void,
  ) {}

  /** Do what the page asks for, and tell what comes of it. */
  async handle(request: Request): Promise<void> {
    switch (request.kind) {
      case "open":
        return this.open(request.place, request.link);
      case "pack":
        return this.pack(request.photos, request.guards);
      case "go":
        return this.takePart();
      case "pause":
        return this.pausing.pause();
      case "resume":
        return this.pausing.resume();
      case "save":
        return this.pausing.saveSoon();
      case "classify":
        return this.classify(request.pixels);
      case "forget":
        await this.store.clear();
        return this.tell({ kind: "forgotten" });
    }
  }

  private async open(place: string, text: string | undefined): Promise<void> {
    this.store = await IndexedStore.open(place);
    const known = await this.text(RUN);
    const link = text ?? (await this.text(LINK));
    this.link = link === undefined ? undefined : readJoinLink(link);
    if (known !== undefined) {
      // Works without a network: what is asked of the server comes with the next step.
      this.run = JSON.parse(known) as ShownRun;
    } else {
      if (!this.link) throw new ConfigError("there is no link into a run here: open the one that you were given");
      this.run = shown(await this.runInfo());
      await writeText(this.store, RUN, JSON.stringify(this.run));
    }
    if (text !== undefined) await writeText(this.store, LINK, text, true);
    const names = new Set(await this.store.names());
    const kept = { hasPhotos: names.has(PACKED), hasConsent: names.has(CONSENT), hasModel: names.has(MODEL_NAME) };
    this.tell({ kind: "opened", run: this.run, kept });
  }

  /** Ask for the run: with the link, which spends nothing of it, or as the member that this device is. */
  private async runInfo(): Promise<RunInfo> {
    if (this.info) return this.info;
    const wire = this.wire(GUEST_PATIENCE_SECONDS);
    const isMember = (await keptCredential(this.store))?.is_enrolled;
    const server = isMember ? await this.member(wire) : await asGuest(this.needLink(), wire);
    try {
      this.info = await server.runInfo();
      return this.info;
    } finally {
      server.close();
    }
  }

  private needLink(): JoinLink {
    if (!this.link) throw new ConfigError("there is no link into a run here: open the one that you were given");
    return this.link;
  }

  private async pack(photos: readonly SortedPhoto[], wanted: Guards | undefined): Promise<void> {
    if (wanted) {
      guarding(wanted);
      await writeText(this.store, GUARDS, JSON.stringify(wanted));
    }
    const { noise, tap } = guarding(await this.guards());
    const info = await this.runInfo();
    const manifest = Manifest.from(info.manifest);
    tap.check(manifest, agreedConfig(info.config).codec);
    const before = await this.store.read(PACKED);
    if (photos.length || !before) {
      const earlier = before && readPrivateData(before, PACKED);
      const kept = before ? ownerKeyOf(before, PACKED) : new Uint8Array();
      const ownerKey = kept.length ? kept : randomBytes(OWNER_KEY_BYTES);
      const images = { pixels: joined(photos.map(({ pixels }) => pixels)), size: manifest.imageSize };
      const labels = BigInt64Array.from(photos, ({ label }) => BigInt(label));
      const data = packed({ images, labels }, manifest.classNames, PACK, ownerKey, earlier);
      await this.store.write(PACKED, writePrivateData(data, ownerKey));
    }
    const data = await this.data();
    const wire = this.wire(GUEST_PATIENCE_SECONDS);
    const isMember = (await keptCredential(this.store))?.is_enrolled;
    const server = isMember ? await this.member(wire) : await asGuest(this.needLink(), wire);
    try {
      await server.runInfo();
      const keeper = new StateKeeper(new MemoryStore());
      const bundle = await keeper.bundle(info.manifest, (name, entry) => server.artifact(name, entry));
      const { clientId } = await identityOf(this.store, "", "phone");
      const config = agreedConfig(info.config);
      this.tell({
        kind: "previewed",
        preview: await preview({ ...this.machine, bundle, data, config, clientId, noise }),
      });
    } finally {
      server.close();
    }
  }

  /** What the owner wants of the run. */
  private async guards(): Promise<Guards> {
    const text = await this.text(GUARDS);
    return text === undefined ? NO_GUARDS : (JSON.parse(text) as Guards);
  }

  private async data(): Promise<PrivateData> {
    const file = await this.store.read(PACKED);
    if (!file) throw new DatasetError("there are no photos yet: choose some first");
    return readPrivateData(file, PACKED);
  }

  private async member(wire: Wire): Promise<ServerClient> {
    const identity = await identityOf(this.store, "", "phone");
    const { tap } = guarding(await this.guards());
    const own = new OwnData(identity.clientId, () => this.data(), this.store, tap);
    const note = (line: string): void => this.tell({ kind: "note", line });
    // The link's address is where this page came from.
    const link = this.link;
    return asMember({ store: this.store, identity, wire, note, link, check: (info) => own.fit(info) });
  }

  private async takePart(): Promise<void> {
    await writeText(this.store, CONSENT, JSON.stringify({ at: new Date().toISOString() }));
    const identity = await identityOf(this.store, "", "phone");
    const server = await this.member(this.wire(Infinity));
    let done = 0;
    try {
      const result = await new Device({
        ...this.machine,
        ...identity,
        server,
        data: await this.data(),
        store: this.store,
        ...guarding(await this.guards()),
        checkpointSeconds: CHECKPOINT_SECONDS,
        pause: (save) => this.pausing.between(save, () => this.tell({ kind: "paused" })),
        listener: {
          phase: (phase, round, numImages, reason = "") => {
            done = 0;
            this.tell({ kind: "phase", phase, round, numImages, reason });
          },
          images: (num) => this.tell({ kind: "images", done: (done += num) }),
          note: (line) => this.tell({ kind: "note", line }),
        },
      }).run();
      // Its token has been used, and nobody needs it any more.
      await this.store.remove(LINK);
      this.tell({ kind: "finished", result });
    } finally {
      server.close();
    }
  }

  private async classify(pixels: Uint8Array): Promise<void> {
    const { imageSize, classNames } = this.run;
    const { ort, numThreads } = this.machine;
    if (!this.model) {
      const file = await this.store.read(MODEL_NAME);
      if (!file) throw new DatasetError("there is no combined model yet: it comes at the end of the run");
      checkModel(file, "the combined model");
      this.model = await ort.InferenceSession.create(file, sessionOptions(numThreads));
    }
    const image = toFloatNchw({ pixels, size: imageSize }, range(0, 1));
    const images = new ort.Tensor("float32", image, [1, 3, imageSize, imageSize]);
    const { logits } = await this.model.run({ images }, ["logits"]);
    const values = Array.from(logits.data as Float32Array).slice(0, classNames.length);
    const most = Math.max(...values);
    const powers = values.map((value) => Math.exp(value - most));
    const total = powers.reduce((sum, each) => sum + each, 0);
    this.tell({ kind: "classified", scores: powers.map((each) => each / total) });
  }

  private wire(patienceSeconds: number): Wire {
    const note = (line: string): void => this.tell({ kind: "note", line });
    return {
      pins: false,
      open: (url, token, { bundleSha256 }) =>
        new ServerClient({
          url,
          token,
          transport: new FetchTransport(STALL_SECONDS),
          patienceSeconds,
          bundleSha256,
          note,
          away: (isAway) => this.tell({ kind: "away", isAway }),
          sleep: untilOnline,
        }),
    };
  }

  private async text(name: string): Promise<string | undefined> {
    const data = await this.store.read(name);
    return data && new TextDecoder().decode(data);
  }
}

/** Make of what an owner wants what a device does. */
function guarding(guards: Guards): { readonly noise: FeatureNoise; readonly tap: TapRequirement } {
  return {
    noise: new FeatureNoise(guards.featureClip, guards.featureNoise),
    tap: new TapRequirement(guards.requireTap, guards.maxBits),
  };
}

/** Wait, but not any longer once a phone that had no network has one. */
async function untilOnline(seconds: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      globalThis.removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, 1000 * seconds);
    globalThis.addEventListener("online", done);
  });
}

function shown(info: RunInfo): ShownRun {
  const manifest = Manifest.from(info.manifest);
  if (!manifest.classNames.length) {
    throw new ConfigError(
      "the run does not name its classes, so photos cannot be sorted into them: whoever runs the server exports the bundle " +
        "again with --classes",
    );
  }
  const { rounds, num_clients: numDevices } = agreedConfig(info.config);
  const { classNames, imageSize } = manifest;
  return { runId: info.run_id, classNames, imageSize, rounds, numDevices };
}
