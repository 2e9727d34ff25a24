"""Options of ``gkt simulate``, and what they are by default for each algorithm."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from gkt_core.algorithm_names import ALGORITHMS, SIMULATION_DEFAULTS, algorithm_names, is_algorithm
from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.network_options import EDGE_OR_FULL, NetworkOptions
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.config.run_config import COMPILE, RunConfig
from gkt_core.data.augment import CROP_PADDING_WORDS
from gkt_core.data.options import IMAGES, DatasetOptions
from gkt_core.data.sent_images import SENT_AS
from gkt_core.data.split import SplitOptions
from gkt_core.errors import ConfigError
from gkt_core.tracking.options import TrackOptions
from gkt_core.wire.feature_noise import FeatureNoise

# Fields of the options without an option of their own: hyper-parameters, or a secret of a device.
LEFT_OUT = ("num_clients", "seed", "pretraining_share", "key")
_PRETRAINING_SHARE = 0.1
_FEDGKT, _ECOFED, _MACHINE = "Of FedGKT alone", "Of EcoFed alone", "This machine"
_CENTRALIZED = "Of centralised training alone"
_OWN = "Of an algorithm of your own"


class AlgorithmName(click.ParamType[str]):
    """An algorithm's name, or where one of the user's own is: ``file.py:Class``."""

    name = "algorithm"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Accept what can be an algorithm; it is imported when it is built."""
        if not is_algorithm(str(value)):
            names = ", ".join(algorithm_names())
            self.fail(f"{value!r} is not one of {names}, and no file.py:Class of your own.", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show the built-in names in the help text, which is the same wherever it is made."""
        return f"[{'|'.join(ALGORITHMS)}|FILE.py:CLASS]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions(CheckedOptions):
    """What is simulated, beside the hyper-parameters.

    Attributes:
        algorithm: What is run; one of your own as FILE.py:CLASS or by the name that a package registers.
        own_settings: A setting of an algorithm of your own, such as mu=0.1; may be repeated.
        images: Which images.
        how: How they are split over devices.
        split: Use this folder of gkt data split, so that several methods see the same split.
        networks: The two networks of FedGKT; the other algorithms train them as one.
        central_network: What --algorithm centralized trains.
        sent_as: Train on images as they arrive when devices send each as such a file, and count the bytes.
        init_edge: File (.safetensors) of the weights that devices begin from.
        init_server: File (.safetensors) of the weights that the server's network begins from.
        grouped: Whether all devices are trained at once, or one after another.
        feature_store: Where a round's features are kept.
        noise: What happens to features before they are sent.
        held_back: Share of the training images that is held back from every device.
        pretraining_epochs: Epochs over the images that were held back.
        replay_period: Rounds between two uploads.
        device: What is trained on.
        num_threads: CPU threads; 0 for all cores.
        compiled: Whether training of fedgkt's and ecofed's server, or centralized, is compiled: auto where
            that was measured to be faster, training is in bf16 and lasts a quarter of an hour or more. Where
            there is no C++ compiler, training goes on as it is.
        save_minutes: How often the run is saved within an epoch, beside after each one.
        tracking: Where rounds go beside the screen.
        num_models: Combined models that are written to OUT/models as ONNX files: of the first so many
            devices, or the one that all share.
        out: Output folder; an unfinished run goes on.
    """

    algorithm: str = option("fedgkt", click_type=AlgorithmName())
    images: DatasetOptions = field(default_factory=DatasetOptions)
    how: SplitOptions = field(default_factory=SplitOptions)
    split: Path | None = option(None, group=IMAGES)
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    central_network: str | None = option(
        None,
        flag="--central-model",
        click_type=EDGE_OR_FULL,
        shown_default="the large network",
        group=_CENTRALIZED,
    )
    sent_as: str | None = option(
        None,
        flag="--images-sent-as",
        choices=SENT_AS,
        shown_default="as they are, uncounted",
        group=_CENTRALIZED,
    )
    out: Path = option(click_type=OUTPUT_FOLDER)
    init_edge: Path | None = option(None, shown_default="random weights", group=_FEDGKT)
    init_server: Path | None = option(None, shown_default="random weights", group=_FEDGKT)
    grouped: bool | None = option(
        None, flag="--grouped/--one-by-one", shown_default="at once on a GPU", group=_FEDGKT
    )
    feature_store: str = option("memory", choices=("memory", "disk"), group=_FEDGKT)
    noise: FeatureNoise = field(default_factory=FeatureNoise)
    held_back: float | None = option(
        None,
        flag="--pretraining-share",
        low=0,
        below=1,
        shown_default=f"{_PRETRAINING_SHARE} for ecofed, else 0",
        group=_ECOFED,
    )
    pretraining_epochs: int = option(20, low=1, group=_ECOFED)
    replay_period: int = option(2, low=1, group=_ECOFED)
    own_settings: tuple[str, ...] = option((), flag="--setting", metavar="NAME=VALUE", group=_OWN)
    device: str = option("cpu", choices=("cpu", "cuda"), group=_MACHINE)
    num_threads: int = option(0, flag="--threads", low=0, group=_MACHINE)
    compiled: str = option("auto", flag="--compile", choices=COMPILE, group=_MACHINE)
    save_minutes: float = option(10.0, low=0, unit="minutes", group=_MACHINE)
    num_models: int = option(1, flag="--models", low=0)
    tracking: TrackOptions = field(default_factory=TrackOptions)

    def num_steps(self, config: RunConfig, num_examples: int) -> int:
        """How many steps of the large network a run is about to take, where there is one to compile."""
        if self.algorithm == "centralized":
            return config.rounds * config.local_epochs * (num_examples // config.batch_size)
        return config.rounds * config.server_epochs * (num_examples // config.server_batch_size)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of an algorithm of one's own: values are JSON, or text where they are none.

        Raises:
            ConfigError: One has no name or no value.
        """
        settings = {}
        for each in self.own_settings:
            name, equals, value = each.partition("=")
            if not (name.isidentifier() and equals):
                raise ConfigError(f"--setting is {each!r}, expected NAME=VALUE such as mu=0.1")
            try:
                settings[name] = json.loads(value)
            except ValueError:
                settings[name] = value
        return settings

    def split_options(self, given: dict[str, Any]) -> SplitOptions:
        """How the dataset is split, with those hyper-parameters that were given."""
        share = _PRETRAINING_SHARE if self.algorithm == "ecofed" else 0.0
        return replace(
            self.how,
            num_clients=given.get("num_clients", RunConfig().num_clients),
            seed=given.get("seed", 0),
            pretraining_share=share if self.held_back is None else self.held_back,
        )


def default_words() -> dict[str, str]:
    """What ``--help`` says of defaults that depend on algorithm or dataset."""
    plain = RunConfig().to_dict()
    words = {
        "num_clients": f"{plain['num_clients']}, or as many as --split holds",
        "horizontal_flip": "as suits the dataset",
        "crop_padding": CROP_PADDING_WORDS,
    }
    for name in {name for defaults in SIMULATION_DEFAULTS.values() for name in defaults}:
        algorithms: dict[Any, list[str]] = {}
        for algorithm, defaults in SIMULATION_DEFAULTS.items():
            algorithms.setdefault(defaults.get(name, plain[name]), []).append(algorithm)
        if len(algorithms) == 1:
            words[name] = str(next(iter(algorithms)))
        else:
            words[name] = "; ".join(f"{value} for {', '.join(of)}" for value, of in algorithms.items())
    return words
