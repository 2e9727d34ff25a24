"""``gkt demo``: everything at once, on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gkt_core.cli import emit_json
from gkt_core.config.network_options import dataset_options, network_options
from gkt_core.config.run_options import build_run_config, run_config_options
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.files import check_new_folder
from profiling.experiments.demo.options import DEMO_DEFAULTS, DemoOptions


@click.command()
@dataset_options
@network_options
@click.option("--port", default=0, show_default=True, help="The server's port; 0 for a free one.")
@click.option("--device-threads", default=1, show_default=True, help="CPU threads of each device.")
@click.option("--server-threads", default=0, show_default=True, help="CPU threads of the trainer; 0 for all.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A new folder; by default one below gkt-demo/, named by the time.",
)
@click.option(
    "--meter-wire",
    is_flag=True,
    help="Let devices connect through a relay that counts every byte, HTTP heads included, into wire.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json to stdout.")
@run_config_options(defaults=DEMO_DEFAULTS)
def demo(
    dataset: str,
    partition: str,
    dirichlet_alpha: float,
    validation_share: float,
    image_size: int | None,
    limit: int | None,
    data_root: Path,
    edge_network: str,
    server_network: str,
    port: int,
    device_threads: int,
    server_threads: int,
    out: Path | None,
    meter_wire: bool,
    as_json: bool,
    **hyper_parameters: Any,
) -> None:
    """Train a ResNet-55 from ResNet-8 devices, end to end, on this machine.

    Splits a dataset into one private file a device, exports the artifacts, starts the real server, its
    trainer and one process a device on loopback, and runs FedGKT. Ends with one ONNX model a device,
    tested beside the same device training alone, and a report. Ctrl-C stops every process.
    """
    given = {name: value for name, value in hyper_parameters.items() if value is not None}
    build_run_config(given, defaults=DEMO_DEFAULTS)
    if not 1 <= device_threads <= 256 or not 0 <= server_threads <= 256:
        raise ConfigError("--device-threads must be 1 to 256 and --server-threads 0 to 256")
    if not 0 <= port < 65536:
        raise ConfigError(f"port is {port}, expected 0 to 65535")
    try:
        from profiling.experiments.demo.live import LiveDisplay  # noqa: PLC0415 - imports extras
        from profiling.experiments.demo.report import write_report  # noqa: PLC0415
        from profiling.experiments.demo.run import DemoRun  # noqa: PLC0415
        from server_app.serving import bind  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    folder = out or Path("gkt-demo") / time.strftime("%Y%m%d-%H%M%S")
    check_new_folder(folder)
    # A port that is taken is noticed now, not after the export.
    bind("127.0.0.1", port).close()
    options = DemoOptions(
        dataset=dataset,
        partition=partition,
        dirichlet_alpha=dirichlet_alpha,
        validation_share=validation_share,
        image_size=image_size,
        limit=limit,
        data_root=data_root,
        edge_network=edge_network,
        server_network=server_network,
        port=port,
        device_threads=device_threads,
        server_threads=server_threads,
        out=folder,
        meter_wire=meter_wire,
    )
    try:
        with LiveDisplay() as display:
            report = DemoRun(options, given, display).run()
        write_report(folder, report)
    except KeyboardInterrupt:
        if folder.exists():
            click.echo(f"stopped every process; partial results are in {folder}", err=True)
        raise
    if as_json:
        emit_json(report)
        return
    click.echo(
        f"test accuracy {report['test_accuracy']:.3f} (each device's extractor + {server_network}, mean of "
        f"{len(report['test_accuracies'])}), {edge_network} alone on each device "
        f"{report['edge_only_test_accuracy']:.3f}"
    )
    click.echo(
        f"report {folder / 'report.html'}, picture {folder / 'accuracy.png'}, models {folder / 'models'}"
    )
