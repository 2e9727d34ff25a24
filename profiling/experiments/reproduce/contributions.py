"""What each part of FedGKT contributes on CIFAR-10: the method, bounds on it, and what stands beside it."""

from __future__ import annotations

from dataclasses import replace

from profiling.experiments.reproduce.cells import NOT_AVAILABLE, Cell, Experiment, RunSpec
from profiling.experiments.reproduce.paper import TABLE1
from profiling.experiments.reproduce.scales import Scale

# Adam moves a weight by about its learning rate in a step: with this one weights stay what was drawn, the
# same on all devices, while batch norm takes the statistics of each device's images.
_UNTRAINED = {"edge-lr": 1e-12}
_ONE_UPLOAD = {"uploads": "rounds=1"}

_GKT = RunSpec("fedgkt", "cifar10", edge_network="resnet8-tied")
_ONCE = replace(_GKT, variant="one-upload", settings=tuple(_ONE_UPLOAD.items()))
_RANDOM = replace(
    _GKT, variant="one-upload-random-extractor", settings=tuple((_ONE_UPLOAD | _UNTRAINED).items())
)
_CENTRAL = RunSpec("centralized", "cifar10")
_FEDAVG, _8_BITS = RunSpec("fedavg", "cifar10"), (("codec", "uint8"),)
_SMALL_CENTRAL = replace(_CENTRAL, central_network="resnet8")
# What a sceptic would send instead of features.
_SENT_AS = {
    "jpeg75": "images sent as JPEG, quality 75",
    "jpeg95": "images sent as JPEG, quality 95",
    "png": "images sent as PNG",
}


def _alone(scale: Scale) -> RunSpec:
    """As many images as a device has, on one device."""
    share = (("limit", scale.num_images // scale.num_clients),)
    return replace(_SMALL_CENTRAL, num_clients=1, variant="one-device", settings=share)


def _sent_as(kind: str) -> RunSpec:
    """Central training on images that devices send as files."""
    return replace(_CENTRAL, variant=kind, settings=(("images-sent-as", kind),))


def cifar10(scale: Scale) -> Experiment:
    """Give the rows; the first of them are what a full-size run is wanted of."""
    paper = {
        method: TABLE1[method, "resnet56", "cifar10", "iid"] for method in ("fedgkt", "fedavg", "centralized")
    }
    rows: list[tuple[str, RunSpec, float | str]] = [
        ("A. FedGKT, an upload in every round", _GKT, paper["fedgkt"]),
        ("B. one upload: central training on fixed features", _ONCE, NOT_AVAILABLE),
        ("C. B with one untrained random extractor", _RANDOM, NOT_AVAILABLE),
        ("E. central ResNet-56", _CENTRAL, paper["centralized"]),
        ("F. central ResNet-8", _SMALL_CENTRAL, TABLE1["centralized", "resnet8", "cifar10", "iid"]),
        ("F. ResNet-8 alone on a device", _alone(scale), NOT_AVAILABLE),
        ("D. A without distillation", replace(_GKT, direction="none"), "-/diverge"),
        ("D. A both ways", replace(_GKT, direction="both"), 90.53),
        ("G. FedAvg, ResNet-56", _FEDAVG, paper["fedavg"]),
        ("G. FedAvg, ResNet-56, 8 bits", replace(_FEDAVG, variant="uint8", settings=_8_BITS), NOT_AVAILABLE),
        (
            "H. A, non-IID",
            replace(_GKT, partition="dirichlet"),
            TABLE1["fedgkt", "resnet56", "cifar10", "dirichlet"],
        ),
        ("H. C, non-IID", replace(_RANDOM, partition="dirichlet"), NOT_AVAILABLE),
        *((f"I. E on {words}", _sent_as(kind), NOT_AVAILABLE) for kind, words in _SENT_AS.items()),
        ("J. split learning", RunSpec("split_learning", "cifar10"), NOT_AVAILABLE),
        ("J. EcoFed-style", RunSpec("ecofed", "cifar10"), NOT_AVAILABLE),
    ]
    return Experiment(
        "cifar10",
        "CIFAR-10: what each part of FedGKT contributes",
        "All methods have the same schedule, one cycle of learning rates over the run, each the peak that "
        "its validation data chose. FedGKT's server draws crops and flips of features in every epoch; "
        "ResNet-8's first filters come with their mirrors, so that a flip of features is the features of the "
        "flipped image. B and C upload once, in the first round; C's devices do not train what they upload "
        "with. Non-IID is Dirichlet 0.5 over labels.",
        tuple(Cell(row, "CIFAR-10", value, spec) for row, spec, value in rows),
    )
