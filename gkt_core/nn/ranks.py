"""Several processes that train one network: which part of a batch is whose, and what is added up over all.

``server_update`` is written once, for any number of processes. :class:`Ranks` is one process, and changes
no number; :class:`DistributedRanks` is PyTorch's DistributedDataParallel over the processes of its
default group. All of them draw the same batches and divide each one by rank:

- batch normalisation sees a rank's own part, as it does in every data-parallel training;
- gradients are those of the mean loss over the whole batch, however unevenly it divides;
- running statistics are averaged over ranks before anything is evaluated with them or kept.

Sums are taken in the order of ranks. Then the numbers depend on how many processes there are, and not on when
one of them was started again.
"""

# No annotations as strings: DistributedDataParallel looks at those of its hook.
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gkt_core.errors import GKTError


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of a batch.

    Attributes:
        rows: Its samples.
        weight: What the mean loss over them counts in the mean loss over the batch.
        counts: Whether what is found for them counts; not where another process has the same samples.
    """

    rows: NDArray[np.intp]
    weight: float
    counts: bool


class Ranks:
    """The processes that train together, seen from one of them: as it stands, this process alone."""

    rank, size = 0, 1

    def trained(self, network: nn.Module) -> nn.Module:
        """Give what the forward pass of training goes through, so that gradients are those of all."""
        return network

    def share(self, rows: NDArray[np.intp]) -> Share:
        """Give this process's part of a batch."""
        return Share(rows, 1.0, True)

    def average_statistics(self, network: nn.Module) -> None:
        """Give all processes the same running statistics."""

    def sum_values(self, values: list[float]) -> list[float]:
        """Sum over all processes, each value by itself."""
        return values

    def sum_array(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum over all processes, elementwise."""
        return array


class DistributedRanks(Ranks):
    """:class:`Ranks` over the default process group, which must have been formed: gloo on CPUs, nccl on GPUs.

    Every process of the group must make one at the same time, of the same network, and make the same calls.
    Rank 0's weights are given to all.
    """

    def __init__(self, network: nn.Module) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._network = network
        # Statistics are averaged here; by itself it would overwrite them with rank 0's.
        self._wrapped = DistributedDataParallel(network, broadcast_buffers=False)
        self._wrapped.register_comm_hook(self.size, _sum_gradients)

    def trained(self, network: nn.Module) -> nn.Module:
        """Wrap the network, so that gradients are summed over ranks.

        Raises:
            GKTError: It is not the network that this was made for.
        """
        if network is not self._network:
            raise GKTError("the processes that train together were formed for another network")
        return self._wrapped

    def share(self, rows: NDArray[np.intp]) -> Share:
        """Give a run of its samples; all of them where some rank would get fewer than two.

        A part of one sample has no batch statistics.
        """
        if len(rows) < 2 * self.size:
            return Share(rows, 1.0 / self.size, self.rank == 0)
        mine = np.array_split(rows, self.size)[self.rank]
        return Share(mine, len(mine) / len(rows), True)

    def average_statistics(self, network: nn.Module) -> None:
        """Replace every running mean and variance by its mean over ranks."""
        buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        if not buffers:
            return
        together = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.all_reduce(together)
        together /= self.size
        sizes = [buffer.numel() for buffer in buffers]
        for buffer, value in zip(buffers, torch.split(together, sizes), strict=True):
            buffer.copy_(value.view_as(buffer))

    def sum_values(self, values: list[float]) -> list[float]:
        """Sum over all processes, each value by itself."""
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return [float(value) for value in summed]

    def sum_array(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum over all processes, elementwise."""
        summed = torch.from_numpy(array.copy())
        dist.all_reduce(summed)
        return np.asarray(summed.numpy())


def _sum_gradients(
    size: int,
    bucket: dist.GradBucket,  # type: ignore[name-defined] # which PyTorch has only where it can do this
) -> torch.futures.Future[Tensor]:
    """Sum a bucket of gradients where DistributedDataParallel would average them."""
    mine: Tensor = bucket.buffer()
    if mine.is_cuda:
        reduced: torch.futures.Future[Any] = dist.all_reduce(mine, async_op=True).get_future()
        return reduced.then(lambda future: future.value()[0])
    # The order in which gloo's ring adds depends on where in a bucket a gradient lies, and buckets are
    # filled anew after a first step: a restarted training would not add as one that went on.
    parts = [torch.empty_like(mine) for _ in range(size)]

    def add(_: Any) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total

    gathered: torch.futures.Future[Any] = dist.all_gather(parts, mine, async_op=True).get_future()
    return gathered.then(add)
