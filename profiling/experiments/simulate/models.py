"""Combined models of a simulation as the ONNX files that devices of a served run would have."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from torch import nn

from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.bundle.bundle_files import sha256_of
from gkt_core.bundle.model_identity import COMBINED, ModelIdentity
from gkt_core.config.network_options import NetworkOptions
from gkt_core.data.private_data import SPLIT_NAME
from gkt_core.nn import CombinedNetwork, EdgeNetwork
from gkt_core.nn.averaging import deployed
from gkt_core.nn.building import feature_shape

FOLDER = "models"


def write_models(
    models: Mapping[str, nn.Module],
    result: Mapping[str, Any],
    federation: Federation,
    networks: NetworkOptions,
    split: Path,
    out: Path,
    num: int,
) -> list[Path]:
    """Write the first models of a finished run; what cannot be written is said, as the result is there.

    Args:
        models: By owner; those that are no combined networks are left out.
        result: Of the run.
        federation: What it was trained on.
        networks: Of the run.
        split: The folder of its data.
        out: Of the run; the files go to ``models`` in it, a name an owner.
        num: How many.

    Returns:
        The files.
    """
    combined = {name: each for name, each in models.items() if isinstance(each, CombinedNetwork)}
    if not num or not combined:
        return []
    if importlib.util.find_spec("onnx") is None:
        click.echo(
            "no ONNX model is written, as onnx is not installed: pip install 'gkt-edge[export]'", err=True
        )
        return []
    from edge_export.combined import save_combined  # noqa: PLC0415 - imports onnx, an extra

    (out / FOLDER).mkdir(exist_ok=True)
    written = []
    for name, network in itertools.islice(combined.items(), num):
        path = out / FOLDER / f"{name}.onnx"
        shape = feature_shape(_as_edge(network), federation.image_size)
        identity = ModelIdentity(
            COMBINED,
            networks.edge_network,
            networks.completing_network,
            federation.num_classes,
            list(federation.class_names),
            federation.image_size,
            list(shape),
            list(federation.pixel_mean),
            list(federation.pixel_std),
            f"simulated {result['config']['algorithm']}",
            result["rounds"],
            validation_accuracy=result["validation_accuracy"],
            test_accuracy=result["test_accuracies"][name],
            sources={"split": sha256_of(split / SPLIT_NAME)},
        )
        try:
            save_combined(
                # What is trained may have its average beside it, which is what answers.
                CombinedNetwork(network.extractor, deployed(network.server), network.normalise),
                path,
                image_size=federation.image_size,
                class_names=federation.class_names,
                identity=identity,
            )
        # The exporter raises whatever it likes for layers that it does not know.
        except Exception as error:
            click.echo(f"{path} is not written: {type(error).__name__}: {str(error)[:300]}", err=True)
        else:
            written.append(path)
    return written


def _as_edge(network: CombinedNetwork) -> EdgeNetwork:
    """Give the network whose features are those of a combined one."""
    return EdgeNetwork(network.extractor, nn.Identity(), network.normalise)
