"""Read what devices said of themselves when they joined, forget what they sent of other samples, or them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

import sqlalchemy as sa

from server_app.store import tables
from server_app.store.joining import Identity, same_samples

_logger = logging.getLogger("gkt.server")


def known_identities(connection: sa.Connection, run_id: str) -> list[Identity]:
    """Give the devices of a run."""
    table = tables.identities
    rows = connection.execute(sa.select(table).where(table.c.run_id == run_id))
    return [
        Identity(row.client_id, row.key_sha256, tuple(json.loads(row.class_names)), row.samples_sha256)
        for row in rows
    ]


def twins_of(known: Iterable[Identity]) -> dict[str, str]:
    """Pair devices that said the very same samples, by name; of three, each with the first of the others."""
    alike: dict[str, list[str]] = {}
    for each in sorted(known, key=lambda one: one.client_id):
        if each.samples_sha256:
            alike.setdefault(each.samples_sha256, []).append(each.client_id)
    return {
        name: next(other for other in names if other != name)
        for names in alike.values()
        if len(names) > 1
        for name in names
    }


def say_twin(joining: Identity, known: Iterable[Identity]) -> None:
    """Log that a device joins with the very samples of another one; once, not at each of its starts."""
    if joining in known:
        return
    others = [each for each in known if each.client_id != joining.client_id]
    if twin := twins_of([*others, joining]).get(joining.client_id):
        _logger.warning("%s", same_samples(joining.client_id, twin))


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
