"""A plan as one document: constants through the formulas, and the check against a real run."""

from __future__ import annotations

import dataclasses
from typing import Any

from profiling.frame.machine import num_usable_cores
from profiling.frame.measurement import Announce
from profiling.plan.calibration import check_same_server, handling
from profiling.plan.constants import GIVEN, Constant, edge_constants, run_constants
from profiling.plan.formulas import plan_fleet
from profiling.plan.options import PlanOptions
from profiling.plan.validation import validate


def make_plan(options: PlanOptions, announce: Announce) -> dict[str, Any]:
    """Plan.

    Raises:
        InputError: A file is not what it should be, or a constant is missing.
    """
    fleet, run, cores = options.fleet, options.run, num_usable_cores()
    given = {
        name: Constant(value, GIVEN)
        for name, value in dataclasses.asdict(options.given).items()
        if value is not None
    }
    constants: dict[str, Constant] = {}
    if options.edge is not None:
        constants |= edge_constants(options.edge, fleet.image_size)
    if run is not None:
        constants |= run_constants(run, fleet.image_size)
    constants |= given
    handled = "handled_samples_per_second"
    if run is not None and "train_step_images_per_second" in constants and handled not in given:
        constants[handled] = handling(run, constants, fleet.image_size, cores)
    results = plan_fleet(fleet, constants)
    validation = None
    if options.validate is not None:
        if run is not None:
            check_same_server(run, options.validate, fleet.image_size)
        validation = validate(options.validate, constants, fleet.image_size, cores)
    return {
        "fleet": dataclasses.asdict(fleet),
        "constants": [{"name": name, **dataclasses.asdict(each)} for name, each in constants.items()],
        "results": [dataclasses.asdict(result) for result in results],
        "validation": validation,
        "not_measured": [
            *(f"{result.name} (a constant is missing)" for result in results if result.value is None),
            *([] if validation else ["whether the plan fits a real run (give --validate)"]),
        ],
    }
