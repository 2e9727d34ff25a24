"""What fails inside of a graph that a server gave: an error that says so, whoever ran it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gkt_core.bundle.onnx_runtime import is_out_of_memory
from gkt_core.errors import UnsafeModelError
from gkt_core.printable import printable

# ONNX Runtime's own exceptions have no common base; outputs of another number or shape are found by Python.
_OURS = (RuntimeError, TypeError, ValueError, KeyError, IndexError)


@contextlib.contextmanager
def graph_trouble_named() -> Iterator[None]:
    """Let what fails inside of a graph be an error with a name; also decorates a method.

    Memory that runs out stays what it is.

    Raises:
        UnsafeModelError: The graph does not do what its manifest says.
    """
    try:
        yield
    except Exception as error:
        is_theirs = isinstance(error, _OURS) or type(error).__module__.startswith("onnxruntime")
        if not is_theirs or is_out_of_memory(error):
            raise
        raise UnsafeModelError(
            f"the graph of this bundle fails: {printable(str(error))[:300]}: whoever runs the server must "
            "export again, or somebody between has changed it"
        ) from error
