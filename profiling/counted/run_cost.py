"""What a whole training computes and sends, by method: the totals of the paper's Fig. 4 and Fig. 5."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from profiling.counted.network_cost import EXTRACTOR, NetworkCost, count_server_flops
from profiling.counted.run_size import RunSize
from profiling.counted.traffic import Deployment, fedavg_bytes, paper_bytes

_EDGE = "resnet8"
_FULL_TO_SERVER = {"resnet56": "resnet55", "resnet110": "resnet109"}


def run_totals(
    size: RunSize, costs: Mapping[str, NetworkCost], *, num_classes: int, image_size: int
) -> dict[str, Any]:
    """Training FLOPs and bytes of a run, all devices together.

    A device of FedGKT trains ``local_epochs`` and passes forward once more to extract; one of split learning
    trains its extractor as often; one of FedAvg the whole network. FLOPs are those of convolutions and
    linear layers (2 x MACs), forward and backward; bytes as the paper counts (Eq. 12 and 13), FedAvg's
    weights both ways beside them.

    Args:
        size: The run.
        costs: By name; edge network, full networks and the extractor.
        num_classes: Width of the logits.
        image_size: Pixels.
    """
    passes = size.samples * size.rounds
    methods = []
    for full, server in _FULL_TO_SERVER.items():
        deployment = Deployment(
            num_examples=size.samples,
            num_clients=size.clients,
            rounds=size.rounds,
            uploads=size.rounds,
            image_size=image_size,
            num_classes=num_classes,
            num_parameters=costs[full].num_parameters,
        )
        paper = paper_bytes(deployment)
        server_flops = {
            sends: count_server_flops(
                server, num_classes=num_classes, image_size=image_size, sends_gradient=sends
            )
            for sends in (False, True)
        }
        edge = costs[_EDGE]
        fedgkt = size.local_epochs * edge.train_flops + 2 * edge.forward_macs
        trained = size.local_epochs * passes
        methods += [
            {
                "method": "fedgkt",
                "network": full,
                "device_flops": passes * fedgkt,
                "server_flops": passes * size.server_epochs * server_flops[False],
                "paper_bytes": paper["fedgkt"],
            },
            {
                "method": "split_learning",
                "network": full,
                "device_flops": trained * costs[EXTRACTOR].train_flops,
                "server_flops": trained * server_flops[True],
                "paper_bytes": paper["split_learning"] * size.local_epochs,
            },
            {
                "method": "fedavg",
                "network": full,
                "device_flops": trained * costs[full].train_flops,
                "server_flops": 0,
                "paper_bytes": sum(fedavg_bytes(deployment).values()),
            },
        ]
    return {**dataclasses.asdict(size), "methods": methods}
