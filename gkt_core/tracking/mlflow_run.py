"""Rounds as metrics of a run of MLflow, through its client: a server, a database or a folder."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from gkt_core.errors import needs
from gkt_core.tracking.about import About, Numbers
from gkt_core.tracking.options import Target

# A folder is what somebody asked for who gives one, whatever else is recommended; and nobody is told of it.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
with needs("track"):
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

EXPERIMENT = "gkt"
# Of one call.
_MOST_PARAMS, _LONGEST = 100, 500


def open_run(target: Target, about: About, run: str) -> MLflowRun:
    """Begin a run in the experiment ``gkt``, or go on with one."""
    client = MlflowClient(tracking_uri=target.place)
    return MLflowRun(client, run or _begun(client, about))


def _begun(client: Any, about: About) -> str:
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known is not None else client.create_experiment(EXPERIMENT)
    begun = str(client.create_run(experiment, run_name=about.name).info.run_id)
    params = [
        Param(name, (value if isinstance(value, str) else json.dumps(value))[:_LONGEST])
        for name, value in about.settings.items()
    ]
    for first in range(0, len(params), _MOST_PARAMS):
        client.log_batch(begun, params=params[first : first + _MOST_PARAMS])
    return begun


class MLflowRun:
    """Writes to one run.

    Args:
        client: MLflow's.
        run: Id of the run.
    """

    def __init__(self, client: Any, run: str) -> None:
        self._client, self.run = client, run
        self._client.update_run(run, status="RUNNING")

    def write(self, step: int, numbers: Numbers) -> None:
        """Write the numbers of a round."""
        now = int(1000 * time.time())
        self._client.log_batch(
            self.run, metrics=[Metric(name, value, now, step) for name, value in numbers.items()]
        )

    def end(self, *, failed: bool) -> None:
        """Say that the run is over."""
        self._client.set_terminated(self.run, "FAILED" if failed else "FINISHED")

    def close(self) -> None:
        """Let go; there is nothing open."""
