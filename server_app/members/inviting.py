"""Make the link that ``gkt serve`` prints, and keep it with the run: started again, it prints it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gkt_core.errors import ConfigError
from gkt_core.wire.credentials import DEVICE, Bearer, new_secret, secret_sha256
from gkt_core.wire.join_link import JOIN_NAME, JoinLink, read_join_link
from server_app.members.membership import authority_sha256, bundle_sha256
from server_app.run_folder import RunContext, write_secret

# Long enough to carry it to the last device, and short enough to be forgotten.
LINK_SECONDS = 7 * 86_400.0


def serve_link(run: RunContext, url: str, authority: bytes = b"") -> JoinLink:
    """Give the run's link, which lets as many devices in as the run has.

    Its uses never grow when a device leaves: whoever was revoked knows the link.

    Args:
        run: The run.
        url: At which devices find the server.
        authority: Certificate (PEM) of the server's own authority; empty where it has none.
    """
    state, credentials = run.store.state(), run.store.credentials
    before = kept_link(run.folder)
    if before is not None and credentials.raise_uses(before.enrolment, state.num_clients):
        number, secret = before.enrolment, before.secret
    else:
        known = {name for name, each in credentials.devices().items() if not each.revoked}
        bearer = credentials.open_enrolment(LINK_SECONDS, max(1, state.num_clients - len(known)))
        number, secret = bearer.name, bearer.secret
    link = JoinLink(url, number, secret, bundle_sha256(run), authority_sha256(authority))
    if before is None or link.text() != before.text():
        write_secret(run.folder / JOIN_NAME, link.text())
    return link


def enrolled(run: RunContext, client_id: str) -> str:
    """Enrol a device here, without a link on its way, and give what it shows from then on."""
    secret, link = new_secret(), run.store.credentials.open_enrolment(LINK_SECONDS)
    run.store.credentials.enrol(link, client_id, secret_sha256(secret), "")
    return Bearer(DEVICE, client_id, secret).text()


def kept_link(folder: Path) -> JoinLink | None:
    """The link that the server of a run printed; None where it has none, or nothing that could be one."""
    try:
        return read_join_link((folder / JOIN_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeError, ConfigError):
        return None


def moved_link(folder: Path, url: str) -> str:
    """That link for a server that is reached at another address, through a relay.

    Raises:
        ConfigError: The run has none.
    """
    link = kept_link(folder)
    if link is None:
        raise ConfigError(f"{folder} holds no join link: start gkt serve")
    return dataclasses.replace(link, url=url).text()
