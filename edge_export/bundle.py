"""An artifact bundle: everything that devices and server need, in one folder with a manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.utils.hooks import RemovableHandle

from edge_export.bounds import output_bounds
from edge_export.combined_template import combined_template
from edge_export.initial_network import initial_network
from edge_export.memory import estimate_memory
from edge_export.options import Depth, ExportOptions
from edge_export.ort.artifacts import write_ort_artifacts
from edge_export.ort.format import write_ort_format
from edge_export.ort.training_graph import INPUT_NAMES, OPSET, OUTPUT_NAMES
from edge_export.portable.artifacts import write_portable_artifacts
from edge_export.verification import verify_bundle
from gkt_core.bundle.bundle_files import describe_files
from gkt_core.bundle.manifest import (
    COMBINED_TEMPLATE,
    ENGINE_FILES,
    EVAL_MODEL,
    FORMAT_VERSION,
    NOMINAL_CHECKPOINT,
    ORT_TRAINING,
    PORTABLE,
    PREDICT,
    TRAIN_STEP,
    TRAINING_MODEL,
    BatchNormState,
    Manifest,
    load_bundle,
    write_manifest,
)
from gkt_core.bundle.memory import MemoryPlan
from gkt_core.bundle.onnx_runtime import (
    DISTRIBUTIONS,
    can_train,
    check_one_distribution,
    installed_versions,
)
from gkt_core.errors import ConfigError, MissingExtraError, UnsafeModelError
from gkt_core.files import new_folder
from gkt_core.networks import FULL_NETWORKS
from gkt_core.nn import CombinedNetwork, EdgeNetwork, build_server_network, feature_shape
from gkt_core.nn.building import example_images
from gkt_core.onnx_files.judging import check_model_file
from gkt_core.onnx_files.operators import OF_FILES, STANDARD
from gkt_core.version import __version__

_RUN_BY_DEVICES = (TRAIN_STEP, PREDICT, TRAINING_MODEL, EVAL_MODEL, COMBINED_TEMPLATE)
_PACKAGES = ("torch", "onnx", "onnxscript", *DISTRIBUTIONS, "numpy")


def export_bundle(
    options: ExportOptions,
    out: Path,
    *,
    verify: Depth = "full",
    say: Callable[[str], None] = lambda line: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write a bundle whole or not at all.

    Args:
        options: What to export.
        out: A folder that must not exist yet, or be empty.
        verify: How far each engine is first run against PyTorch in float64.
        say: Told what is done next.
        on_step: Called while verifying, with the number of steps that are done and of all.

    Returns:
        The manifest that was written.

    Raises:
        ConfigError: An option is wrong, or what is exported does not fit into the memory that it is for.
        InputError: ``out`` cannot become a new folder.
        MissingExtraError: The installed ONNX Runtime cannot write the files of an engine.
        PackageConflictError: Two distributions of it are installed.
        VerificationError: An engine is further from float64 than it may be; nothing was written.
    """
    _check_installed(options)
    edge = initial_network(options)
    server = build_server_network(options.completing_network, options.num_classes, seed=options.seed)
    if options.edge_network in FULL_NETWORKS:
        server = edge.head
    step: dict[str, Any] = {
        "num_classes": options.num_classes,
        "image_size": options.image_size,
        "temperature": options.temperature,
        "leakage_penalty": options.leakage_penalty,
    }
    with new_folder(out) as folder:
        written = [COMBINED_TEMPLATE]
        runtime_does: dict[str, Any] = {}
        layout: dict[str, Any] = {}
        if ORT_TRAINING in options.engines:
            say(f"tracing {options.edge_network} for ONNX Runtime's training build")
            runtime_does[ORT_TRAINING] = write_ort_artifacts(edge, options.optimizer, folder, **step)
            written += [*ENGINE_FILES[ORT_TRAINING], NOMINAL_CHECKPOINT]
        if PORTABLE in options.engines:
            say(f"writing the portable step of {options.edge_network}")
            step |= {"name": options.edge_network, "low_memory": options.low_memory}
            layout = dataclasses.asdict(write_portable_artifacts(edge, options.optimizer, folder, **step))
            written += ENGINE_FILES[PORTABLE]
        say("estimating memory")
        memory = _memory(folder, options, edge, server, say)
        say(f"tracing the template of the combined model, with {options.completing_network}")
        combined = CombinedNetwork(edge.extractor, server, edge.normalise)
        template, slots = combined_template(
            combined, image_size=options.image_size, class_names=options.class_names
        )
        (folder / COMBINED_TEMPLATE).write_bytes(template)
        for name in written:
            if name.endswith(".onnx"):
                _check_as_devices_do(folder / name)
        if options.ort_format:
            written += write_ort_format(folder, written)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            edge_network=options.edge_network,
            server_network=options.completing_network,
            num_classes=options.num_classes,
            image_size=options.image_size,
            features=list(feature_shape(edge, options.image_size)),
            pixel_mean=list(options.pixel_mean),
            pixel_std=list(options.pixel_std),
            class_names=list(options.class_names),
            temperature=float(options.temperature),
            leakage_penalty=float(options.leakage_penalty),
            optimizer=options.optimizer.name,
            optimizer_settings=options.optimizer.to_dict(),
            opset=OPSET,
            seed=options.seed,
            batch_norms=_batch_norms(edge, options.image_size),
            template_slots={name: dataclasses.asdict(slot) for name, slot in slots.items()},
            files=describe_files(folder, written),
            versions={"gkt-edge": __version__, **installed_versions(_PACKAGES)},
            engines=[engine for engine in ENGINE_FILES if engine in options.engines],
            runtime_does=runtime_does,
            onnx_versions={
                name: _onnx_version(folder / name) for name in sorted(written) if name.endswith(".onnx")
            },
            tensors={name: _tensors(folder / name) for name in sorted(written) if name in _RUN_BY_DEVICES},
            portable_state=layout,
            bounds=output_bounds(edge, example_images(4, options.image_size)),
            memory=memory,
            horizontal_flip=options.horizontal_flip,
            max_bits=options.max_bits,
        )
        write_manifest(folder, manifest)
        if verify != "none":
            say("verifying against PyTorch in float64")
            verification = verify_bundle(load_bundle(folder), edge, depth=verify, on_step=on_step)
            manifest = dataclasses.replace(manifest, verification=verification)
            write_manifest(folder, manifest)
    return manifest


