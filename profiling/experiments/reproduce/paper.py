"""What the paper reports: He, Annavaram, Avestimehr, NeurIPS 2020. Top-1 test accuracy in percent.

Table 5 is not legible in the copy that these numbers were read from.
"""

from __future__ import annotations

DATASETS = ("cifar10", "cifar100", "cinic10")
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cinic10": "CINIC-10"}

# Table 1, 16 clients: (method, large network, dataset, partition).
TABLE1: dict[tuple[str, str, str, str], float] = {
    ("fedgkt", "resnet56", "cifar10", "iid"): 92.97,
    ("fedgkt", "resnet56", "cifar10", "dirichlet"): 86.59,
    ("fedgkt", "resnet56", "cifar100", "iid"): 69.57,
    ("fedgkt", "resnet56", "cifar100", "dirichlet"): 63.76,
    ("fedgkt", "resnet56", "cinic10", "iid"): 81.51,
    ("fedgkt", "resnet56", "cinic10", "dirichlet"): 77.80,
    ("fedavg", "resnet56", "cifar10", "iid"): 92.88,
    ("fedavg", "resnet56", "cifar10", "dirichlet"): 86.60,
    ("fedavg", "resnet56", "cifar100", "iid"): 68.09,
    ("fedavg", "resnet56", "cifar100", "dirichlet"): 63.78,
    ("fedavg", "resnet56", "cinic10", "iid"): 81.62,
    ("fedavg", "resnet56", "cinic10", "dirichlet"): 77.85,
    ("centralized", "resnet56", "cifar10", "iid"): 93.05,
    ("centralized", "resnet56", "cifar100", "iid"): 69.73,
    ("centralized", "resnet56", "cinic10", "iid"): 81.66,
    ("centralized", "resnet8", "cifar10", "iid"): 78.94,
    ("centralized", "resnet8", "cifar100", "iid"): 37.67,
    ("centralized", "resnet8", "cinic10", "iid"): 67.72,
    ("fedgkt", "resnet110", "cifar10", "iid"): 93.47,
    ("fedgkt", "resnet110", "cifar10", "dirichlet"): 87.18,
    ("fedgkt", "resnet110", "cifar100", "iid"): 69.87,
    ("fedgkt", "resnet110", "cifar100", "dirichlet"): 64.31,
    ("fedgkt", "resnet110", "cinic10", "iid"): 81.98,
    ("fedgkt", "resnet110", "cinic10", "dirichlet"): 78.39,
    ("fedavg", "resnet110", "cifar10", "iid"): 93.49,
    ("fedavg", "resnet110", "cifar10", "dirichlet"): 87.20,
    ("fedavg", "resnet110", "cifar100", "iid"): 68.58,
    ("fedavg", "resnet110", "cifar100", "dirichlet"): 64.35,
    ("fedavg", "resnet110", "cinic10", "iid"): 82.10,
    ("fedavg", "resnet110", "cinic10", "dirichlet"): 78.43,
    ("centralized", "resnet110", "cifar10", "iid"): 93.58,
    ("centralized", "resnet110", "cifar100", "iid"): 70.18,
    ("centralized", "resnet110", "cinic10", "iid"): 82.16,
}

# Table 2: (direction, dataset). Without distillation the paper prints "-/diverge" ("low, e.g. 40 %").
TABLE2: dict[tuple[str, str], float | str] = {
    ("none", "cifar10"): "-/diverge",
    ("none", "cifar100"): "-/diverge",
    ("none", "cinic10"): "-/diverge",
    ("s2e", "cifar10"): 92.97,
    ("s2e", "cifar100"): 68.44,
    ("s2e", "cinic10"): 81.51,
    ("both", "cifar10"): 90.53,
    ("both", "cifar100"): 69.57,
    ("both", "cinic10"): 80.01,
}

# Table 3: (mode, dataset).
TABLE3: dict[tuple[str, str], float] = {
    ("sync", "cifar10"): 92.97,
    ("sync", "cifar100"): 69.57,
    ("sync", "cinic10"): 81.51,
    ("async", "cifar10"): 92.92,
    ("async", "cifar100"): 69.65,
    ("async", "cinic10"): 81.43,
}

# Table 4, CIFAR-100: number of edges.
TABLE4: dict[int, float] = {8: 69.51, 16: 69.57, 64: 69.65, 128: 69.59}

# Figure 4 in words (section 4.3): how many times less an edge computes with ResNet-8.
FLOPS_RATIO = {"resnet56": 9, "resnet110": 17}


def best_direction(dataset: str) -> str:
    """The direction of distillation that Table 1's figures belong to, by Table 2."""
    return "both" if dataset == "cifar100" else "s2e"
