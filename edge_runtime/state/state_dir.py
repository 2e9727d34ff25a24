"""What a device keeps between restarts: the bundle, its weights after each round, where it stands.

::

    lock                 held while a device runs
    device.json          name of the device, and the secret that shows that it is this one's
    packed.npz           the data, where --data is a folder of photos; packed.json says what became of them
    samples.npz          which samples the data held at the last start, and what the server calls them
    bundle/              downloaded artifacts, verified
    download.part        what has come of a file that is being downloaded; download.json says of which
    state.json           run, device, last trained round and how it went
    checkpoint-000003    weights and optimizer state after local training of round 3; some of rounds before,
                         should the server come back from a backup (past_rounds.py)
    checkpoint-000004-000120    the same in the middle of round 4, after 120 steps of it
    upload-000003.safetensors    weights that made the upload of round 3, and features of fixed samples, in a
                         run where not every round has an upload
    noise.json           clip, deviation, epsilon of the labels and secret key of the noise, if there is any
    model.onnx           the combined model, at the end
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge_runtime.state.past_rounds import PastRounds
from gkt_core.bundle.bundle_files import FileEntry, check_file
from gkt_core.bundle.manifest import MANIFEST_NAME, MOST_BUNDLE_BYTES, Bundle, Manifest, load_bundle
from gkt_core.errors import ArtifactError, ConfigError, InputError, MessageError, UnsafeModelError
from gkt_core.files import full_disk_named, lock_exclusively, write_atomically, writing_atomically
from gkt_core.rounds.client_round import LocalProgress
from gkt_core.wire.feature_noise import FeatureNoise, new_key
from gkt_core.wire.protocol import from_dict

MODEL_NAME = "model.onnx"
Save = Callable[[str, FileEntry, BinaryIO], None]
Arrays = dict[str, NDArray[np.float32]]
# Names in the file of an upload.
_WEIGHT, _FIXED, _SAMPLES = "weight/", "features", "samples_sha256"


@dataclass(frozen=True, slots=True)
class DeviceState:
    """Where a device stands in a run.

    Attributes:
        trained_round: Last round of local training; 0 before the first.
        loss: Mean training loss of that round.
        accuracy: Training accuracy of that round, 0..1.
        train_seconds: What its training took. All three are for the report, should the device restart
            before it could send one.
        engine: What trained, ``portable`` or ``ort_training``: their checkpoints differ. Empty at first.
        partial: How far a round has come, if it was interrupted.
        partial_round: Which round that is.
        partial_teacher: The round whose soft labels it trains with.
    """

    run_id: str
    client_id: str
    trained_round: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    train_seconds: float = 0.0
    engine: str = ""
    partial: LocalProgress | None = None
    partial_round: int = 0
    partial_teacher: int = 0


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """What made an upload, where not every round has one.

    Attributes:
        weights: Weights and running statistics, by name.
        features: Of a few fixed samples, if later rounds are compared with them.
        samples_sha256: Of the ids of the samples that it holds; empty where an earlier version kept it.
    """

    weights: Arrays
    features: NDArray[np.float32] | None = None
    samples_sha256: str = ""


class StateDir:
    """A device's folder; one process at a time.

    Raises:
        InputError: Another process runs on this folder, or it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._state_path = path, path / "state.json"
        self.past = PastRounds(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_exclusively(
                path / "lock", f"another gkt edge run uses {path}: give each device its own --state-dir"
            )
            for unfinished in path.rglob(".*.tmp"):
                # Of a process that was killed while writing; the lock says that there is no other.
                unfinished.unlink()
        except OSError as error:
            raise InputError(f"cannot use the state folder {path}: {error}") from error

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def state(self, run_id: str, client_id: str) -> DeviceState:
        """Read where this device stands in this run: at the beginning, if the folder is new.

        Raises:
            ArtifactError: The folder belongs to another run or device, or cannot be read.
        """
        try:
            state = from_dict(DeviceState, json.loads(self._state_path.read_text(encoding="utf-8")))
            if state.trained_round < 0:
                raise ValueError(f"trained_round is {state.trained_round}")
        except FileNotFoundError:
            return DeviceState(run_id, client_id)
        except (OSError, ValueError, MessageError) as error:
            raise ArtifactError(f"{self._state_path} cannot be read: {error}: remove {self.path}") from error
        if (state.run_id, state.client_id) != (run_id, client_id):
            raise ArtifactError(
                f"{self.path} belongs to {state.client_id} in {state.run_id}, "
                f"not to {client_id} in {run_id}: choose another --state-dir"
            )
        return state

    def save(self, state: DeviceState, save_checkpoint: Callable[[Path], None]) -> None:
        """Remember weights, then that they are there, then drop older ones.

        Raises:
            DiskFullError: They cannot be written; the folder is as it was.
        """
        kept = self.checkpoint_path(state)
        with full_disk_named(kept):
            save_checkpoint(kept)
            self._write(state)
        self.past.tidy(kept)

    def back_to(self, state: DeviceState, last_round: int, answered_round: int) -> tuple[DeviceState, bool]:
        """Go back to what stood after a round, as the server has: a backup of it was restored.

        Args:
            state: Where this device stands, after a later round.
            last_round: The last round that the device may have behind it.
            answered_round: The last round whose soft labels the server has for it; 0 for none.

        Returns:
            The state, and whether it is the very one of then; otherwise the weights are those of now.

        Raises:
            DiskFullError: It cannot be written.
        """
        kept = self.past.last_round(last_round)
        is_exact = kept is not None and kept >= answered_round
        if not is_exact and not answered_round:
            # The server never had anything of it that counts: it begins, as it did then.
            kept, is_exact = 0, True
        if not is_exact:
            kept = last_round
            with full_disk_named(self.path):
                self.past.rename(self.checkpoint_path(state), kept)
        back = DeviceState(state.run_id, state.client_id, kept or 0, engine=state.engine)
        with full_disk_named(self._state_path):
            self._write(back)
        self.past.drop_after(back.trained_round)
        return back, is_exact

    def forget_place(self, state: DeviceState) -> DeviceState:
        """Forget how far a round has come that was under way; the weights stay as they are.

        Raises:
            DiskFullError: It cannot be written.
        """
        if state.partial is None:
            return state
        # No round's: the place counts only for the round and the teacher that it was begun with.
        state = replace(state, partial_teacher=-1)
        with full_disk_named(self._state_path):
            self._write(state)
        return state

    def _write(self, state: DeviceState) -> None:
        write_atomically(self._state_path, json.dumps(asdict(state)).encode(), mode=0o600)

    def keep_upload(self, round_num: int, kept: KeptUpload) -> None:
        """Remember what makes the upload of a round, before any of it is sent."""
        tensors: dict[str, NDArray[Any]] = {_WEIGHT + name: value for name, value in kept.weights.items()}
        if kept.features is not None:
            tensors[_FIXED] = kept.features
        if kept.samples_sha256:
            tensors[_SAMPLES] = np.frombuffer(bytes.fromhex(kept.samples_sha256), np.uint8)
        path = self._upload_path(round_num)
        with full_disk_named(path):
            data = save({name: np.ascontiguousarray(each) for name, each in tensors.items()})
            write_atomically(path, data, mode=0o600)

    def upload(self, round_num: int) -> KeptUpload:
        """Give what :meth:`keep_upload` was given for a round.

        Raises:
            ArtifactError: They are not there, or cannot be read.
        """
        path = self._upload_path(round_num)
        try:
            tensors = load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{path}, which made the upload of round {round_num}, cannot be read: {error}: the model "
                "needs its extractor; bring the file back, or begin again with another --state-dir"
            ) from error
        weights = {
            name.removeprefix(_WEIGHT): each for name, each in tensors.items() if name.startswith(_WEIGHT)
        }
        samples = tensors[_SAMPLES].tobytes().hex() if _SAMPLES in tensors else ""
        return KeptUpload(weights, tensors.get(_FIXED), samples)

    def drop_uploads(self, before: int) -> None:
        """Forget what made the uploads before that of a round, and no round needs that is kept."""
        self.past.drop_uploads(before)

    def has_upload(self, round_num: int) -> bool:
        """Whether what made the upload of a round is kept."""
        return self._upload_path(round_num).exists()

    def _upload_path(self, round_num: int) -> Path:
        return self.path / f"upload-{round_num:06d}.safetensors"

    def checkpoint_path(self, state: DeviceState) -> Path:
        """Name the file with the weights after local training of a round, or in the middle of the next."""
        if state.partial is not None:
            return self.path / f"checkpoint-{state.partial_round:06d}-{state.partial.num_steps:06d}"
        return self.path / f"checkpoint-{state.trained_round:06d}"

    def feature_noise(self, wanted: FeatureNoise, state: DeviceState) -> FeatureNoise:
        """Give the noise of this device, with the key that it keeps from its first start on.

        A device that forgot the option at a restart would send bare features, so it is asked again.

        Args:
            wanted: As the options say, without a key.
            state: Where this device stands.

        Raises:
            ConfigError: This device began with another noise.
            ArtifactError: The file with the key cannot be read.
        """
        path = self.path / "noise.json"
        begun = FeatureNoise()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            begun = FeatureNoise(
                values["clip"],
                values["noise"],
                bytes.fromhex(values["key"]),
                # Files of earlier versions have none.
                values.get("label_privacy", 0.0),
            )
        except FileNotFoundError:
            if wanted.needs_key and state.trained_round == 0:
                begun = replace(wanted, key=new_key())
                values = {"clip": begun.clip, "noise": begun.noise, "key": begun.key.hex()}
                values |= {"label_privacy": begun.label_privacy}
                write_atomically(path, json.dumps(values).encode(), mode=0o600)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}: remove {self.path}") from error
        if replace(begun, key=b"") != replace(wanted, key=b""):
            raise ConfigError(
                f"this device began with {begun.as_options()}, now it is {wanted.as_options()}: "
                "give the same ones, or another --state-dir"
            )
        return begun

    def bundle(
        self, manifest_values: dict[str, Any], save: Save, engine: str, *, most_bytes: int = MOST_BUNDLE_BYTES
    ) -> Bundle:
        """Open the bundle of the run, downloading what is missing or differs.

        Args:
            manifest_values: The manifest, as the server gave it.
            save: Fetches one file: its name, what it is to be, and where to write it.
            engine: Whose files are wanted.
            most_bytes: What these files may have together.

        Raises:
            ArtifactError: The manifest is not valid, or a downloaded file is not what it names.
            UnsafeModelError: It is another bundle than this device began with, or far too large.
        """
        manifest = Manifest.from_dict(manifest_values)
        folder = self.path / "bundle"
        self._check_begun(folder / MANIFEST_NAME, manifest)
        names = manifest.engine_files(engine)
        num_bytes = sum(manifest.file(name).num_bytes for name in names)
        if num_bytes > most_bytes:
            raise UnsafeModelError(
                f"the server's bundle has {num_bytes:,} bytes for {engine}, this device takes "
                f"{most_bytes:,}: raise "
                "--memory-limit-mb, or ask whoever runs the server for a smaller network"
            )
        for name in names:
            try:
                check_file(folder / name, manifest.file(name))
            except ArtifactError:
                with writing_atomically(folder / name) as stream:
                    save(name, manifest.file(name), stream)
                check_file(folder / name, manifest.file(name))
        text = json.dumps(manifest_values, indent=2, sort_keys=True)
        write_atomically(folder / MANIFEST_NAME, text.encode())
        return load_bundle(folder, names)

    def _check_begun(self, path: Path, manifest: Manifest) -> None:
        """Refuse another bundle once this device has begun a run with one: a run never changes its own."""
        if not self._state_path.exists() or not path.exists():
            return
        try:
            begun = Manifest.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ArtifactError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}: choose another --state-dir") from error
        if begun != manifest:
            raise UnsafeModelError(
                "the server gives another bundle than the one that this device began the run with: "
                "nothing of it "
                "was taken; ask whoever runs the server, somebody between may have changed it"
            )
