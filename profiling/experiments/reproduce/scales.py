"""How large an experiment is: the paper's setting, or one that fits two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Arguments = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Scale:
    """Settings of all runs of a scale, as options of ``gkt simulate`` without the dashes.

    Attributes:
        name: ``full`` or ``small``.
        says: For the report: what was run.
        num_seeds: Seeds a cell by default.
        num_clients: Devices, unless an experiment varies them.
        edge_numbers: What stands for Table 4's 8, 16, 64 and 128 edges.
        common: Of every run.
        by_algorithm: Of one algorithm's runs.
        by_central_network: Of centralised runs of one network by itself, such as ResNet-8.
        non_iid: Of FedGKT's runs on Dirichlet splits.
    """

    name: str
    says: str
    num_seeds: int
    num_clients: int
    edge_numbers: tuple[int, int, int, int]
    common: Arguments
    by_algorithm: Mapping[str, Arguments]
    by_central_network: Mapping[str, Arguments] = field(default_factory=dict)
    non_iid: Arguments = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """Images of CIFAR-10 for training and validation."""
        return int(self.common.get("limit", 50_000))


FULL = Scale(
    name="full",
    says="The paper's setting (section 4.1): all training images, a tenth of each device's held back for "
    "validation; 16 devices, 200 rounds, batches of 256, Adam 1e-3 with weight decay 1e-4 (on devices "
    "AMSGrad, as the published client has); FedGKT with 20 server epochs (40, and SGD 5e-3, on Dirichlet "
    "splits); learning rates halved when validation accuracy has not risen for 10 rounds. FedAvg's 20 local "
    "epochs and 200 centralised epochs are ours.",
    num_seeds=3,
    num_clients=16,
    edge_numbers=(8, 16, 64, 128),
    common={
        "rounds": 200,
        "batch-size": 256,
        "server-batch-size": 256,
        "plateau-patience": 10,
        "validation-share": 0.1,
    },
    by_algorithm={
        "fedgkt": {"server-epochs": 20, "edge-weight-decay": 1e-4, "edge-amsgrad": True},
        "fedavg": {"local-epochs": 20},
        "centralized": {"local-epochs": 1},
        "split_learning": {"local-epochs": 1},
    },
    non_iid={"server-epochs": 40, "server-optimizer": "sgd", "server-lr": 5e-3},
)

SMALL = Scale(
    name="small",
    says="Small enough for two CPU cores: 5,000 training and 1,000 further images for validation, drawn by "
    "seed; 4 devices, 10 rounds; FedGKT with 1 local and 2 server epochs a round, FedAvg with 2 local "
    "epochs, centralised training for 20 epochs; every method with batches of 64, Adam and a cosine of "
    "learning rates from 3e-3 (ResNet-8 alone from 1e-2), chosen for each method on seed 0's validation "
    "data; all 10,000 test images, looked at once, at the end.",
    num_seeds=2,
    num_clients=4,
    edge_numbers=(2, 4, 8, 16),
    common={
        "limit": 6000,
        "validation-share": 0.16666667,
        "rounds": 10,
        "edge-lr": 3e-3,
        "server-lr": 3e-3,
        "server-amsgrad": False,
        "lr-schedule": "cosine",
    },
    by_algorithm={
        "fedgkt": {"server-epochs": 2},
        "fedavg": {"local-epochs": 2},
        "centralized": {"local-epochs": 2},
        "split_learning": {"local-epochs": 2},
    },
    by_central_network={"resnet8": {"server-lr": 1e-2}},
)

MINI = Scale(
    name="mini",
    says="Smaller still, for many seeds: images scaled to 16 pixels, 2,700 for training and 300 for "
    "validation, 4 devices, 8 rounds, otherwise as in the small setting.",
    num_seeds=4,
    num_clients=4,
    edge_numbers=(2, 4, 8, 16),
    common={**SMALL.common, "limit": 3000, "image-size": 16, "validation-share": 0.1, "rounds": 8},
    by_algorithm=SMALL.by_algorithm,
    by_central_network=SMALL.by_central_network,
)

# A minute on a laptop, to see that everything works; its numbers mean nothing.
TINY = Scale(
    name="tiny",
    says="A smoke test: a few hundred images of 8 pixels, two rounds. These accuracies mean nothing.",
    num_seeds=2,
    num_clients=3,
    edge_numbers=(1, 2, 3, 4),
    common={"limit": 240, "image-size": 8, "rounds": 2, "batch-size": 16, "server-batch-size": 16},
    by_algorithm={"fedgkt": {"server-epochs": 1}, "centralized": {"local-epochs": 1}},
)

# SGD with Nesterov momentum in one cycle, which in tens of epochs goes further than Adam at a constant rate.
_ONE_CYCLE: Arguments = {
    "rounds": 10,
    "server-batch-size": 128,
    "server-optimizer": "sgd",
    "server-lr": 0.1,
    "weight-decay": 5e-4,
    "decay-norms": False,
    "edge-lr": 3e-3,
    "lr-schedule": "one_cycle",
}
_LARGE_ON_DEVICES: Arguments = {"edge-optimizer": "sgd", "edge-lr": 0.1, "edge-weight-decay": 5e-4}


def _one_cycle(epochs: int) -> dict[str, Arguments]:
    """Give every method as many epochs a round of the large network."""
    return {
        "fedgkt": {"codec": "uint4", "server-epochs": epochs, "feature-augmentation": "crop+flip"},
        "fedavg": {"local-epochs": epochs, **_LARGE_ON_DEVICES},
        "centralized": {"local-epochs": epochs},
        "split_learning": {"local-epochs": epochs},
        "ecofed": {"server-epochs": epochs},
    }


CPU = Scale(
    name="cpu",
    says="All of CIFAR-10 on two CPU cores, in hours a run: 49,000 training and 1,000 validation images, 16 "
    "devices, 10 rounds of 6 epochs of the large network (FedGKT: and one local epoch), features of 4 bits; "
    "SGD with Nesterov momentum, batches of 128, one cycle of learning rates; all 10,000 test images, looked "
    "at once, at the end.",
    num_seeds=1,
    num_clients=16,
    edge_numbers=(8, 16, 64, 128),
    common={**_ONE_CYCLE, "validation-share": 0.02},
    by_algorithm=_one_cycle(6),
)

CPU_SMALL = Scale(
    name="cpu-small",
    says="The setting of the scale cpu with a tenth of the images, for more seeds: 5,000 training and 1,000 "
    "validation images, 4 devices, 10 rounds of 2 epochs of the large network.",
    num_seeds=4,
    num_clients=4,
    edge_numbers=(2, 4, 8, 16),
    common={**_ONE_CYCLE, "limit": 6000, "validation-share": 0.16666667},
    by_algorithm=_one_cycle(2),
)

SCALES = {scale.name: scale for scale in (FULL, CPU, CPU_SMALL, SMALL, MINI, TINY)}
