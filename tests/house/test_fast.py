"""``make test-fast`` skips what it says: a test that starts a process, listens, exports or trains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

from tests.conftest import FAST_STEPS

pytestmark = pytest.mark.skipif("not config.getoption('--fast')", reason="of make test-fast")


def test_a_process_is_not_started() -> None:
    with pytest.raises(pytest.skip.Exception, match="starts a process"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(pytest.skip.Exception, match="starts a process"):
        os.fork()


def test_nothing_is_trained() -> None:
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight])
    for _ in range(FAST_STEPS):
        optimizer.step()
    with pytest.raises(pytest.skip.Exception, match="trains"):
        optimizer.step()


def test_nothing_listens() -> None:
    with socket.socket() as listening, pytest.raises(pytest.skip.Exception, match="listens"):
        listening.bind(("127.0.0.1", 0))


def test_nothing_is_exported() -> None:
    with pytest.raises(pytest.skip.Exception, match="exports"):
        torch.onnx.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))
