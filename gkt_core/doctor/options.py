"""Options of ``gkt doctor``: what to look at beside what is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import CheckedOptions, option

SERVER, DEVICE = "A server", "A device"
SERVE_PORT = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions(CheckedOptions):
    """Options of ``gkt doctor``.

    Attributes:
        artifacts: Bundle of gkt export: whether it is whole, what here can run it, memory that it needs.
        data_dir: Folder of a run of gkt serve: its bundle, database, certificate, secrets, disk, memory.
        host: Address that gkt serve is to listen on.
        port: Port that gkt serve is to listen on.
        public_url: URL at which devices are to find the server: whether the certificate is good for it.
        tls_cert: Certificate chain (PEM) that gkt serve is to show.
        tls_key: Private key of --tls-cert (PEM).
        database: PostgreSQL that gkt serve is to keep a run's state in.
        join: The link into a run that gkt serve prints, or a file that holds it; nothing of it is used up.
        server: URL of a server, where there is no link.
        ca_file: Certificates (PEM) to trust there.
        state_dir: Folder of a device, as for gkt edge run: its bundle, disk and memory.
    """

    artifacts: Path | None = None
    data_dir: Path | None = option(None, group=SERVER)
    host: str = option("127.0.0.1", group=SERVER)
    port: int | None = option(None, low=1, high=65535, shown_default=str(SERVE_PORT), group=SERVER)
    public_url: str | None = option(None, group=SERVER)
    tls_cert: Path | None = option(None, group=SERVER)
    tls_key: Path | None = option(None, group=SERVER)
    database: str | None = option(None, envvar="GKT_DATABASE", group=SERVER)
    join: str | None = option(None, envvar="GKT_JOIN", metavar="LINK|FILE", group=DEVICE)
    server: str | None = option(None, group=DEVICE)
    ca_file: Path | None = option(None, group=DEVICE)
    state_dir: Path | None = option(None, group=DEVICE)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders in which something is kept."""
        return tuple(folder for folder in (self.data_dir, self.state_dir) if folder is not None)

    @property
    def bundles(self) -> tuple[Path, ...]:
        """Folders that hold a bundle, or should."""
        places = (
            self.artifacts,
            None if self.data_dir is None else self.data_dir / "artifacts",
            None if self.state_dir is None else self.state_dir / "bundle",
        )
        return tuple(place for place in places if place is not None)
