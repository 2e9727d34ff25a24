"""Figures 4 and 5: what an edge computes and sends, counted rather than trained."""

from __future__ import annotations

from dataclasses import dataclass

from profiling.counted.network_cost import count_network
from profiling.counted.traffic import Deployment, paper_bytes
from profiling.experiments.reproduce.paper import FLOPS_RATIO, TITLES

_NUM_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "cinic10": 90_000}
_NUM_CLASSES = {"cifar10": 10, "cifar100": 100, "cinic10": 10}
# Training to the same accuracy: section 4.1's 200 rounds, and as many epochs of split learning.
_EPOCHS = 200


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a figure; ``paper`` is what the paper says in words, or why there is nothing."""

    label: str
    value: float
    unit: str
    paper: str


@dataclass(frozen=True, slots=True)
class CountedFigure:
    """A figure whose bars are counted; title and note are for its report."""

    name: str
    title: str
    note: str
    bars: list[Bar]


def fig4() -> CountedFigure:
    """Count the forward MACs of one CIFAR-100 sample on the edge."""
    macs = {
        name: count_network(name, num_classes=100).forward_macs
        for name in ("resnet8", "resnet56", "resnet110")
    }
    bars = [Bar("FedGKT, ResNet-8", macs["resnet8"] / 1e6, "million MACs", "not legible as a number")]
    for name, ratio in FLOPS_RATIO.items():
        label = f"FedAvg, {name.replace('resnet', 'ResNet-')}"
        times = f"{ratio} times ResNet-8; here {macs[name] / macs['resnet8']:.2f}"
        bars.append(Bar(label, macs[name] / 1e6, "million MACs", times))
    note = "MACs of convolutions and linear layers in a forward pass of one sample; FLOPs are twice that."
    return CountedFigure("fig4", "Figure 4: what an edge computes (CIFAR-100)", note, bars)


def fig5() -> CountedFigure:
    """Count the bytes between all edges and the server, as Eq. 12 and 13 do."""
    bars = []
    for dataset, title in TITLES.items():
        num, num_classes = _NUM_TRAIN[dataset], _NUM_CLASSES[dataset]
        sent = paper_bytes(Deployment(num_examples=num, num_classes=num_classes, rounds=_EPOCHS))
        split_learning, fedgkt = sent["split_learning"] / 1e9, sent["fedgkt"] / 1e9
        bars.append(Bar(f"split learning, {title}", split_learning, "GB", "not legible as a number"))
        bars.append(Bar(f"FedGKT, {title}", fedgkt, "GB", "less than split learning"))
    note = (
        f"ResNet-56, float32 without compression, {_EPOCHS} rounds of FedGKT with one local epoch against "
        f"{_EPOCHS} epochs of split learning. gkt profile traffic counts other settings, codecs and FedAvg."
    )
    return CountedFigure("fig5", "Figure 5: what edges and server exchange", note, bars)
