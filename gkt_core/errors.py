"""Every error that gkt raises on purpose, and the exit code that each one ends a command with.

::

    GKTError                       1   something went wrong that has no better name
    +-- InputError                 2   what the user gave cannot be used; nothing was written
    |   +-- ConfigError                a hyper-parameter, option or run file
    |   +-- DatasetError               images or labels
    |   +-- PartitionError             a split that cannot be made
    |   +-- ArtifactError              an artifact bundle
    |   |   +-- UnsafeModelError           an ONNX file or a bundle that would do what nobody agreed to
    |   +-- BackupError                  a backup that is damaged, cut short or of another kind
    |   +-- TemplateError              a model template and the weights meant for it
    |   +-- AddressInUseError          a port that another process holds
    |   +-- MissingExtraError          an optional dependency is not installed
    |   +-- UnsupportedSystemError     what this operating system does not have
    |   +-- PackageConflictError       packages that cannot be installed together
    +-- ProtocolError              3   device and server do not understand each other
    |   +-- ProtocolVersionError       they speak different versions
    |   +-- MessageError               a message with missing, unknown or ill-typed fields
    |   +-- ShardError                 a shard that this run does not expect
    |   |   +-- ChecksumError              a body that changed on its way
    |   +-- CodecError                 features that cannot be encoded or decoded
    |   +-- RoundError                 a call that does not fit the state of the run
    |       +-- RoundClosedError           a round that went on without this device
    +-- ServerUnavailableError     4   the server did not answer, retries included
    |   +-- StorageUnavailableError        its database or blob store does not answer for now
    |       +-- NoRoomError                    its disk has no room for uploads for now
    |       +-- DamagedStorageError            its database is damaged: a person restores a backup
    +-- AuthenticationError        5   a secret is wrong, missing, spent or revoked
    |   +-- ForbiddenError             a secret that is right, of somebody who may not do this
    +-- VerificationError          6   exported artifacts differ from the PyTorch model
    +-- RunFailedError             7   a process of the run ended with an error
    +-- ResourceError              8   this machine has too little of something; what was saved is still there
    |   +-- DiskFullError              nothing more can be written
    |   +-- MemoryLimitError           more memory is needed than is allowed or there
    +-- AttentionError             9   nothing has failed, and a person should look

Messages say what was found, what was expected and what to do. Exit code 130 is Ctrl-C.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

EXIT_INTERRUPTED = 130
# Modules of Python that Windows lacks.
_OF_UNIX = ("fcntl", "grp", "pwd", "resource", "termios")
_OWN_PACKAGES = ("gkt_core", "edge_export", "edge_runtime", "server_app", "profiling")


class GKTError(Exception):
    """Base of every error that gkt raises on purpose.

    Attributes:
        exit_code: What a command that ends with this error returns to the shell.
        code: A stable name for programs, used in JSON error bodies.
    """

    exit_code = 1

    @property
    def code(self) -> str:
        """The class name, as it appears in JSON error bodies."""
        return type(self).__name__


class InputError(GKTError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A hyper-parameter, an option or a run file is wrong."""


class DatasetError(InputError):
    """Images or labels cannot be read, or do not fit together."""


class PartitionError(InputError):
    """The wanted split cannot be made from this data."""


class ArtifactError(InputError):
    """An artifact bundle is incomplete, changed, or made for something else."""


class UnsafeModelError(ArtifactError):
    """An ONNX file or a bundle would do what the device did not agree to."""


class BackupError(InputError):
    """A backup is damaged, cut short, of a later version, or none."""


class TemplateError(InputError):
    """A model template and the weights meant for it do not fit."""


class AddressInUseError(InputError):
    """Another process holds the port."""


class MissingExtraError(InputError):
    """An optional dependency is not installed."""

    @classmethod
    def for_module(cls, module: str, extra: str) -> MissingExtraError:
        """Name the missing module and the extra that brings it."""
        return cls(f"the module {module} is not installed: pip install 'gkt-edge[{extra}]'")


@contextlib.contextmanager
def needs(extra: str, package: str = "") -> Iterator[None]:
    """Import what an extra brings, or end with the command that installs it; also decorates a function.

    ::

        with needs("server"):
            from server_app import serving

    Args:
        extra: Of ``gkt-edge``, such as ``server`` or ``export,profile``.
        package: What to install, where its name is not the missing module's.

    Raises:
        MissingExtraError: Something of the extra is not installed.
        UnsupportedSystemError: It is, and needs what only Unix has.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").split(".")[0] in _OWN_PACKAGES:
            # A name of ours that is not there is a fault of ours.
            raise
        if error.name in _OF_UNIX:
            raise UnsupportedSystemError.for_module(error.name) from error
        raise MissingExtraError.for_module(package or error.name or str(error), extra) from error


class UnsupportedSystemError(InputError):
    """This operating system lacks something that the command is built on."""

    @classmethod
    def for_module(cls, module: str) -> UnsupportedSystemError:
        """Name the part of Python that is missing, and where it is there."""
        return cls(
            f"this part of gkt needs Python's module {module}, which {platform.system()} lacks: run it on "
            "Linux or macOS, on Windows in WSL or a container; devices, data and export do without it"
        )


class PackageConflictError(InputError):
    """Packages are installed together that overwrite each other's files."""


class ProtocolError(GKTError):
    """Device and server do not understand each other."""

    exit_code = 3


class ProtocolVersionError(ProtocolError):
    """Device and server speak different versions of the protocol."""


class MessageError(ProtocolError):
    """A message has missing, unknown or ill-typed fields."""


class ShardError(ProtocolError):
    """A shard is not what this run expects."""


class ChecksumError(ShardError):
    """A body is not what its hash says; sending it again helps."""


class CodecError(ProtocolError):
    """Features cannot be encoded, or encoded features cannot be decoded."""


class RoundError(ProtocolError):
    """A call does not fit the state that the run is in."""


class RoundClosedError(RoundError):
    """A round closed without this device, which takes part in the next one."""


class ServerUnavailableError(GKTError):
    """The server did not answer, retries included."""

    exit_code = 4


class StorageUnavailableError(ServerUnavailableError):
    """The server's database or blob store does not answer for now; asking again later helps."""


class NoRoomError(StorageUnavailableError):
    """The server's disk has no room for uploads for now; what frees space goes on."""


class DamagedStorageError(StorageUnavailableError):
    """The server's database is damaged; asking again helps once a person has restored a backup."""


class AuthenticationError(GKTError):
    """A secret is wrong, missing, spent or revoked."""

    exit_code = 5


class ForbiddenError(AuthenticationError):
    """A secret is right, and who has it may not do this."""


class VerificationError(GKTError):
    """Exported artifacts differ from the PyTorch model."""

    exit_code = 6


class RunFailedError(GKTError):
    """A process of the run ended with an error."""

    exit_code = 7


class ResourceError(GKTError):
    """This machine has too little of something; what was saved before is still there."""

    exit_code = 8


class DiskFullError(ResourceError):
    """Nothing more can be written."""


class MemoryLimitError(ResourceError):
    """More memory is needed than is allowed or there."""


class AttentionError(GKTError):
    """Nothing has failed, and a person should look."""

    exit_code = 9
