"""Build the network that a bundle begins from."""

from __future__ import annotations

from edge_export.options import ExportOptions
from gkt_core.networks import FULL_NETWORKS
from gkt_core.nn import EdgeNetwork, build_edge_network
from gkt_core.nn.building import build_full_network
from gkt_core.nn.initial_weights import load_weights


def initial_network(options: ExportOptions) -> EdgeNetwork:
    """Build the network to export, with its initial weights.

    Raises:
        ConfigError: The name is unknown.
        ArtifactError: The initial weights cannot be read, or are another network's.
    """
    settings = {"pixel_mean": options.pixel_mean, "pixel_std": options.pixel_std}
    if options.edge_network in FULL_NETWORKS:
        # FedAvg trains the whole network on the device: the trunk is the device's head.
        full = build_full_network(options.edge_network, options.num_classes, **settings, seed=options.seed)
        network = EdgeNetwork(full.extractor, full.server, full.normalise)
    else:
        network = build_edge_network(options.edge_network, options.num_classes, **settings, seed=options.seed)
    load_weights(network, options.init)
    return network
