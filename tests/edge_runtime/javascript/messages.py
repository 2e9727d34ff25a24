"""The messages that a device reads and writes, as an OpenAPI document of their own for TypeScript."""

from __future__ import annotations

import re
from typing import Any

# What of the server's document the TypeScript client types: no operator's messages, no status.
DEVICE_MESSAGES = (
    "Enrolled",
    "ErrorBody",
    "JoinRequest",
    "MissingShards",
    "NewCredential",
    "RoundReport",
    "RunInfo",
    "RunList",
    "ShardReceipt",
    "Task",
)


def device_document(document: dict[str, Any]) -> dict[str, Any]:
    """Cut the server's document down to the schemas of a device, and what those refer to."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    waiting, wanted = list(DEVICE_MESSAGES), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += re.findall(r"#/components/schemas/(\w+)", str(schemas[name]))
    return {
        "openapi": document["openapi"],
        "info": document["info"],
        "paths": {},
        "components": {"schemas": {name: schemas[name] for name in sorted(wanted)}},
    }
