"""Keep who may speak for a device, and who may become one: hashes of secrets, never a secret."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gkt_core.errors import AuthenticationError, ForbiddenError, InputError, RoundError
from gkt_core.wire.credentials import Bearer, is_secret, new_secret, secret_sha256
from server_app.remembered import Remembered, Revision
from server_app.store import tables
from server_app.store.engine import write_transaction
from server_app.store.identities import forget_key, forget_open_parts, known_identities, twins_of
from server_app.store.joining import check_key
from server_app.store.prepared import PreparedStatement, driver_cursor

_ASK = "ask whoever runs the server for another link (gkt enroll)"
_NUMBER_BYTES = 6


@dataclass(frozen=True, slots=True)
class Credential:
    """By what a device is known.

    Attributes:
        secret_sha256: Of its secret; empty where it was ended, and the device may enrol again.
        revoked: Whether it is ended for good.
        rotates: Whether the device is to draw another one.
    """

    secret_sha256: str
    revoked: bool = False
    rotates: bool = False

    def fits(self, secret: str) -> bool:
        """Say whether this is the secret, and still holds."""
        return is_secret(secret, self.secret_sha256) and not self.revoked


class CredentialStore:
    """Credentials and enrolments of one run. Every method is one transaction.

    Args:
        engine: The database.
        run_id: Which run.
        insert: The ``insert`` of its dialect, which knows ON CONFLICT.
        revision: Of the database.
    """

    def __init__(self, engine: sa.Engine, run_id: str, insert: Any, revision: Revision) -> None:
        self._engine, self._run_id, self._insert = engine, run_id, insert
        known = tables.credentials.c
        query = sa.select(known.secret_sha256, known.revoked, known.rotates).where(
            known.run_id == run_id, known.client_id == sa.bindparam("client_id")
        )
        self._find = PreparedStatement(engine, query)
        # Every request begins with it.
        self._known = Remembered(revision, self._read)
        everybody = sa.select(known.client_id, known.secret_sha256, known.revoked, known.rotates)
        self._select_all = PreparedStatement(engine, everybody.where(known.run_id == run_id))
        self._last_rows: list[Any] = []
        self._last_all: dict[str, Credential] = {}
        self._all = Remembered(revision, lambda _: self._read_all())

    def find(self, client_id: str) -> Credential | None:
        """By what a device is known; None where it never enrolled. What has ended is known at once."""
        return self._known.get(client_id)

    def _read(self, client_id: str) -> Credential | None:
        with driver_cursor(self._engine, writes=False) as cursor:
            self._find.execute(cursor, {"client_id": client_id})
            row = cursor.fetchone()
        return None if row is None else Credential(row[0], bool(row[1]), bool(row[2]))

    def all(self) -> Mapping[str, Credential]:
        """By what each device is known that has enrolled; the very object of before where it is the same."""
        return self._all.get("") or {}

    def _read_all(self) -> dict[str, Credential]:
        with driver_cursor(self._engine, writes=False) as cursor:
            self._select_all.execute(cursor, {})
            rows = cursor.fetchall()
        if rows != self._last_rows:
            found = {row[0]: Credential(row[1], bool(row[2]), bool(row[3])) for row in rows}
            self._last_rows, self._last_all = rows, found
        return self._last_all

    def devices(self) -> dict[str, Credential]:
        """All that have enrolled, by name."""
        table = tables.credentials
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(table).where(table.c.run_id == self._run_id)).all()
        known = {row.client_id: Credential(row.secret_sha256, row.revoked, row.rotates) for row in rows}
        return dict(sorted(known.items()))

    def open_enrolment(self, seconds: float, uses: int = 1, client_id: str = "") -> Bearer:
        """Draw a token that lets devices enrol, and keep its hash.

        Args:
            seconds: How long it holds.
            uses: How many devices it is for.
            client_id: The only device that it is for; empty for new ones.
        """
        number, secret = secrets.token_hex(_NUMBER_BYTES), new_secret()
        values = {
            "run_id": self._run_id,
            "enrolment": number,
            "token_sha256": secret_sha256(secret),
            "client_id": client_id,
            "uses": uses,
            "used": 0,
            "expires_at": time.time() + seconds,
        }
        with write_transaction(self._engine) as connection:
            connection.execute(sa.insert(tables.enrolments).values(values))
        return Bearer("enroll", number, secret)

    def raise_uses(self, number: str, uses: int) -> bool:
        """Let a token be used so often in all, if it holds still, and say whether it does."""
        table = tables.enrolments
        mine = table.c.run_id == self._run_id, table.c.enrolment == number, table.c.expires_at > time.time()
        with self._engine.begin() as connection:
            before = connection.execute(sa.select(table.c.uses).where(*mine)).scalar()
        if before is None or before >= uses:
            # Nothing to write: an orphaned trainer may hold the database until the next one ends it.
            return before is not None
        with write_transaction(self._engine) as connection:
            connection.execute(sa.update(table).where(*mine, table.c.uses < uses).values(uses=uses))
        return True

    def check_enrolment(self, bearer: Bearer) -> None:
        """Refuse a token that was never given out here, or holds no more.

        Raises:
            AuthenticationError: Says which.
        """
        with self._engine.begin() as connection:
            self._enrolment(connection, bearer)

    def _enrolment(self, connection: sa.Connection, bearer: Bearer, *, locks: bool = False) -> Any:
        table = tables.enrolments
        query = sa.select(table).where(table.c.run_id == self._run_id, table.c.enrolment == bearer.name)
        row = connection.execute(query.with_for_update() if locks else query).one_or_none()
        if row is None or not is_secret(bearer.secret, row.token_sha256):
            raise AuthenticationError(f"the link's token is none of this run: {_ASK}")
        if row.expires_at <= time.time():
            raise AuthenticationError(f"the link has expired: {_ASK}")
        return row

    def enrol(self, bearer: Bearer, client_id: str, sha256: str, key_sha256: str) -> list[str]:
        """Let a device be known by a secret, and count its token as used; repeating it changes nothing.

        Args:
            bearer: The token.
            client_id: The device.
            sha256: Of the secret that it has drawn.
            key_sha256: Of its key, as in :class:`server_app.store.joining.Identity`.

        Returns:
            Blobs that nobody needs any more.

        Raises:
            AuthenticationError: The token does not hold, or is used up.
            ForbiddenError: It is for another device, or this one was revoked.
            RoundError: The name is another device's.
        """
        with write_transaction(self._engine) as connection:
            row = self._enrolment(connection, bearer, locks=True)
            if row.client_id not in ("", client_id):
                raise ForbiddenError(
                    f"the link is for {row.client_id} alone, not for {client_id}: give --client-id "
                    f"{row.client_id}"
                )
            known = self._of(connection, client_id)
            if known is not None and known.revoked:
                raise ForbiddenError(f"{client_id} was revoked and cannot enrol again")
            if known is not None and hmac.compare_digest(known.secret_sha256, sha256):
                return []
            if not row.client_id:
                self._check_free(connection, client_id, known, key_sha256)
            if row.used >= row.uses:
                raise AuthenticationError(f"all {row.uses} uses of the link are spent: {_ASK}")
            self._put(connection, client_id, Credential(sha256))
            used = sa.update(tables.enrolments).where(
                tables.enrolments.c.run_id == self._run_id, tables.enrolments.c.enrolment == bearer.name
            )
            connection.execute(used.values(used=row.used + 1))
            if not row.client_id:
                return []
            # Its folder is lost: what it sent of an open round was made with weights that are gone.
            forget_key(connection, self._run_id, client_id)
            return forget_open_parts(connection, self._run_id, client_id)

    def _check_free(
        self, connection: sa.Connection, client_id: str, known: Credential | None, key_sha256: str
    ) -> None:
        if known is not None:
            raise RoundError(
                f"the name {client_id} belongs to another device of this run: give another --client-id; if "
                "it is this one, whose state folder is lost, gkt clients re-enroll makes a link for it"
            )
        for identity in known_identities(connection, self._run_id):
            if identity.client_id == client_id:
                check_key(identity, key_sha256)

    def twins(self) -> dict[str, str]:
        """Pair devices that said the very same samples; see :func:`server_app.store.identities.twins_of`."""
        with self._engine.connect() as connection:
            return twins_of(known_identities(connection, self._run_id))

    def replace(self, client_id: str, secret: str, sha256: str) -> None:
        """Let a device be known by another secret; repeating it with the new one changes nothing.

        Raises:
            AuthenticationError: The secret that it shows is not its own any more.
        """
        with write_transaction(self._engine) as connection:
            known = self._of(connection, client_id)
            if known is None or not known.fits(secret):
                raise AuthenticationError(f"the secret of {client_id} is not its own any more: {_ASK}")
            self._put(connection, client_id, Credential(sha256))

    def ask_rotation(self, client_id: str) -> None:
        """Ask a device to draw another secret, with its next request.

        Raises:
            InputError: It has none.
        """
        with write_transaction(self._engine) as connection:
            known = self._of(connection, client_id)
            if known is None or not known.secret_sha256 or known.revoked:
                raise InputError(
                    f"{client_id} has no secret that could be replaced: gkt clients list shows who has"
                )
            self._put(connection, client_id, Credential(known.secret_sha256, rotates=True))

    def end(self, client_id: str, *, revoked: bool) -> None:
        """End what a device is known by, from this moment on, and the links for it alone.

        Args:
            client_id: The device.
            revoked: Whether for good; else it may enrol again.
        """
        table = tables.enrolments
        with write_transaction(self._engine) as connection:
            connection.execute(
                sa.delete(table).where(table.c.run_id == self._run_id, table.c.client_id == client_id)
            )
            self._put(connection, client_id, Credential("", revoked=revoked))

    def _of(self, connection: sa.Connection, client_id: str) -> Credential | None:
        table = tables.credentials
        query = sa.select(table).where(table.c.run_id == self._run_id, table.c.client_id == client_id)
        row = connection.execute(query.with_for_update()).one_or_none()
        return None if row is None else Credential(row.secret_sha256, row.revoked, row.rotates)

    def _put(self, connection: sa.Connection, client_id: str, credential: Credential) -> None:
        said = {
            "secret_sha256": credential.secret_sha256,
            "revoked": credential.revoked,
            "rotates": credential.rotates,
        }
        key = {"run_id": self._run_id, "client_id": client_id}
        insert = self._insert(tables.credentials).values({**key, **said})
        connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=said))
