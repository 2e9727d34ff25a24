"""What all algorithms share: their interface, supervised training, evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms.simulation.federation import Federation, evaluation_batches
from gkt_core.algorithms.simulation.saving import NO_SAVES, Place, Saves
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import Samples
from gkt_core.errors import GKTError
from gkt_core.nn.building import CombinedNetwork, build_combined_network
from gkt_core.nn.compiling import NOT_COMPILED, Compiler
from gkt_core.nn.execution import training_precision
from gkt_core.nn.optimizers import set_learning_rate
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.weights import num_wire_bytes

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# Hears of a phase and of so many samples just trained on.
OnSamples = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One round of any algorithm.

    Attributes:
        train_loss: Mean training loss of the round's last epoch.
        validation_loss: Cross entropy on the devices' validation samples.
        validation_accuracy: Accuracy of the final model, as it is now, on them, 0..1.
        upload_bytes: What all devices sent in this round.
        download_bytes: What all devices received in this round.
        details: Further numbers that only this algorithm has, by name.
    """

    train_loss: float
    validation_loss: float
    validation_accuracy: float
    upload_bytes: int
    download_bytes: int
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean cross entropy and accuracy (0..1) on samples that were not trained on.

    ``confusion`` is ``[C, C] int64``, rows the true classes; None where it was not asked for.
    """

    loss: float
    accuracy: float
    confusion: NDArray[np.int64] | None = None


class Networks(TypedDict):
    """The two networks that every algorithm is about, and where they live; see :class:`Algorithm`."""

    edge_network: str
    server_network: str
    device: torch.device


class Algorithm(ABC):
    """A way to train over devices, a round at a time, resumable between rounds and within one.

    Args:
        federation: The devices' data.
        config: Hyper-parameters.
        edge_network: ``resnet8`` and so on; its extractor is the beginning of the large network.
        server_network: What completes it: ``resnet55`` makes ResNet-56.
        device: Where networks live.

    Attributes:
        saves: Is told of each place within a round that can be gone on from.
        compiler: Of the one large network that is trained on the server.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        edge_network: str,
        server_network: str,
        device: torch.device,
    ) -> None:
        self._federation, self._config = federation, config
        self._edge_network, self._server_network, self._device = edge_network, server_network, device
        self.saves: Saves = NO_SAVES
        self.compiler = NOT_COMPILED
        self._place = Place()

    @abstractmethod
    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Run a round, counted from 1; the learning rates of the config are multiplied with the scale.

        The first one after :meth:`go_on` is the rest of the round that was left.
        """

    @abstractmethod
    def models(self) -> Mapping[str, nn.Module]:
        """Give the final models by owner: images ``[N, 3, S, S]`` in 0..1 to logits ``[N, C]``."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Give every network with state; by default the final models."""
        return self.models()

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Give every optimizer with state that outlives a round; by default none."""
        return {}

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """Give further state that outlives a round, such as soft labels; by default none."""
        return {}

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:  # noqa: B027 - none by default
        """Take back what :meth:`arrays` gave."""

    def prepare(self, place: Place) -> None:  # noqa: B027 - nothing by default
        """Make those networks that only a place within a round has, to be filled from a checkpoint."""

    def go_on(self, place: Place) -> None:
        """Begin the next round at a place that an earlier process told :attr:`saves` of.

        Networks, optimizers and :meth:`arrays` are as they were there.
        """
        self._place = place

    def _left_at(self) -> Place:
        """Give the place to begin a round at; what comes after this one begins at the beginning."""
        place, self._place = self._place, Place()
        return place

    def _sample(self, round_num: int) -> list[str]:
        """Draw the devices that take part in a round."""
        config, clients = self._config, list(self._federation.clients)
        return sample_clients(clients, config.client_fraction, seed=config.seed, round_num=round_num)

    def _moved(self, network: ModuleT) -> ModuleT:
        """Move a large network to where networks live, in the layout in which convolutions are fast."""
        moved: ModuleT = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def _combined_network(self) -> CombinedNetwork:
        """Build the large network with fresh weights."""
        num_classes, pixels = self._federation.num_classes, self._federation.pixels
        network = build_combined_network(
            self._edge_network, self._server_network, num_classes, **pixels, seed=self._config.seed
        )
        return self._moved(network)

    def _validate(self, network: nn.Module) -> Evaluation:
        """Measure a network on the devices' validation samples."""
        return evaluate_images(network, self._federation.validation(), self._federation.num_classes)


@dataclass(frozen=True, slots=True)
class SupervisedPlace:
    """How far supervised training has come.

    Attributes:
        num_batches: Batches that are done.
        total_loss: Sum of the losses of all samples seen.
        num_seen: Samples seen.
    """

    num_batches: int = 0
    total_loss: float = 0.0
    num_seen: int = 0


def train_supervised(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Iterable[tuple[Tensor, Tensor]],
    on_samples: Callable[[int], None],
    *,
    precision: str = "fp32",
    label_smoothing: float = 0.0,
    rates: Sequence[float] | None = None,
    compiler: Compiler = NOT_COMPILED,
    begin: SupervisedPlace | None = None,
    on_place: Callable[[SupervisedPlace], None] = lambda place: None,
) -> float:
    """Minimise cross entropy over batches; the mean loss.

    ``rates`` are the learning rates of the round's batches, those that are done included; by default the
    optimizer's own.

    With ``begin``, where an earlier process left off, the batches are those that were left. After each batch
    ``on_samples`` is called with the number of images, and ``on_place``.

    Raises:
        GKTError: The loss is no longer finite.
    """
    device = next(network.parameters()).device
    network.train()
    place = begin or SupervisedPlace()
    for images, labels in data:
        if rates is not None:
            set_learning_rate(optimizer, rates[place.num_batches])
        optimizer.zero_grad(set_to_none=True)
        inputs = images.to(device)
        forward = compiler.forward(network, inputs)
        with training_precision(precision, device):
            logits = logits_of(forward(inputs))
        loss = nn.functional.cross_entropy(logits.float(), labels.to(device), label_smoothing=label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = loss.item()
        if not np.isfinite(value):
            raise GKTError(f"the training loss is {value}: training diverged, lower the learning rate")
        num = len(labels)
        place = SupervisedPlace(place.num_batches + 1, place.total_loss + value * num, place.num_seen + num)
        on_samples(num)
        on_place(place)
    return place.total_loss / max(1, place.num_seen)


def logits_of(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Pick the logits out of what a network gives: logits alone, or an edge network's features and logits."""
    return output[1] if isinstance(output, tuple) else output


def evaluate_images(network: nn.Module, samples: Samples, num_classes: int) -> Evaluation:
    """Measure cross entropy, accuracy and confusion matrix of a network on un-augmented images."""
    device = next(network.parameters()).device
    network.eval()
    total = 0.0
    confusion = np.zeros((num_classes, num_classes), np.int64)
    with torch.no_grad():
        for images, labels in evaluation_batches(samples):
            logits = logits_of(network(images.to(device))).cpu()
            total += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            np.add.at(confusion, (labels.numpy(), logits.argmax(dim=1).numpy()), 1)
    return Evaluation(total / len(samples), float(np.trace(confusion)) / len(samples), confusion)


def state_arrays(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Give a network's parameters and running statistics, which is what devices send of one."""
    state = network.state_dict()
    return {name: value.cpu().numpy() for name, value in state.items() if value.is_floating_point()}


def state_wire_bytes(network: nn.Module, *, compressed: bool) -> int:
    """Count the bytes that they take in float32 on the wire."""
    return num_wire_bytes(state_arrays(network), compressed=compressed)
