"""How threads of one computation wait for each other: asleep, so that others may have the core meanwhile.

As OpenMP comes, a thread that is done before the others spins. Beside another process that wants a core the
thread that is waited for is then the very one that does not run, and training is up to twenty times slower.
"""

from __future__ import annotations

import os

# For GCC's OpenMP, which PyTorch brings on Linux, and for LLVM's and Intel's, which spin 200 ms by default.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# Whoever has set one of these has decided.
WAITING_VARIABLES = (*PATIENT_THREADS, "GOMP_SPINCOUNT")


def wait_patiently() -> None:
    """Let threads of this process, and of those that it starts, sleep while they wait.

    OpenMP reads its environment when it is loaded: call this before PyTorch is imported. Does nothing where
    the environment says already how to wait.
    """
    if not any(name in os.environ for name in WAITING_VARIABLES):
        os.environ.update(PATIENT_THREADS)
