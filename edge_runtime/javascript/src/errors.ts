/**
 * Every error that a device raises on purpose, with the names and exit codes of `gkt_core/errors.py`.
 *
 * Messages say what was found, what was expected and what to do.
 */

/** Base of all of them. */
export class GKTError extends Error {
  override name = "GKTError";
  /** What a command that ends with this error returns to the shell. */
  readonly exitCode: number = 1;
}

/** What the user gave cannot be used. */
export class InputError extends GKTError {
  override name = "InputError";
  override readonly exitCode: number = 2;
}
/** An option or a setting is wrong. */
export class ConfigError extends InputError {
  override name = "ConfigError";
}
/** Images or labels cannot be read, or do not fit together. */
export class DatasetError extends InputError {
  override name = "DatasetError";
}
/** An artifact bundle is incomplete, changed, or made for something else. */
export class ArtifactError extends InputError {
  override name = "ArtifactError";
}
/** An ONNX file or a bundle would do what the device did not agree to. */
export class UnsafeModelError extends ArtifactError {
  override name = "UnsafeModelError";
}
/** A model template and the weights meant for it do not fit. */
export class TemplateError extends InputError {
  override name = "TemplateError";
}
/** An optional package is not installed. */
export class MissingExtraError extends InputError {
  override name = "MissingExtraError";
}

/** Device and server do not understand each other. */
export class ProtocolError extends GKTError {
  override name = "ProtocolError";
  override readonly exitCode: number = 3;
}
/** They speak different versions of the protocol. */
export class ProtocolVersionError extends ProtocolError {
  override name = "ProtocolVersionError";
}
/** A message has missing, unknown or ill-typed fields. */
export class MessageError extends ProtocolError {
  override name = "MessageError";
}
/** A shard is not what this run expects. */
export class ShardError extends ProtocolError {
  override name = "ShardError";
}
/** A body is not what its hash says; sending it again helps. */
export class ChecksumError extends ShardError {
  override name = "ChecksumError";
}
/** Features cannot be encoded, or encoded features cannot be decoded. */
export class CodecError extends ProtocolError {
  override name = "CodecError";
}
/** A call does not fit the state that the run is in. */
export class RoundError extends ProtocolError {
  override name = "RoundError";
}
/** A round closed without this device, which takes part in the next one. */
export class RoundClosedError extends RoundError {
  override name = "RoundClosedError";
}

/** The server did not answer, retries included. */
export class ServerUnavailableError extends GKTError {
  override name = "ServerUnavailableError";
  override readonly exitCode: number = 4;
}
/** The server's storage does not answer for now; asking again later helps. */
export class StorageUnavailableError extends ServerUnavailableError {
  override name = "StorageUnavailableError";
}
/** The server's disk has no room for uploads for now. */
export class NoRoomError extends StorageUnavailableError {
  override name = "NoRoomError";
}
/** The server's database is damaged; asking again helps once a person has restored a backup. */
export class DamagedStorageError extends StorageUnavailableError {
  override name = "DamagedStorageError";
}

/** A secret is wrong, missing, spent or revoked. */
export class AuthenticationError extends GKTError {
  override name = "AuthenticationError";
  override readonly exitCode: number = 5;
}
/** A secret is right, and who has it may not do this. */
export class ForbiddenError extends AuthenticationError {
  override name = "ForbiddenError";
}
/** The run ended with an error. */
export class RunFailedError extends GKTError {
  override name = "RunFailedError";
  override readonly exitCode: number = 7;
}
/** This machine has too little of something; what was saved before is still there. */
export class ResourceError extends GKTError {
  override name = "ResourceError";
  override readonly exitCode: number = 8;
}
/** Nothing more can be written. */
export class DiskFullError extends ResourceError {
  override name = "DiskFullError";
}
/** More memory is needed than is there. */
export class MemoryLimitError extends ResourceError {
  override name = "MemoryLimitError";
}

const ALL = [
  GKTError,
  InputError,
  ConfigError,
  DatasetError,
  ArtifactError,
  UnsafeModelError,
  TemplateError,
  MissingExtraError,
  ProtocolError,
  ProtocolVersionError,
  MessageError,
  ShardError,
  ChecksumError,
  CodecError,
  RoundError,
  RoundClosedError,
  ServerUnavailableError,
  StorageUnavailableError,
  NoRoomError,
  DamagedStorageError,
  AuthenticationError,
  ForbiddenError,
  RunFailedError,
  ResourceError,
  DiskFullError,
  MemoryLimitError,
];
const BY_NAME = new Map(ALL.map((each) => [new each().name, each]));

/** Find the class of an error that a server names; undefined for a name that is none. */
export function errorClass(name: string): (new (message: string) => GKTError) | undefined {
  return BY_NAME.get(name);
}

/** Give the names of an error's kinds, its own first, then those that it is one of. */
export function kindsOf(error: GKTError): string[] {
  const wider = ALL.filter((each) => error instanceof each).map((each) => new each().name);
  return [...new Set([error.name, ...wider.reverse()])];
}

/** Every name with its exit code, to compare with Python's. */
export function exitCodes(): Record<string, number> {
  return Object.fromEntries(ALL.map((each) => [new each().name, new each().exitCode]));
}
