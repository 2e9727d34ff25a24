"""``gkt plan``: a deployment on paper."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from gkt_core.config.run_config import CODECS
from gkt_core.errors import ConfigError, MissingExtraError
from profiling.frame import emit_report, output_options
from profiling.frame.machine import describe_machine

SCHEMA = "gkt-plan/1"
_GIVEN = {
    "train_rate": "train_step_images_per_second",
    "extract_rate": "extract_images_per_second",
    "pack_rate": "pack_images_per_second",
    "augment_rate": "augment_images_per_second",
    "contention": "contention",
    "handling_rate": "handled_samples_per_second",
    "server_rate": "server_samples_per_second",
    "server_overhead": "server_overhead_seconds",
    "compression_ratio": "compression_ratio",
    "ingest_mbps": "ingest_mbps",
    "gpu_hour_price": "gpu_hour_price",
    "server_hour_price": "server_hour_price",
    "egress_gb_price": "egress_gb_price",
    "storage_gb_month_price": "storage_gb_month_price",
}


@click.command()
@click.option("--devices", type=float, required=True, help="Devices in all, such as 1e6.")
@click.option("--samples", type=float, required=True, help="Training samples of one device.")
@click.option("--validation-samples", default=0, show_default=True, help="Validation samples of one device.")
@click.option("--fraction", default=1.0, show_default=True, help="Share of the devices in a round.")
@click.option("--rounds", default=200, show_default=True, help="Rounds.")
@click.option("--uploads", type=int, help="Rounds with an upload; all by default.")
@click.option("--local-epochs", default=1, show_default=True, help="E_c.")
@click.option("--server-epochs", default=20, show_default=True, help="E_s.")
@click.option("--codec", type=click.Choice(CODECS), default="uint8", show_default=True)
@click.option("--image-size", default=32, show_default=True, help="Pixels.")
@click.option("--num-classes", default=10, show_default=True, help="Number of classes.")
@click.option("--uplink-mbps", default=5.0, show_default=True, help="Of one device, megabits a second.")
@click.option("--downlink-mbps", default=20.0, show_default=True, help="Of one device.")
@click.option("--poll-seconds", default=1.0, show_default=True, help="How often waiting devices ask.")
@click.option("--slots", type=int, help="Devices that compute at the same time; all by default.")
@click.option(
    "--trainers", default=1, show_default=True, help="GPUs that share the server's training perfectly."
)
@click.option("--edge", type=click.Path(path_type=Path), help="gkt profile edge --out FILE.json: the device.")
@click.option("--run", "run_dir", type=click.Path(path_type=Path), help="Folder of a gkt demo: the server.")
@click.option("--train-rate", type=float, help="Images a second in training, instead of --edge.")
@click.option("--extract-rate", type=float, help="Images a second in extraction, instead of --edge.")
@click.option("--pack-rate", type=float, help="Images a second in packing, instead of --edge.")
@click.option("--augment-rate", type=float, help="Images a second in augmentation, instead of --edge.")
@click.option("--contention", type=float, help="How much longer a step takes when all --slots are busy.")
@click.option("--handling-rate", type=float, help="Samples a second handed over on one machine (--slots).")
@click.option("--server-rate", type=float, help="Samples a second of the server's training.")
@click.option("--server-overhead", type=float, help="Seconds of the server's part that do not scale.")
@click.option("--compression-ratio", type=float, help="Bytes sent over bytes encoded.")
@click.option("--ingest-mbps", type=float, help="Megabits a second that one ingest server takes.")
@click.option("--gpu-hour-price", type=float, help="Of what the server rate was measured on.")
@click.option("--server-hour-price", type=float, help="Of one ingest server.")
@click.option("--egress-gb-price", type=float, help="Of a gigabyte out.")
@click.option("--storage-gb-month-price", type=float, help="Of a gigabyte for a month.")
@click.option(
    "--validate",
    "validate_dir",
    type=click.Path(path_type=Path),
    help="Folder of another gkt demo on this machine: predict it with the same constants and compare.",
)
@output_options
def plan(
    *,
    devices: float,
    samples: float,
    uploads: int | None,
    rounds: int,
    edge: Path | None,
    run_dir: Path | None,
    validate_dir: Path | None,
    outs: tuple[Path, ...],
    as_json: bool,
    **values: Any,
) -> None:
    """Plan a deployment larger than this machine: time, bytes, servers, GPU hours, cost.

    Every constant is measured (--edge, --run) or given, and every formula is printed. What a missing constant
    would be needed for is not computed.

    \b
    gkt profile edge --artifacts artifacts --out edge.json
    gkt demo --out calibration
    gkt plan --devices 1e6 --samples 200 --uplink-mbps 5 --edge edge.json --run calibration
    """  # noqa: D301 - click looks for the character itself
    given = {_GIVEN[name]: values.pop(name) for name in _GIVEN}
    for name, number in (("devices", devices), ("samples", samples)):
        if not 1 <= number < 1e15 or number != int(number):
            raise ConfigError(f"{name} is {number:g}, expected a whole number of at least 1")
    try:
        document = make_plan(
            {
                **values,
                "devices": int(devices),
                "samples": int(samples),
                "rounds": rounds,
                "uploads": rounds if uploads is None else uploads,
            },
            {name: value for name, value in given.items() if value is not None},
            edge=edge,
            run_dir=run_dir,
            validate_dir=validate_dir,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    emit_report(document, outs, as_json)


def make_plan(
    fleet_values: dict[str, Any],
    given: dict[str, float],
    *,
    edge: Path | None,
    run_dir: Path | None,
    validate_dir: Path | None,
) -> dict[str, Any]:
    """Make the document.

    Args:
        fleet_values: Fields of :class:`profiling.plan.formulas.Fleet`.
        given: Constants that the user gave; they win over measured ones.
        edge: File of ``gkt profile edge``, or None.
        run_dir: Folder of a demo to take the server's constants from, or None.
        validate_dir: Folder of another demo to check the plan against, or None.

    Raises:
        InputError: A file is not what it should be, or a constant is missing.
    """
    from profiling.plan import calibration, constants, formulas, validation  # noqa: PLC0415 - imports an extra

    fleet = formulas.Fleet(**fleet_values)
    found: dict[str, constants.Constant] = {}
    if edge is not None:
        found |= constants.edge_constants(edge, fleet.image_size)
    if run_dir is not None:
        found |= constants.run_constants(run_dir, fleet.image_size)
    found |= {name: constants.Constant(value, constants.GIVEN) for name, value in given.items()}
    machine = describe_machine()
    cores = machine["num_usable_cores"]
    if (
        run_dir is not None
        and "train_step_images_per_second" in found
        and "handled_samples_per_second" not in given
    ):
        found["handled_samples_per_second"] = calibration.handling(run_dir, found, fleet.image_size, cores)
    results = formulas.plan_fleet(fleet, found)
    checked = None
    if validate_dir is not None:
        if run_dir is not None:
            calibration.check_same_server(run_dir, validate_dir)
        checked = validation.validate(validate_dir, found, fleet.image_size, cores)
    missing = [f"{result.name} (a constant is missing)" for result in results if result.value is None]
    return {
        "schema": SCHEMA,
        "fleet": dataclasses.asdict(fleet),
        "constants": constants.as_table(found),
        "results": formulas.as_table(results),
        "validation": checked,
        "not_measured": [
            *missing,
            "stragglers, lost devices, accuracy",
            *([] if checked else ["whether the plan fits a real run (give --validate)"]),
        ],
        "settings": {"edge": edge and edge.name, "run": run_dir and run_dir.name},
        "machine": machine,
    }
