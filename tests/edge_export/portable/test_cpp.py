"""The portable step in C++: the example of docs/mobile.md is compiled, and 20 steps end where Python's end.

ONNXRUNTIME_HOME is a folder with ONNX Runtime's headers in ``include`` and ``libonnxruntime.so`` in ``lib``,
such as a release archive unpacked; neither PyPI nor npm has the headers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gkt_core.bundle.manifest import INITIAL_STATE, TRAIN_STEP, Bundle
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.edge_export.portable.test_node import BATCH, STEPS, check_same, train_in_python

SOURCE = ROOT / "docs" / "examples" / "train_step.cpp"
HOME = os.environ.get("ONNXRUNTIME_HOME", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(not HOME, reason="needs ONNX Runtime's C++ headers and library in ONNXRUNTIME_HOME")
def test_twenty_steps_in_cpp_agree_with_python(
    digits_bundle: Bundle, digits_split: Path, tmp_path: Path
) -> None:
    library = Path(HOME) / "lib" / "libonnxruntime.so"
    program = tmp_path / "train_step"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem", str(Path(HOME) / "include")]
    linked = [str(library), f"-Wl,-rpath,{library.parent.resolve()}"]
    subprocess.run(
        ["g++", *flags, str(SOURCE), "-o", str(program), *linked], check=True, timeout=LONGEST_SECONDS
    )
    batches, out = tmp_path / "batches", tmp_path / "out"
    batches.mkdir()
    out.mkdir()
    engine, losses = train_in_python(digits_bundle, digits_split, batches)
    sizes = [STEPS, BATCH, digits_bundle.manifest.image_size, digits_bundle.manifest.num_classes]
    files = [digits_bundle.file(TRAIN_STEP), digits_bundle.file(INITIAL_STATE), batches, out]
    arguments = [str(part) for part in (program, *files, *sizes)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    assert done.returncode == 0, done.stderr
    check_same(digits_bundle, engine, out, losses, np.fromfile(out / "losses", np.float32).tolist())
    # What a truncated state does is an error, not a crash.
    cut = tmp_path / "cut"
    cut.write_bytes(digits_bundle.file(INITIAL_STATE).read_bytes()[:-8])
    arguments[2] = str(cut)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    assert (done.returncode, "is cut short" in done.stderr) == (1, True), done.stderr
