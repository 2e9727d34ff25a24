"""Judge the extractors that devices send to be averaged, before they are kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RoundError, ShardError
from gkt_core.rounds.shared_extractor import EXTRACTOR_SPLIT, ExtractorSpec, read_extractor
from gkt_core.wire.shards import ShardKey
from server_app.run_folder import RunContext
from server_app.store import ShardRecord
from server_app.web.receiving import Received


def check_shared(config: RunConfig, round_num: int, index: int) -> None:
    """Refuse an extractor that nobody asked for.

    Raises:
        ShardError: They are not averaged after this round, or it is not the first.
    """
    if not config.shares_after(round_num) or index:
        raise ShardError(
            f"extractor {index} of round {round_num}: this run averages extractors after rounds "
            f"{config.share_extractor!r}, one of each device, number 0"
        )


def checked_extractor(arrived: Received, path: Path, key: ShardKey, spec: ExtractorSpec) -> None:
    """Check every value of an extractor that has arrived.

    Raises:
        ShardError: It is none of this run's.
    """
    if arrived.error is not None:
        raise arrived.error
    read_extractor(path.read_bytes(), spec, key.client_id, key.round_num)


def check_extractor_arrived(
    run: RunContext, stored: Iterable[ShardRecord], client_id: str, round_num: int
) -> None:
    """Refuse to close a part whose extractor is to be averaged, and is not there.

    Raises:
        RoundError: It has not arrived.
    """
    is_there = any(shard.key.split == EXTRACTOR_SPLIT for shard in stored)
    if run.config.shares_after(round_num) and not is_there:
        raise RoundError(
            f"{client_id}: its extractor of round {round_num}, which the server averages, has not arrived"
        )
