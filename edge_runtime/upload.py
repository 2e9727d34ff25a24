"""A device's upload of a round: every shard that the server does not hold, then the report that closes it."""

from __future__ import annotations

import time

from edge_runtime.listener import DeviceListener
from edge_runtime.machine.pauses import Pauses
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import DeviceState
from gkt_core.errors import ProtocolError, RoundClosedError, RoundError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_shards import shards
from gkt_core.rounds.engine import TrainingEngine
from gkt_core.rounds.shared_extractor import EXTRACTOR_SPLIT
from gkt_core.wire.protocol import MissingShards, RoundReport, Task
from gkt_core.wire.shards import ShardKey

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
    extractor: bytes | None = None,
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
        extractor: The file of the device's extractor, in a round after which these are averaged.

    Returns:
        What to do next.

    Raises:
        RoundClosedError: The round went on without this device.
        ProtocolError: The server does not keep what it is sent.
    """
    round_num, sending = (
        state.trained_round,
        _Sending(server, engine, part, state.trained_round, listener, pauses),
    )
    while True:
        if not held_round:
            sending.send_missing()
        if extractor is not None:
            sending.send_extractor(extractor)
        report = _report(part, state, sending.extract_seconds, held_round)
        listener.note(
            f"round {round_num}: loss {state.loss:.4f}, accuracy {state.accuracy:.3f}, "
            f"{report.images_per_second:.0f} images/s, {server.upload_bytes:,} bytes sent so far"
            + (f", none for this round: the server has those of round {held_round}" if held_round else "")
        )
        try:
            return server.report(part.client_id, round_num, report)
        except RoundClosedError:
            raise
        except RoundError:
            # A shard was damaged or lost there since it was asked for.
            if extractor is not None and sending.may_send_again():
                continue
            if held_round or server.missing_shards(part.client_id, round_num) == _NOTHING:
                raise


class _Sending:
    """Sends shards until the server misses none."""

    def __init__(
        self,
        server: ServerClient,
        engine: TrainingEngine,
        part: ClientPart,
        round_num: int,
        listener: DeviceListener,
        pauses: Pauses,
    ) -> None:
        self._server, self._engine, self._part, self._round_num = server, engine, part, round_num
        self._listener, self._pauses = listener, pauses
        self.extract_seconds = 0.0
        # A server may lose shards; one that asks for the same ones again and again is ended.
        self._left = _MOST_TIMES * (part.num_shards("train") + part.num_shards("validation"))

    def send_missing(self) -> None:
        """Ask what is missing, and send it.

        Raises:
            ProtocolError: The server does not keep what it is sent.
        """
        server, part, round_num, before = self._server, self._part, self._round_num, None
        # Usually once: an answer names at most so many, and a server may have lost some since.
        while (missing := server.missing_shards(part.client_id, round_num)) != _NOTHING:
            if missing == before:
                raise ProtocolError(f"the server still misses {missing} of round {round_num}: they were sent")
            before = missing
            self._left -= len(missing.train) + len(missing.validation)
            if self._left < 0:
                raise ProtocolError(
                    f"the server asked for the shards of round {round_num} more than {_MOST_TIMES} times "
                    "each: look after its disk, then start this device again"
                )
            self._listener.phase("upload", round_num, len(part.data.train) + len(part.data.validation))
            for split, wanted in (("train", missing.train), ("validation", missing.validation)):
                self._send(split, wanted)

    def send_extractor(self, data: bytes) -> None:
        """Send the device's extractor; one that is there already is kept once."""
        key = ShardKey(self._part.client_id, self._round_num, EXTRACTOR_SPLIT, 0)
        self._server.put_shard(key, data, compressed=self._part.config.compress)

    def may_send_again(self) -> bool:
        """Whether there are tries left for what the server lost."""
        self._left -= 1 + self._part.num_shards("train") + self._part.num_shards("validation")
        return self._left >= 0

    def _send(self, split: str, wanted: list[int]) -> None:
        mark = time.perf_counter()
        for shard in shards(self._engine, self._part, self._round_num, split, wanted):
            self.extract_seconds += time.perf_counter() - mark
            self._server.put_shard(shard.key, shard.encode(self._part), compressed=self._part.config.compress)
            self._listener.images(len(shard.labels))
            self._pauses.wait()
            mark = time.perf_counter()


def _report(part: ClientPart, state: DeviceState, extract_seconds: float, held_round: int) -> RoundReport:
    num_images = len(part.data.train) * part.config.local_epochs
    return RoundReport(
        num_train_shards=part.num_shards("train"),
        num_validation_shards=part.num_shards("validation"),
        num_examples=len(part.data.train),
        loss=state.loss,
        accuracy=state.accuracy,
        train_seconds=state.train_seconds,
        extract_seconds=extract_seconds,
        images_per_second=num_images / state.train_seconds if state.train_seconds else 0.0,
        feature_clip=part.noise.clip,
        feature_noise=part.noise.noise,
        label_epsilon=part.noise.label_privacy,
        upload_round=held_round,
    )