def _check_as_devices_do(path: Path) -> None:
    try:
        check_model_file(
            path,
            OF_FILES.get(path.name, STANDARD),
            computes="features" if path.name in (PREDICT, EVAL_MODEL) else "",
        )
    except UnsafeModelError as error:
        raise ConfigError(
            f"devices would refuse this bundle: {path.name}: {error.__cause__ or error}: make the network "
            "of other layers"
        ) from error


def _memory(
    folder: Path,
    options: ExportOptions,
    edge: EdgeNetwork,
    server: torch.nn.Module,
    say: Callable[[str], None],
) -> MemoryPlan | None:
    """Estimate; None for a network of a user's own that cannot be followed without running it.

    Raises:
        ConfigError: Not even the smallest batch fits.
    """
    try:
        plan = estimate_memory(folder, options, edge, server)
    except Exception as error:
        # A module of a user's own may fail in any way where tensors have no values.
        say(f"memory is not estimated: {type(error).__name__}: {str(error)[:200]}")
        return None
    plan.check(options.image_size)
    return plan


def _check_installed(options: ExportOptions) -> None:
    check_one_distribution()
    if ORT_TRAINING in options.engines and not can_train():
        ((name, number),) = installed_versions().items() or [("onnxruntime", "")]
        raise MissingExtraError(
            f"the installed {name} {number} does not write what the engine ort-training needs: give --engine "
            "portable, or install 'gkt-edge[export]' in its place (Python 3.11 and 3.12, not Linux on ARM)"
        )


def _onnx_version(path: Path) -> list[int]:
    model = onnx.load(path)
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return [opset, model.ir_version]


def _tensors(path: Path) -> dict[str, Any]:
    """Inputs and outputs of a graph; of ONNX Runtime's graphs those that a caller gives and gets."""
    graph = onnx.load(path).graph
    is_ort = path.name in ENGINE_FILES[ORT_TRAINING]
    wanted = {*INPUT_NAMES, "objective", *OUTPUT_NAMES}

    def described(values: Any) -> list[dict[str, Any]]:
        entries = []
        for value in values:
            if value.name in wanted or not is_ort:
                kind = value.type.tensor_type
                dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
                shape = [side.dim_param or side.dim_value for side in kind.shape.dim]
                entries.append({"name": value.name, "dtype": dtype, "shape": shape})
        return entries

    return {"inputs": described(graph.input), "outputs": described(graph.output)}


def _batch_norms(edge: EdgeNetwork, image_size: int) -> list[BatchNormState]:
    """How many pixels each batch normalisation sees, by looking."""
    states: list[BatchNormState] = []

    def record(name: str, module: torch.nn.BatchNorm2d) -> RemovableHandle:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor], __: torch.Tensor) -> None:
            height, width = inputs[0].shape[2:]
            states.append(
                BatchNormState(f"{name}.running_var", height * width, float(module.momentum or 0.0))
            )

        return module.register_forward_hook(hook)

    norms = [(n, m) for n, m in edge.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    handles = [record(name, module) for name, module in norms]
    was_training = edge.training
    edge.eval()
    with torch.no_grad():
        edge(example_images(1, image_size))
    edge.train(was_training)
    for handle in handles:
        handle.remove()
    return states
