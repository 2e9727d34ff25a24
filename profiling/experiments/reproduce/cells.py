"""What a table of a reproduction is made of: its cells, and the run that gives each one's number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from profiling.experiments.reproduce.scales import Scale

SERVER_OF = {"resnet56": "resnet55", "resnet110": "resnet109"}
NOT_AVAILABLE = "not available"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run of ``gkt simulate``, but for scale, seed and where the data lie.

    Attributes:
        algorithm: ``fedgkt``, ``fedavg`` or ``centralized``.
        dataset: ``cifar10``, ``cifar100`` or ``cinic10``.
        partition: ``iid`` or ``dirichlet``.
        server_network: ``resnet55`` or ``resnet109``.
        edge_network: What devices train.
        central_network: What centralised training trains, if not extractor + server network.
        direction: Of FedGKT's distillation.
        mode: ``sync`` or ``async``.
        num_clients: Devices; 0 for the scale's.
        variant: What else is different, as a word of the run's name; empty for nothing.
        settings: That, as options of ``gkt simulate`` without the dashes, before all others.
    """

    algorithm: str
    dataset: str
    partition: str = "iid"
    server_network: str = "resnet55"
    edge_network: str = "resnet8"
    central_network: str | None = None
    direction: str = "s2e"
    mode: str = "sync"
    num_clients: int = 0
    variant: str = ""
    settings: tuple[tuple[str, str | int | float | bool], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible values; without a variant as runs were kept before there were any."""
        values = asdict(self)
        settings = dict(values.pop("settings"))
        if not values["variant"]:
            del values["variant"]
        return values | ({"settings": settings} if settings else {})

    @property
    def stem(self) -> str:
        """What is run, seed aside; says what is not default."""
        parts = [self.algorithm, self.dataset, self.partition]
        if self.central_network:
            parts.append(self.central_network)
        elif self.server_network != "resnet55":
            parts.append(self.server_network)
        if self.edge_network != "resnet8":
            parts.append(self.edge_network)
        if self.algorithm == "fedgkt":
            parts += [self.direction, self.mode]
        if self.num_clients:
            parts.append(f"{self.num_clients}clients")
        if self.variant:
            parts.append(self.variant)
        return "-".join(parts)

    def name(self, seed: int) -> str:
        """A folder's name."""
        return f"{self.stem}-seed{seed}"

    def arguments(self, scale: Scale, seed: int, source: str) -> list[str]:
        """Arguments of ``gkt simulate``.

        Args:
            scale: How large.
            seed: Of split, weights and everything else.
            source: Where the dataset is, for ``--dataset``.
        """
        options: dict[str, Any] = {
            "algorithm": self.algorithm,
            "dataset": source,
            "partition": self.partition,
            "clients": self.num_clients or scale.num_clients,
            "model": self.edge_network,
            "server-model": self.server_network,
            "seed": seed,
            **scale.common,
            **scale.by_algorithm.get(self.algorithm, {}),
        }
        if self.central_network:
            options |= scale.by_central_network.get(self.central_network, {})
            options["central-model"] = self.central_network
        if self.algorithm == "fedgkt":
            options |= {"direction": self.direction, "mode": self.mode}
            if self.partition == "dirichlet":
                options |= scale.non_iid
        options |= dict(self.settings)
        from profiling.frame.processes import arguments  # noqa: PLC0415 - psutil is an extra

        return arguments("", **options)


@dataclass(frozen=True, slots=True)
class Job:
    """One run with one seed."""

    spec: RunSpec
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its result."""
        return self.spec.name(self.seed)


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the paper, and the run that repeats it.

    Attributes:
        row: Which row of the table, for a person.
        column: Which column.
        paper: Accuracy in percent, or what stands there instead.
        spec: The run.
    """

    row: str
    column: str
    paper: float | str
    spec: RunSpec


@dataclass(frozen=True, slots=True)
class Experiment:
    """A table, or the figure of accuracies."""

    name: str
    title: str
    note: str
    cells: tuple[Cell, ...]
