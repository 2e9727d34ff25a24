"""``gkt demo``: everything at once, on this machine."""

from __future__ import annotations

import shlex
from typing import Any

import click

from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.run_config import build_run_config, run_config_options
from gkt_core.errors import needs
from profiling.experiments.demo.begun import begun_or_new, note_begun
from profiling.experiments.demo.options import DEMO_DEFAULTS, LEFT_OUT, DemoOptions
from profiling.frame.units import format_span


@click.command(cls=Command, example="gkt demo --dataset photos/ --rounds 3 --out demo")
@dataclass_options(DemoOptions, leave_out=LEFT_OUT)
@json_option("report.json")
@run_config_options(defaults=DEMO_DEFAULTS)
def demo(options: DemoOptions, hyper_parameters: dict[str, Any], as_json: bool) -> None:
    """Train a ResNet-55 from ResNet-8 devices, end to end, on this machine.

    Splits a dataset into one private file a device, exports the artifacts, starts the real server, its
    trainer and one process a device on loopback, and runs FedGKT. Ends with one ONNX model a device,
    tested beside the same device training alone, and a report. Ctrl-C stops every process; the same --out,
    alone or with the same options, goes on where it was stopped.
    """
    ctx = click.get_current_context()
    begun = begun_or_new(options.out, ctx)
    if begun is not ctx:
        # With the options that it was begun with, which were checked then.
        with begun:
            begun.command.invoke(begun)
        return
    build_run_config(hyper_parameters, defaults=DEMO_DEFAULTS)
    with needs("all"):
        from profiling.experiments.demo.live import LiveDisplay  # noqa: PLC0415 - imports extras
        from profiling.experiments.demo.report import write_report  # noqa: PLC0415
        from profiling.experiments.demo.run import DemoRun  # noqa: PLC0415
        from server_app.serving import bind  # noqa: PLC0415
    folder = options.out
    # A port that is taken is noticed now, not after the export.
    bind("127.0.0.1", options.port).close()
    try:
        with note_begun(folder, ctx) as num_starts, LiveDisplay() as display:
            report = DemoRun(options, hyper_parameters, display, num_starts=num_starts).run()
            write_report(folder, report)
    except KeyboardInterrupt:
        if folder.exists():
            click.echo(
                f"stopped every process; partial results are in {folder}, and it goes on with: "
                f"gkt demo --out {shlex.quote(str(folder))}",
                err=True,
            )
        raise
    if as_json:
        emit_json(report)
        return
    networks, simple = options.networks, report["logistic_regression_test_accuracy"]
    click.echo(
        f"test accuracy {report['test_accuracy']:.3f} (each device's extractor + "
        f"{networks.completing_network}, mean of {len(report['test_accuracies'])}), "
        f"{networks.edge_network} alone on each device "
        f"{report['edge_only_test_accuracy']:.3f} after {format_span(report['edge_only_rounds'])} rounds"
        + ("" if simple is None else f", logistic regression on each device's pixels {simple:.3f}")
    )
    click.echo(
        f"report {folder / 'report.html'}, picture {folder / 'accuracy.png'}, models {folder / 'models'}"
    )
