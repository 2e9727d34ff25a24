"""Read what devices said of themselves when they joined, forget what they sent of other samples, or them."""

from __future__ import annotations

import json

import sqlalchemy as sa

from server_app.store import tables
from server_app.store.joining import Identity


def known_identities(connection: sa.Connection, run_id: str) -> list[Identity]:
    """Give the devices of a run."""
    table = tables.identities
    rows = connection.execute(sa.select(table).where(table.c.run_id == run_id))
    return [
        Identity(row.client_id, row.key_sha256, tuple(json.loads(row.class_names)), row.samples_sha256)
        for row in rows
    ]


def forget_key(connection: sa.Connection, run_id: str, client_id: str) -> None:
    """Take the next key that a device of this name says for its own: the one before went with its folder."""
    table = tables.identities
    mine = table.c.run_id == run_id, table.c.client_id == client_id
    connection.execute(sa.update(table).where(*mine).values(key_sha256=""))


def forget_open_parts(connection: sa.Connection, run_id: str, client_id: str) -> list[str]:
    """Forget the shards of the parts that a device has not closed with a report; their blobs."""
    shards, reports = tables.shards, tables.reports
    closed = sa.select(reports.c.round_num).where(
        reports.c.run_id == run_id, reports.c.client_id == client_id
    )
    mine = shards.c.run_id == run_id, shards.c.client_id == client_id, shards.c.round_num.not_in(closed)
    blobs = connection.execute(sa.select(shards.c.blob).where(*mine)).scalars().all()
    connection.execute(sa.delete(shards).where(*mine))
    return list(blobs)


def erase_rows(connection: sa.Connection, run_id: str, client_id: str) -> list[str]:
    """Delete every row that is of one device; the blobs of its shards."""
    shards = tables.shards
    mine = shards.c.run_id == run_id, shards.c.client_id == client_id
    blobs = connection.execute(sa.select(shards.c.blob).where(*mine)).scalars().all()
    of_devices = (
        shards, tables.reports, tables.clients, tables.identities, tables.credentials, tables.enrolments
    )  # fmt: skip
    for table in of_devices:
        connection.execute(sa.delete(table).where(table.c.run_id == run_id, table.c.client_id == client_id))
    rounds, part = tables.rounds, f"part/{client_id}"
    # Of a server without rounds: which of the device's rounds had a part in a step.
    of_run = rounds.c.run_id == run_id, rounds.c.metrics.contains(part, autoescape=True)
    for row in connection.execute(sa.select(rounds.c.round_num, rounds.c.metrics).where(*of_run)).all():
        kept = {name: value for name, value in json.loads(row.metrics).items() if name != part}
        this = sa.update(rounds).where(rounds.c.run_id == run_id, rounds.c.round_num == row.round_num)
        connection.execute(this.values(metrics=json.dumps(kept)))
    return list(blobs)
