/**
 * A device of Group Knowledge Transfer in JavaScript: everything but files, sockets and the reading of pictures.
 *
 * `gkt-edge/node` adds those for Node; a page brings its own {@link Store}, {@link Transport} and ONNX Runtime.
 */

export { Manifest, manifestSha256 } from "./bundle/manifest.js";
export type { Bundle } from "./bundle/bundle.js";
export { describedTap, TapRequirement } from "./bundle/tap.js";
export { agreedConfig, type RunConfig } from "./config/run-config.js";
export { ServerClient, type Compress, type ServerClientOptions } from "./connection/server-client.js";
export { FetchTransport } from "./connection/fetch-transport.js";
export { TransportError, type Request, type Response, type Transport, type Trust } from "./connection/transport.js";
export { augmentedView, toFloatNchw, type Images } from "./data/augment.js";
export { labelOf, OWNER_KEY_BYTES, packed, type Labelled, type PackOptions } from "./data/packing.js";
export { ownerKeyOf, readPrivateData, writePrivateData, type PrivateData, type Samples } from "./data/private-data.js";
export { fitted, FITS, type Fit, type Picture } from "./data/resize.js";
export { Device, type DeviceOptions, type DeviceResult } from "./device/device.js";
export { dryRun, type DryRun } from "./device/dry-run.js";
export { tryModel } from "./device/evaluation.js";
export type { Listener, Phase } from "./device/listener.js";
export { asGuest, asMember, type Wire } from "./device/membership.js";
export { checkData, OwnData, type DataSource } from "./device/own-data.js";
export type { Engine } from "./engine/engine.js";
export { PortableEngine } from "./engine/portable.js";
export type { OrtRuntime } from "./engine/runtime.js";
export * from "./errors.js";
export { randomBytes, sha256Hex } from "./hashing.js";
export { printable } from "./printable.js";
export { StateKeeper } from "./state/device-state.js";
export { identityOf, type Identity } from "./state/identity.js";
export { MemoryStore, type Store } from "./state/store.js";
export { GuardedEngine } from "./trust/features.js";
export { decode, encode } from "./wire/codec.js";
export { FeatureNoise } from "./wire/feature-noise.js";
export { isJoinLink, readJoinLink, type JoinLink } from "./wire/join-link.js";
export { asClientId, type RunInfo, type Task } from "./wire/messages.js";
