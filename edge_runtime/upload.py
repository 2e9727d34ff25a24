"""A device's upload of a round: every shard that the server does not hold, then the report that closes it."""

from __future__ import annotations

import time

from edge_runtime.listener import DeviceListener
from edge_runtime.machine.pauses import Pauses
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import DeviceState
from gkt_core.errors import ProtocolError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_shards import shards
from gkt_core.rounds.engine import TrainingEngine
from gkt_core.wire.protocol import MissingShards, RoundReport, Task

# That all shards of a round are sent, if a server says that it lost them.
_MOST_TIMES = 10
_NOTHING = MissingShards([], [])


def upload(
    server: ServerClient,
    engine: TrainingEngine,
    part: ClientPart,
    state: DeviceState,
    *,
    listener: DeviceListener,
    pauses: Pauses,
    held_round: int = 0,
) -> Task:
    """Send what the network of the last trained round makes of the data (lines 22 to 30 of Algorithm 1).

    Args:
        server: The wire.
        engine: Trained in that round.
        part: The device's part in the run.
        state: Which round that was, and how its training went.
        listener: Hears of each shard.
        pauses: When to wait between two shards.
        held_round: The round of an upload that the server is to train on again; 0 for a new one.

    Returns:
        What to do next.

    Raises:
        RoundClosedError: The round went on without this device.
        ProtocolError: The server does not keep what it is sent.
    """
    round_num, data = state.trained_round, part.data
    extract_seconds, before = 0.0, None
    # A server may lose shards; one that asks for the same ones again and again is ended.
    left = _MOST_TIMES * (part.num_shards("train") + part.num_shards("validation"))
    # Usually once: an answer names at most so many, and a server may have lost some since.
    while not held_round and (missing := server.missing_shards(part.client_id, round_num)) != _NOTHING:
        if missing == before:
            raise ProtocolError(f"the server still misses {missing} of round {round_num}: they were sent")
        before = missing
        left -= len(missing.train) + len(missing.validation)
        if left < 0:
            raise ProtocolError(
                f"the server asked for the shards of round {round_num} more than {_MOST_TIMES} times each: "
                "look after its disk, then start this device again"
            )
        listener.phase("upload", round_num, len(data.train) + len(data.validation))
        for split, wanted in (("train", missing.train), ("validation", missing.validation)):
            mark = time.perf_counter()
            for shard in shards(engine, part, round_num, split, wanted):
                extract_seconds += time.perf_counter() - mark
                server.put_shard(shard.key, shard.encode(part), compressed=part.config.compress)
                listener.images(len(shard.labels))
                pauses.wait()
                mark = time.perf_counter()
    num_images = len(data.train) * part.config.local_epochs
    report = RoundReport(
        num_train_shards=part.num_shards("train"),
        num_validation_shards=part.num_shards("validation"),
        num_examples=len(data.train),
        loss=state.loss,
        accuracy=state.accuracy,
        train_seconds=state.train_seconds,
        extract_seconds=extract_seconds,
        images_per_second=num_images / state.train_seconds if state.train_seconds else 0.0,
        feature_clip=part.noise.clip,
        feature_noise=part.noise.noise,
        upload_round=held_round,
    )
    listener.note(
        f"round {round_num}: loss {state.loss:.4f}, accuracy {state.accuracy:.3f}, "
        f"{report.images_per_second:.0f} images/s, {server.upload_bytes:,} bytes sent so far"
        + (f", none for this round: the server has those of round {held_round}" if held_round else "")
    )
    return server.report(part.client_id, round_num, report)
