"""Bounded staleness (Ho et al., NeurIPS 2013): who may go on, in simulation and on the server alike."""

from __future__ import annotations

from gkt_core.config.run_config import RunConfig
from gkt_core.config.upload_schedule import NEVER
from gkt_core.errors import ConfigError


def may_begin(done: int, slowest: int, *, rounds: int, max_staleness: int) -> bool:
    """Say whether a device with ``done`` rounds behind it may begin another; the slowest has ``slowest``."""
    return done < rounds and done - slowest <= max_staleness


def check_mode(config: RunConfig) -> None:
    """Refuse to draw devices for rounds, to upload in some or share after them, where there are none.

    Raises:
        ConfigError: Mode async with sampling, with a schedule of uploads, or with shared extractors.
    """
    if config.mode == "async" and not config.uploads_every_round:
        raise ConfigError("uploads other than every needs mode sync: without rounds each upload is answered")
    if config.mode == "async" and config.share_extractor != NEVER:
        raise ConfigError(
            "share_extractor other than never needs mode sync: without rounds there is no time to average at"
        )
    if config.mode == "async" and config.client_fraction != 1:
        raise ConfigError(
            "client_fraction below 1 needs mode sync: without rounds there is nothing to draw devices for"
        )
