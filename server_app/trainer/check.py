"""Say whether this machine can train a run as asked: ``python -m server_app.trainer.check``.

A process of its own, which ``gkt serve`` starts before anything else: the server holds no PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from gkt_core.bundle.manifest import load_bundle
from gkt_core.bundle.template import SERVER_PREFIX
from gkt_core.cli import run_command
from gkt_core.errors import ConfigError
from gkt_core.networks import load_network_module
from gkt_core.nn import build_server_network
from gkt_core.nn.initial_weights import load_weights
from server_app.trainer.network import own_torch_device


@click.command()
@click.option("--artifacts", type=click.Path(path_type=Path), required=True)
@click.option("--device", default="cpu")
@click.option("--procs", "num_procs", default=1)
@click.option("--precision", default="fp32")
@click.option("--init", type=click.Path(path_type=Path))
@click.option("--networks", multiple=True)
def main(
    artifacts: Path, device: str, num_procs: int, precision: str, init: Path | None, networks: tuple[str, ...]
) -> None:
    """End with an error that names what is missing."""
    if num_procs:
        check_device(device, num_procs, precision)
    for source in networks:
        load_network_module(source)
    if init is not None:
        manifest = load_bundle(artifacts).manifest
        network = build_server_network(manifest.server_network, manifest.num_classes, seed=0)
        load_weights(network, init, prefix=SERVER_PREFIX)


def check_device(device: str, num_procs: int, precision: str) -> None:
    """Compute something there.

    Raises:
        ConfigError: PyTorch sees no GPU, too few, one that it cannot use, or one without this precision.
    """
    torch_device = own_torch_device(device, 0)
    if torch_device.type != "cuda":
        return
    num_gpus = torch.cuda.device_count()
    if num_procs > num_gpus:
        raise ConfigError(
            f"--trainer-procs is {num_procs}, and PyTorch sees {num_gpus} GPU(s): each process needs its own"
        )
    try:
        torch.ones(8, device=torch_device).sum().item()
        # Emulated it would be slower than fp32.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(
            f"--device is cuda, but PyTorch cannot use the GPU: {first_line}: mend the driver, or choose cpu"
        ) from error
    if precision == "bf16" and not has_bf16:
        raise ConfigError("--precision is bf16, which this GPU does not have: choose fp32")


if __name__ == "__main__":
    run_command(main)
