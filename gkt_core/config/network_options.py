"""Command-line options that several commands share: the dataset and its split, the networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gkt_core.data.partition import SCHEMES
from gkt_core.networks import FULL_NETWORKS, edge_network_names, load_network_module, server_network_names

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_DATASET_OPTIONS = (
    click.option(
        "--dataset",
        default="digits",
        show_default=True,
        help="digits (scikit-learn's, scaled up), cifar10 or cifar100 (downloaded), PATH.npz with x_train, "
        "y_train, x_test, y_test (images uint8 NHWC), or a folder with one folder of images a class.",
    ),
    click.option("--partition", type=click.Choice(SCHEMES), default="iid", show_default=True),
    click.option("--dirichlet-alpha", default=0.5, show_default=True, help="Small means skewed classes."),
    click.option(
        "--validation-share",
        default=0.1,
        show_default=True,
        help="Share of each device's samples that is never trained on.",
    ),
    click.option(
        "--image-size",
        type=int,
        help="Scale images to this many pixels, a multiple of 4; by default 16 for digits, 32 for folders, "
        "else as stored.",
    ),
    click.option("--limit", type=int, help="Use only this many training images, validation included."),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path),
        default=Path("data"),
        show_default=True,
        help="Where downloads are kept.",
    ),
)


class NetworkName(click.ParamType[str]):
    """A network's name, looked up when it is used: ``--networks`` may have added some."""

    name = "network"

    def __init__(self, names: Callable[[], tuple[str, ...]]) -> None:
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Accept built-in and registered names."""
        if value not in self._names():
            self.fail(f"{value!r} is not one of {', '.join(self._names())}.", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """For the help text."""
        return f"[{'|'.join(self._names())}]"


def _load_networks(ctx: click.Context, param: click.Parameter, sources: tuple[str, ...]) -> None:
    for source in sources:
        load_network_module(source)


def edge_network_option(names: Callable[[], tuple[str, ...]]) -> Callable[[FunctionT], FunctionT]:
    """The option ``--model``, which arrives as ``edge_network``."""
    return click.option(
        "--model",
        "edge_network",
        type=NetworkName(names),
        default="resnet8",
        show_default=True,
        help="What a device trains.",
    )


_NETWORK_OPTIONS = (
    click.option(
        "--networks",
        multiple=True,
        is_eager=True,
        expose_value=False,
        callback=_load_networks,
        metavar="FILE.py",
        help="A module that registers networks of your own, which --model and --server-model then take.",
    ),
    edge_network_option(edge_network_names),
    click.option(
        "--server-model",
        "server_network",
        type=NetworkName(server_network_names),
        default="resnet55",
        show_default=True,
        help="What the server trains on features; with an extractor it is ResNet-56 or ResNet-110.",
    ),
)


def dataset_options(function: FunctionT) -> FunctionT:
    """Add the dataset's options.

    They arrive as ``dataset``, ``partition``, ``dirichlet_alpha``, ``validation_share``, ``image_size``,
    ``limit`` and ``data_root``.
    """
    for option in reversed(_DATASET_OPTIONS):
        function = option(function)
    return function


def network_options(function: FunctionT) -> FunctionT:
    """Add the networks' options, which arrive as ``edge_network`` and ``server_network``."""
    for option in reversed(_NETWORK_OPTIONS):
        function = option(function)
    return function


def network_options_with_full(function: FunctionT) -> FunctionT:
    """Add the networks' options; ``--model`` takes ResNet-56 and ResNet-110 too."""
    names, _, servers = _NETWORK_OPTIONS
    for option in (servers, edge_network_option(lambda: edge_network_names() + FULL_NETWORKS), names):
        function = option(function)
    return function
