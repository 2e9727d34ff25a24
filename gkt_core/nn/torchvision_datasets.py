"""CIFAR-10 and CIFAR-100 through torchvision, downloaded on first use.

The official archives hold pickled arrays; torchvision reads them after checking their published MD5.
This is the one place where gkt touches pickle.
"""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100

from gkt_core.errors import DatasetError

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_cifar(name: str, root: Path) -> tuple[Part, Part, list[str]]:
    """Load ``cifar10`` or ``cifar100``, downloading it if the folder ``root`` does not hold it.

    Returns:
        Training part, test part (images ``[N, 32, 32, 3] uint8``, labels ``[N]``), class names.

    Raises:
        DatasetError: Neither there nor to be downloaded.
    """
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        train = kind(root=str(root), train=True, download=True)
        test = kind(root=str(root), train=False, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DatasetError(
            f"cannot load {name}: {error}. Download it on a machine with a connection and copy the "
            f"folder to {root}, or give an .npz file"
        ) from error
    parts = [(np.asarray(part.data, np.uint8), np.asarray(part.targets, np.int64)) for part in (train, test)]
    return parts[0], parts[1], list(train.classes)
