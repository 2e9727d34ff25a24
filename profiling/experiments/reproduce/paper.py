"""What the paper reports: He, Annavaram, Avestimehr, NeurIPS 2020. Top-1 test accuracy in percent.

Table 5 is not legible in the copy that these numbers were read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DATASETS = ("cifar10", "cifar100", "cinic10")
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cinic10": "CINIC-10"}

# Table 1, 16 clients: (method, large network, dataset, partition). Centralised training has no non-IID split.
_COLUMNS = [(dataset, partition) for dataset in DATASETS for partition in ("iid", "dirichlet")]
TABLE1: dict[tuple[str, str, str, str], float] = {
    (method, network, *column): accuracy
    for (method, network), accuracies in {
        ("fedgkt", "resnet56"): (92.97, 86.59, 69.57, 63.76, 81.51, 77.80),
        ("fedavg", "resnet56"): (92.88, 86.60, 68.09, 63.78, 81.62, 77.85),
        ("centralized", "resnet56"): (93.05, None, 69.73, None, 81.66, None),
        ("centralized", "resnet8"): (78.94, None, 37.67, None, 67.72, None),
        ("fedgkt", "resnet110"): (93.47, 87.18, 69.87, 64.31, 81.98, 78.39),
        ("fedavg", "resnet110"): (93.49, 87.20, 68.58, 64.35, 82.10, 78.43),
        ("centralized", "resnet110"): (93.58, None, 70.18, None, 82.16, None),
    }.items()
    for column, accuracy in zip(_COLUMNS, accuracies, strict=True)
    if accuracy is not None
}


def _by_dataset(rows: Mapping[str, Sequence[float | str]]) -> dict[tuple[str, str], float | str]:
    return {(row, name): value for row in rows for name, value in zip(DATASETS, rows[row], strict=True)}


# Table 2: (direction, dataset). Without distillation the paper prints "-/diverge" ("low, e.g. 40 %").
TABLE2 = _by_dataset(
    {"none": 3 * ("-/diverge",), "s2e": (92.97, 68.44, 81.51), "both": (90.53, 69.57, 80.01)}
)
# Table 3: (mode, dataset).
TABLE3 = _by_dataset({"sync": (92.97, 69.57, 81.51), "async": (92.92, 69.65, 81.43)})
# Table 4, CIFAR-100: number of edges.
TABLE4: dict[int, float] = {8: 69.51, 16: 69.57, 64: 69.65, 128: 69.59}

# Figure 4 in words (section 4.3): how many times less an edge computes with ResNet-8.
FLOPS_RATIO = {"resnet56": 9, "resnet110": 17}


def best_direction(dataset: str) -> str:
    """The direction of distillation that Table 1's figures belong to, by Table 2."""
    return "both" if dataset == "cifar100" else "s2e"
