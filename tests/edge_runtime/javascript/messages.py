"""The messages that a device reads and writes, as an OpenAPI document of their own for TypeScript."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import LONGEST_SECONDS, ROOT

PACKAGE = ROOT / "edge_runtime" / "javascript"
TYPES = PACKAGE / "src" / "wire" / "openapi.ts"

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


def write_types(document: dict[str, Any], out: Path) -> None:
    """Let openapi-typescript make the types of a device's messages.

    Args:
        document: The server's.
        out: The file.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "device.json"
        source.write_text(json.dumps(device_document(document)))
        generator = PACKAGE / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
        command = ["node", str(generator), str(source), "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS, cwd=PACKAGE)


def main() -> None:
    """Write the types as they are committed, of a server with a bundle that is made for it."""
    from edge_export import ExportOptions, export_bundle  # noqa: PLC0415 - with torch
    from server_app import create_app, create_run  # noqa: PLC0415
    from server_app.web.openapi import openapi_document  # noqa: PLC0415
    from tests.server_app.server_fixtures import TOKEN, run_config  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder) / "artifacts"
        export_bundle(ExportOptions(image_size=8, num_classes=3), artifacts, verify="none")
        run = create_run(Path(folder) / "run", artifacts, run_config(), TOKEN)
        write_types(openapi_document(create_app(run, TOKEN)), TYPES)
        run.store.close()


if __name__ == "__main__":
    main()
