"""FedGKT in simulation with the server's watch over what devices send, one of which may poison it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gkt_core.algorithms.base import RoundResult
from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.server_round import evaluate
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.config.run_config import RunConfig
from gkt_core.networks import reach_of
from gkt_core.wire.feature_noise import FeatureNoise
from profiling.server.poisoning.attacks import PoisonedUploads
from server_app.quarantine import Watch
from server_app.store import BlobStore


class WatchedFedGKT(FedGKT):
    """FedGKT with an attacker among the devices and the server's watch over their uploads.

    Attributes:
        attack: What the attacker does, from the next round on.
        attacker: The device that poisons what it sends; empty for nobody.
        quarantined: Reason and round of each device that was quarantined.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        attack: str,
        attacker: str,
        folder: Path,
        **options: Any,
    ) -> None:
        super().__init__(federation, config, **options)
        self.attack, self.attacker = attack, attacker
        self._watch = Watch(
            BlobStore(folder),
            config,
            federation.num_classes,
            federation.image_size,
            reach_of(self._edge_network),
        )
        self._answered: dict[str, int] = {}
        self.quarantined: dict[str, tuple[int, str]] = {}

    def run_round(
        self, round_num: int, learning_rate_scale: float, on_samples: Callable[[str, int], None]
    ) -> RoundResult:
        """A round of those devices that are not quarantined, as the server's trainer does it."""
        uploads = self.run_devices(round_num, learning_rate_scale, on_samples)
        source = uploads.source("train")
        loss = self._train(source, round_num, learning_rate_scale, on_samples)
        result = evaluate(self._server, uploads.source("validation"))
        return RoundResult(loss, result.loss, result.accuracy, uploads.num_bytes, 0)

    def run_devices(
        self, round_num: int, learning_rate_scale: float, on_samples: Callable[[str, int], None]
    ) -> PoisonedUploads:
        """The devices' half of a round, and the watch's: what is left to train on."""
        chosen = [client_id for client_id in self._clients if client_id not in self.quarantined]
        uploads = self._collected(chosen, round_num, learning_rate_scale, on_samples)
        if self._config.quarantine:
            rounds = dict.fromkeys(chosen, round_num)
            reasons = self._watch.check(
                uploads.source("train"),
                uploads.source("validation"),
                rounds=rounds,
                answered=self._answered,
                trusted=(),
            )
            self.quarantined |= {client_id: (round_num, reason) for client_id, reason in reasons.items()}
            uploads.forget(frozenset(reasons))
            self._watch.tidy(rounds, self._answered)
            chosen = [client_id for client_id in chosen if client_id not in reasons]
        self._answered |= dict.fromkeys(chosen, round_num)
        return uploads

    def _collected(
        self, chosen: list[str], round_num: int, scale: float, on_samples: Callable[[str, int], None]
    ) -> PoisonedUploads:
        uploads = PoisonedUploads(self._spec, self._config, None, attack=self.attack, attacker=self.attacker)
        for client_id in chosen:
            self._clients[client_id].train(round_num, scale, lambda num: on_samples("devices", num))
            self._clients[client_id].upload(round_num, uploads)
        return uploads

    def blur(self, client_id: str, noise: FeatureNoise) -> None:
        """Let one device put noise on its features."""
        client = self._clients[client_id]
        client.part = replace(client.part, noise=noise)

    def quarantined_rounds(self) -> dict[str, dict[str, Any]]:
        """``round_num`` and ``reason`` of each quarantined device, for a document."""
        return {
            client_id: {"round_num": round_num, "reason": reason}
            for client_id, (round_num, reason) in sorted(self.quarantined.items())
        }
