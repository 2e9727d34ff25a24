"""Training on one device's data alone, to compare with: what a device would have without the others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.engines.base import open_engine
from edge_runtime.evaluation import accuracy_of
from gkt_core.bundle.manifest import Bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.errors import DatasetError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_update

# More than a network of this size has ever taken here, so that one whose accuracy creeps up ends too.
MOST_ROUNDS = 400


@dataclass(frozen=True, slots=True)
class Alone:
    """What a device's own network reaches.

    Attributes:
        accuracy: Top-1 accuracy (0..1) on the test images.
        num_examples: Test images.
        num_rounds: Rounds of local epochs after which it was tested.
        validation_accuracy: Then, on the device's validation images.
        trained_rounds: Rounds that were trained in all; the last of them brought nothing.
    """

    accuracy: float
    num_examples: int
    num_rounds: int
    validation_accuracy: float
    trained_rounds: int


def train_alone(
    bundle: Bundle,
    data: PrivateData,
    test: Samples,
    config: RunConfig,
    *,
    client_id: str,
    num_threads: int,
    rounds: int | None = None,
    patience: int = 20,
    on_round: Callable[[int, float], None] = lambda round_num, accuracy: None,
) -> Alone:
    """Train the edge network on one device's data alone.

    It sees the same views in the same order as in a run of this config, without a teacher. Without a number
    of rounds it trains at a constant learning rate until its validation accuracy has not risen for
    ``patience`` rounds, and is tested as it was at its best.

    Args:
        bundle: The artifacts.
        data: The device's data.
        test: Where the accuracy is measured.
        config: Hyper-parameters.
        client_id: The device, for its views.
        num_threads: CPU threads.
        rounds: Exactly so many rounds of local epochs, with the config's schedule; the last is tested.
        patience: Rounds without a better validation accuracy, then the end.
        on_round: Hears of each round and the validation accuracy after it.

    Raises:
        DatasetError: The test set has other images than the artifacts.
    """
    if test.images.shape[1] != bundle.manifest.image_size:
        raise DatasetError(
            f"the test set has images of {test.images.shape[1]} px, "
            f"the artifacts take {bundle.manifest.image_size} px"
        )
    if rounds is None:
        if not len(data.validation):
            raise DatasetError(f"{client_id} has no validation images to train until: give --rounds")
        config = replace(config, lr_schedule="constant", lr_warmup=0.0)
    part = ClientPart(client_id, data, config, bundle.manifest.num_classes)
    engine = open_engine(bundle, checkpoint=None, num_threads=num_threads, learning_rate=config.edge_lr)
    who = f"{client_id}'s network"

    def validated() -> float:
        if not len(data.validation):
            return 0.0
        return accuracy_of(data.validation, lambda images: engine.predict(images)[1], who).accuracy

    with tempfile.TemporaryDirectory(prefix="gkt-alone-") as folder:
        kept, best, best_round, round_num = Path(folder) / "best", -1.0, 0, 0
        while round_num < (MOST_ROUNDS if rounds is None else rounds):
            round_num += 1
            client_update(engine, part, None, round_num)
            accuracy = validated()
            on_round(round_num, accuracy)
            if rounds is not None or accuracy > best:
                best, best_round = accuracy, round_num
                if rounds is None:
                    engine.save(kept)
            elif round_num - best_round >= patience:
                break
        if rounds is None:
            engine = open_engine(
                bundle, checkpoint=kept, num_threads=num_threads, learning_rate=config.edge_lr
            )
        tested = accuracy_of(test, lambda images: engine.predict(images)[1], who)
    return Alone(tested.accuracy, tested.num_examples, best_round, best, round_num)
