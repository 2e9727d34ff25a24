"""Paths of the wire, once for those who call, those who answer and those who count.

Parts that vary stand as ``<name>`` or, for whole numbers, ``<int:name>``, which is how Flask reads them. What
follows :data:`RUN` stands behind it. Messages and bodies: :mod:`gkt_core.wire.protocol`.
"""

from __future__ import annotations

import re

HEALTH = "/v1/health"
LIVE = "/v1/health/live"
HEALTHZ = "/healthz"
READYZ = "/readyz"
METRICS = "/metrics"
OPENAPI = "/v1/openapi.json"
DOCS = "/docs"
PAGE = "/"
PAGE_SCRIPT = "/page/scripts/<script>"
PAGE_STYLE = "/page/styles/<style>"
PAGE_ICON = "/page/icons/<icon>"
PAGE_VIEW = "/v1/page"
JOIN_PAGE = "/join"
JOIN_FILE = "/join/<file>"
INFER = "/v1/infer"
AUTHORITY = "/v1/authority"
RUNS = "/v1/runs"
RUN = f"{RUNS}/<run_id>"

STATUS = "/status"
ROUNDS = "/rounds"
ARTIFACT = "/artifacts/<name>"
MODEL = "/model/<part>"
CLIENT = "/clients/<client_id>"
TASK = f"{CLIENT}/task"
CREDENTIAL = f"{CLIENT}/credential"
ENROLMENTS = "/operator/enrolments"
CLIENTS = "/operator/clients"
OVERVIEW = "/operator/overview"
RUN_ACTION = "/operator/run/<change>"
CLIENT_ACTION = f"/operator{CLIENT}/<action>"
SHARDS = f"/rounds/<int:round_num>{CLIENT}/shards"
SHARD = f"{SHARDS}/<split>/<int:index>"
REPORT = f"/rounds/<int:round_num>{CLIENT}/report"
EXTRACTOR = "/rounds/<int:round_num>/extractor"
SOFT_LABELS = f"/rounds/<int:round_num>{CLIENT}/soft-labels"

_PART = re.compile(r"<(int:)?(\w+)>")


def fill(path: str, **parts: str | int) -> str:
    """Give the parts of a path their values.

    Raises:
        KeyError: A part has none.
    """
    return _PART.sub(lambda part: str(parts[part[2]]), path)


def matcher(path: str) -> re.Pattern[str]:
    """Make an expression that finds this path at the end of a URL's, whatever its parts are."""
    return re.compile(_PART.sub(lambda part: r"\d+" if part[1] else "[^/]+", path) + "$")
