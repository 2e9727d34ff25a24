"""Look at bundles: whether they are whole, and what a training step of theirs takes of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gkt_core.bundle.machine_memory import free_bytes
from gkt_core.bundle.manifest import (
    ENGINE_FILES,
    MANIFEST_NAME,
    ORT_TRAINING,
    PORTABLE,
    Bundle,
    Manifest,
    load_bundle,
)
from gkt_core.bundle.memory import LEAST_BATCH, TRAINER, megabytes
from gkt_core.config.run_config import RunConfig
from gkt_core.doctor.findings import Finding, fine, skipped, wrong
from gkt_core.doctor.options import DoctorOptions

# By who needs it, the option that makes a batch smaller.
_BATCH_OPTIONS = {TRAINER: "--server-batch-size"}


def opened_bundles(options: DoctorOptions) -> Iterator[Bundle]:
    """Open the bundles of the options, each file checked against the manifest; a device's are some of them.

    Raises:
        ArtifactError: There is none, or a file is missing, cut short or changed.
    """
    for place in options.bundles:
        if place in (options.artifacts, *_own(options)):
            yield load_bundle(place)
        elif place.is_dir():
            # Of its engine alone; before a device has joined there is none.
            manifest = load_bundle(place, ()).manifest
            names = [name for name in manifest.files if (place / name).exists()]
            complete = [engine for engine in manifest.engines if set(ENGINE_FILES[engine]) <= set(names)]
            yield load_bundle(place, names if complete else manifest.engine_files(manifest.engines[0]))


def _own(options: DoctorOptions) -> tuple[Path, ...]:
    """The bundle of a run's folder, once that holds a run."""
    folder = options.data_dir
    is_run = folder is not None and folder.is_dir() and any(folder.iterdir())
    return (folder / "artifacts",) if folder is not None and is_run else ()


def bundle(options: DoctorOptions) -> Iterator[Finding]:
    """Look whether each file of a bundle is the one of its manifest."""
    for opened in opened_bundles(options):
        manifest = opened.manifest
        yield fine(
            f"{opened.path} is whole: {manifest.edge_network} and {manifest.server_network}, "
            f"{manifest.num_classes} classes, {manifest.image_size} px, for "
            f"{' and '.join(engine.replace('_', '-') for engine in manifest.engines)}"
        )


def memory(options: DoctorOptions) -> Iterator[Finding]:
    """Compare what a step takes by the bundle's estimate, with usual batches, with what is free."""
    for opened in opened_bundles(options):
        if opened.path in _own(options):
            # Its run has batches of its own.
            continue
        # Whoever has a bundle of gkt export may be either; a device's is a device's.
        is_export = opened.path == options.artifacts
        processes = [device_engine(opened.manifest), *([TRAINER] if is_export else [])]
        yield from judged_memory(opened.manifest, usual_config(opened.manifest), processes)


def device_engine(manifest: Manifest) -> str:
    """Name the engine that a device takes where it can."""
    return PORTABLE if PORTABLE in manifest.engines else ORT_TRAINING


def usual_config(manifest: Manifest) -> RunConfig:
    """Give the settings of a run that is told nothing, with the batches that the bundle's limits hold."""
    config = RunConfig()
    if manifest.memory is None:
        return config
    return RunConfig.from_dict(config.to_dict() | manifest.memory.usual_batches(config.shard_samples))


def judged_memory(
    manifest: Manifest, config: RunConfig, processes: Iterable[str], free: int | None = None
) -> Iterator[Finding]:
    """Compare estimates with free memory.

    Args:
        manifest: Of the bundle.
        config: Of the run.
        processes: Engines of a device, or the trainer, all of them on this machine.
        free: Bytes that are free; by default what this machine has.
    """
    free = free_bytes() if free is None else free
    if manifest.memory is None:
        yield skipped(f"{MANIFEST_NAME} tells no memory: the network could not be followed, or it is old")
        return
    for process in processes:
        need = manifest.memory.needs.get(process)
        if need is None:
            continue
        is_trainer = process == TRAINER
        batch = config.server_batch_size if is_trainer else config.batch_size
        samples = 1 if is_trainer else config.shard_samples
        needed, fits = need.of(batch, samples), need.most_images(free, samples)
        who = "the trainer" if is_trainer else f"a device ({process.replace('_', '-')})"
        text = f"{who} takes {megabytes(needed)} MB by estimate with batches of {batch}"
        text += f", {megabytes(free)} are free"
        flag = _BATCH_OPTIONS.get(process, "--batch-size")
        smaller = (
            f"begin the run with gkt serve {flag} {fits}"
            if fits >= LEAST_BATCH
            else "export with a strided stem (gkt export --model resnet8-stride4) or for smaller images"
        )
        yield fine(text) if needed <= free else wrong(text, f"end other programs, or {smaller}")
