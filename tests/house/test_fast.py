"""``make test-fast`` skips what it says: a test that starts a process, and one that trains."""

from __future__ import annotations

import os
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
