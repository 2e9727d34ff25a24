"""``gkt enroll``: links with which devices join a run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.errors import ConfigError, needs
from server_app.cli.options import EnrollOptions, LinkOptions, ReenrolOptions

if TYPE_CHECKING:
    from gkt_core.wire.join_link import JoinLink
    from server_app.run_folder import RunContext


@click.command(cls=Command, example="gkt enroll --data-dir run --devices 3")
@dataclass_options(EnrollOptions)
@json_option("the links as JSON")
def enroll(options: EnrollOptions, as_json: bool) -> None:
    """Make links with which devices join a run.

    Each is for one device and used once; who has it may become a device of the run. Works beside the running
    server.
    """
    with needs("server"):
        from server_app.run_folder import open_run  # noqa: PLC0415 - imports an extra
        from server_app.storage_errors import storage_named  # noqa: PLC0415 - imports an extra
    with storage_named():
        run = open_run(options.data_dir)
        with contextlib.closing(run.store):
            links = [link.text() for link in make_links(run, options, options.devices)]
    if as_json:
        emit_json({"run_id": run.store.run_id, "join": links})
    else:
        click.echo("\n".join(links))


def make_links(
    run: RunContext, options: LinkOptions | ReenrolOptions, num: int, client_id: str = ""
) -> list[JoinLink]:
    """Make links of a run that is served now, or whose server's URL is given.

    Args:
        run: The run.
        options: How long they hold, and where devices find the server.
        num: How many.
        client_id: The only device that they are for; empty for new ones.

    Raises:
        InputError: Nobody knows where the server is, or there is no such device.
    """
    from gkt_core.wire.credentials import EnrolmentRequest  # noqa: PLC0415
    from server_app.members.inviting import kept_link  # noqa: PLC0415 - imports an extra
    from server_app.members.membership import join_links, open_enrolments  # noqa: PLC0415

    printed = kept_link(run.folder)
    url = options.public_url or (printed.url if printed else "")
    if not url:
        raise ConfigError(f"{run.folder} was never served: start gkt serve, or give --public-url")
    authority = run.folder / "authority.pem"
    # Of a server that was given a certificate, or serves plain http, by now.
    is_own = url.startswith("https:") and authority.exists() and (printed is None or bool(printed.ca_sha256))
    wanted = EnrolmentRequest(num, options.hours * 3600, client_id)
    return join_links(url, open_enrolments(run, wanted, authority.read_bytes() if is_own else b""))
