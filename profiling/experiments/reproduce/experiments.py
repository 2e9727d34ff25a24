"""The paper's tables and figures as cells: what each shows, and the run that repeats it."""

from __future__ import annotations

from profiling.experiments.reproduce.cells import NOT_AVAILABLE, SERVER_OF, Cell, Experiment, RunSpec
from profiling.experiments.reproduce.contributions import cifar10
from profiling.experiments.reproduce.paper import (
    DATASETS,
    TABLE1,
    TABLE2,
    TABLE3,
    TABLE4,
    TITLES,
    best_direction,
)
from profiling.experiments.reproduce.scales import Scale

_METHODS = {"fedgkt": "FedGKT", "fedavg": "FedAvg", "centralized": "Centralised"}
_PARTITIONS = {"iid": "IID", "dirichlet": "non-IID"}


def _table1(scale: Scale) -> Experiment:
    cells = []
    for (method, network, dataset, partition), paper in TABLE1.items():
        edge = network in SERVER_OF
        spec = RunSpec(
            method,
            dataset,
            partition,
            server_network=SERVER_OF.get(network, "resnet55"),
            central_network=None if edge else network,
            direction=best_direction(dataset) if method == "fedgkt" else "s2e",
        )
        large = {"resnet56": "ResNet-56", "resnet110": "ResNet-110", "resnet8": "ResNet-8"}[network]
        shown = f"{_METHODS[method]}, {large}" + (" (ResNet-8 on devices)" if method == "fedgkt" else "")
        cells.append(Cell(shown, f"{TITLES[dataset]} {_PARTITIONS[partition]}", paper, spec))
    return Experiment(
        "table1",
        "Table 1: test accuracy of ResNet-56 and ResNet-110 on three datasets",
        "FedGKT distils from server to edge for CIFAR-10 and CINIC-10 and both ways for CIFAR-100, as the "
        "paper's Table 2 shows that its Table 1 did. Non-IID is Dirichlet 0.5 over labels: FedGKT's "
        "validation there is of each device's extractor on its own few classes, its test of each on "
        "all images.",
        tuple(cells),
    )


def _table2(scale: Scale) -> Experiment:
    rows = {"none": "no distillation", "s2e": "server to edge", "both": "both ways"}
    cells = (
        Cell(rows[direction], TITLES[dataset], paper, RunSpec("fedgkt", dataset, direction=direction))
        for (direction, dataset), paper in TABLE2.items()
    )
    return Experiment(
        "table2",
        "Table 2: ablation of the loss functions",
        "Without distillation the paper prints -/diverge and speaks of low accuracy, such as 40 %.",
        tuple(cells),
    )


def _table3(scale: Scale) -> Experiment:
    rows = {"sync": "synchronous", "async": "asynchronous"}
    cells = (
        Cell(
            rows[mode],
            TITLES[dataset],
            paper,
            RunSpec("fedgkt", dataset, direction=best_direction(dataset), mode=mode),
        )
        for (mode, dataset), paper in TABLE3.items()
    )
    return Experiment(
        "table3",
        "Table 3: asynchronous training",
        "Asynchronous: devices up to 4 times slower than the fastest, by seed, at most one round ahead of "
        "the slowest; the server trains on whatever has arrived. Both do the same work.",
        tuple(cells),
    )


def _table4(scale: Scale) -> Experiment:
    cells = (
        Cell(
            f"{num_clients} edges" + (f" (the paper: {theirs})" if theirs != num_clients else ""),
            TITLES["cifar100"],
            TABLE4[theirs],
            RunSpec("fedgkt", "cifar100", direction="both", num_clients=num_clients),
        )
        for theirs, num_clients in zip(TABLE4, scale.edge_numbers, strict=True)
    )
    return Experiment("table4", "Table 4: different numbers of edges", "CIFAR-100, both ways.", tuple(cells))


def _table5(scale: Scale) -> Experiment:
    cells = (
        Cell(
            edge.replace("resnet", "ResNet-"),
            TITLES["cifar10"],
            NOT_AVAILABLE,
            RunSpec("fedgkt", "cifar10", edge_network=edge),
        )
        for edge in ("resnet8", "resnet6", "resnet4")
    )
    return Experiment(
        "table5",
        "Table 5: smaller networks on the devices",
        "The paper's figures are not legible.",
        tuple(cells),
    )


def _fig3(scale: Scale) -> Experiment:
    cells = []
    for dataset in DATASETS:
        for method in ("centralized", "fedavg", "fedgkt"):
            direction = best_direction(dataset) if method == "fedgkt" else "s2e"
            spec = RunSpec(method, dataset, direction=direction)
            paper = TABLE1[method, "resnet56", dataset, "iid"]
            cells.append(Cell(_METHODS[method], TITLES[dataset], paper, spec))
    return Experiment(
        "fig3",
        "Figure 3: accuracy of ResNet-56 round by round",
        "The paper draws test accuracy; we draw validation accuracy, and look at the test set once, at the "
        "end. Its final figures are those of its Table 1.",
        tuple(cells),
    )


_EXPERIMENTS = {
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "table4": _table4,
    "table5": _table5,
    "fig3": _fig3,
    "cifar10": cifar10,
}
# Figures that are counted rather than trained.
COUNTED = ("fig4", "fig5")
NAMES = (*_EXPERIMENTS, *COUNTED)


def experiment(name: str, scale: Scale) -> Experiment:
    """Cells of a table, or of Figure 3.

    Args:
        name: ``table1`` to ``table5``, or ``fig3``.
        scale: How large; some cells depend on it.
    """
    return _EXPERIMENTS[name](scale)
